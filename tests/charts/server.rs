//! The charts on a real API server: installation, upgrade, removal and reinstallation.
//!
//! No node is needed. Pods may stay pending: other suites test the operator.

use std::fs;

use anyhow::{Context as _, ensure};
use legion_operator::access::{Place, TABLE, Verb};
use legion_tests::{
    local::{repository, until},
    tool::{helm, kubectl, kubectl_json, run_helm, run_kubectl, until_crds_are_served},
};
use serde_json::Value;

use crate::{
    conform::prometheus_crds,
    helm::{NAMESPACE, template},
};

const OPERATOR: &str = "system:serviceaccount:legion-system:legion-operator";

const TRAINING: &str = "
apiVersion: legion-platform.org/v1alpha1
kind: ModelTraining
metadata: {name: wine, namespace: demo}
spec:
  model: {name: wine, version: '1'}
  toolchain: mlflow
  source:
    git: {uri: https://example.com/wine.git, ref: main}
---
apiVersion: legion-platform.org/v1alpha1
kind: Connection
metadata: {name: models, namespace: demo}
spec: {type: pvc, uri: 'pvc://models'}
";

fn install(chart: &str, more: &[&str]) -> anyhow::Result<String> {
    let directory = format!("charts/{chart}");
    // Without new values Helm would reuse those of the last release.
    let mut arguments = vec![
        "upgrade",
        "--install",
        chart,
        &directory,
        "--namespace",
        NAMESPACE,
        "--reset-values",
    ];
    arguments.extend(more);
    helm(&arguments)
}

fn values(name: &str) -> String {
    format!("{}/tests/charts/values/{name}.yaml", repository().display())
}

fn exists(arguments: &[&str]) -> anyhow::Result<bool> {
    let mut all = vec!["get", "--ignore-not-found", "-o", "name"];
    all.extend(arguments);
    Ok(!kubectl(&all, "")?.trim().is_empty())
}

/// Returns whether the user may do that.
fn can(who: &str, verb: &str, resource: &str, group: &str, namespace: &str) -> anyhow::Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let kind = if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    };
    let mut arguments = vec!["auth", "can-i", verb, &kind, "--namespace", namespace, "--as", who];
    let subresource = format!("--subresource={subresource}");
    if subresource != "--subresource=" {
        arguments.push(&subresource);
    }
    let said = run_kubectl(&arguments, "")?;
    match said.out.trim() {
        "yes" => Ok(true),
        answer if answer.starts_with("no") => Ok(false),
        _ => anyhow::bail!("kubectl {}: {}", arguments.join(" "), said.all),
    }
}

/// Returns what stays the same while no one writes an object.
fn version(resource: &str) -> anyhow::Result<(Value, Value)> {
    let object = kubectl_json(&["get", "--namespace", "demo", resource, "wine"])?;
    Ok((
        object["metadata"]["uid"].clone(),
        object["metadata"]["resourceVersion"].clone(),
    ))
}

fn deployment() -> anyhow::Result<Value> {
    kubectl_json(&["get", "--namespace", NAMESPACE, "deployment", "legion-operator"])
}

#[test]
#[ignore = "needs a cluster"]
fn installation_upgrade_removal_and_reinstallation() -> anyhow::Result<()> {
    kubectl(&["create", "namespace", NAMESPACE], "")?;
    kubectl(&["create", "namespace", "demo"], "")?;
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&["label", "namespace", NAMESPACE, "demo", restricted], "")?;

    without_crds_helm_says_what_to_do()?;
    install("legion-crds", &[])?;
    until_crds_are_served()?;
    let dry = install("legion", &["--dry-run=server"])?;
    ensure!(dry.contains("kind: Deployment"), "{dry}");
    ensure!(
        !exists(&["deployment", "--namespace", NAMESPACE])?,
        "a dry run makes nothing"
    );
    let notes = install("legion", &[])?;
    ensure!(
        notes.contains("kubectl apply -f examples/default-output/pvc.yaml"),
        "{notes}"
    );

    two_replicas_are_admitted()?;
    the_operator_may_do_what_its_table_says()?;
    people_may_do_what_their_roles_say()?;

    kubectl(&["apply", "-f", "-"], TRAINING)?;
    let training = version("modeltraining")?;
    upgrade_and_rollback()?;
    every_option_is_accepted()?;
    a_list_of_namespaces_needs_no_cluster_role()?;
    ensure!(version("modeltraining")? == training, "no upgrade touches a training");
    uninstall_leaves_what_is_the_users(&training)?;
    reinstalling_adopts(&training)
}

fn without_crds_helm_says_what_to_do() -> anyhow::Result<()> {
    let said = run_helm(&["install", "legion", "charts/legion", "--namespace", NAMESPACE])?;
    ensure!(
        !said.ok
            && said
                .all
                .contains("helm upgrade --install legion-crds charts/legion-crds"),
        "{}",
        said.all
    );
    // Nothing remains that would block the second attempt.
    ensure!(!exists(&[
        "all,serviceaccounts,roles",
        "--namespace",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/instance=legion"
    ])?);
    Ok(())
}

/// Checks that Pod Security admission accepts the pods at the level `restricted`.
fn two_replicas_are_admitted() -> anyhow::Result<()> {
    until("two pods of the operator", || {
        let pods = kubectl_json(&[
            "get",
            "pods",
            "--namespace",
            NAMESPACE,
            "-l",
            "app.kubernetes.io/name=legion-operator",
        ])?;
        Ok((pods["items"].as_array().map(Vec::len) == Some(2)).then_some(()))
    })?;
    let deployment = deployment()?;
    ensure!(deployment["spec"]["replicas"] == 2, "{deployment}");
    for toolchain in ["mlflow", "script"] {
        ensure!(exists(&["toolchainintegration", toolchain, "--namespace", NAMESPACE])?);
    }
    Ok(())
}

fn the_operator_may_do_what_its_table_says() -> anyhow::Result<()> {
    for access in TABLE.iter() {
        let namespaces: &[&str] = match access.place {
            Place::Served | Place::Anywhere => &["demo", NAMESPACE],
            Place::Platform => &[NAMESPACE],
        };
        for verb in access.verbs {
            for namespace in namespaces {
                if access.only_lease {
                    let lease = "leases.coordination.k8s.io/legion-operator";
                    let said = run_kubectl(
                        &["auth", "can-i", verb.as_str(), lease, "-n", namespace, "--as", OPERATOR],
                        "",
                    )?;
                    ensure!(said.ok, "{access:?} {verb:?} in {namespace}: {}", said.all);
                } else {
                    let may = can(OPERATOR, verb.as_str(), &access.resource, access.group, namespace)?;
                    ensure!(may, "{access:?} {verb:?} in {namespace}");
                }
            }
        }
    }
    let ours = "legion-platform.org";
    for (verb, resource, group, namespace) in [
        ("get", "secrets", "", NAMESPACE),
        ("list", "secrets", "", "demo"),
        ("patch", "pods", "", "demo"),
        ("update", "pods", "", "demo"),
        ("create", "pods/exec", "", "demo"),
        ("get", "pods/log", "", "demo"),
        ("update", "configmaps", "", "demo"),
        ("update", "modeltrainings", ours, "demo"),
        ("patch", "modeltrainings", ours, "demo"),
        ("create", "modeltrainings", ours, "demo"),
        ("delete", "modeltrainings", ours, "demo"),
        ("update", "modeltrainings/status", ours, "demo"),
        ("update", "leases", "coordination.k8s.io", NAMESPACE),
        ("get", "leases", "coordination.k8s.io", "kube-system"),
        ("create", "serviceaccounts/token", "", NAMESPACE),
        ("impersonate", "users", "", NAMESPACE),
    ] {
        ensure!(
            !can(OPERATOR, verb, resource, group, namespace)?,
            "the operator may {verb} {resource} in {namespace}"
        );
    }
    Ok(())
}

/// Waits for the aggregated roles. The controller manager needs a moment for them.
fn people_may_do_what_their_roles_say() -> anyhow::Result<()> {
    let ours = "legion-platform.org";
    for role in ["view", "edit", "admin"] {
        let user = format!("--user={role}er");
        kubectl(
            &[
                "create",
                "rolebinding",
                role,
                "--namespace",
                "demo",
                &format!("--clusterrole={role}"),
                &user,
            ],
            "",
        )?;
    }
    until("the roles of users are aggregated", || {
        Ok(can("adminer", "create", "toolchainintegrations", ours, "demo")?.then_some(()))
    })?;
    for (resource, writers) in [
        ("modeltrainings", &["editer", "adminer"][..]),
        ("connections", &["editer", "adminer"]),
        ("toolchainintegrations", &["adminer"]),
    ] {
        for user in ["viewer", "editer", "adminer", "stranger"] {
            for verb in [Verb::Get, Verb::List, Verb::Watch] {
                let may = can(user, verb.as_str(), resource, ours, "demo")?;
                ensure!(may == (user != "stranger"), "{user}: {verb:?} {resource}: {may}");
            }
            for verb in ["create", "update", "patch", "delete", "deletecollection"] {
                let may = can(user, verb, resource, ours, "demo")?;
                ensure!(may == writers.contains(&user), "{user}: {verb} {resource}: {may}");
            }
            // Only the operator may write a status.
            ensure!(
                !can(user, "patch", &format!("{resource}/status"), ours, "demo")?,
                "{user}: {resource}/status"
            );
        }
    }
    ensure!(
        !can("adminer", "get", "modeltrainings", ours, "default")?,
        "bound in demo only"
    );
    Ok(())
}

fn upgrade_and_rollback() -> anyhow::Result<()> {
    let before = deployment()?;
    install("legion", &["--set", "image.tag=0.2.0,podLabels.wave=second"])?;
    let upgraded = deployment()?;
    let image = &upgraded["spec"]["template"]["spec"]["containers"][0]["image"];
    ensure!(image == "legion-platform/control-plane:0.2.0", "{image}");
    let toolchain = kubectl_json(&["get", "toolchainintegration", "script", "--namespace", NAMESPACE])?;
    ensure!(
        toolchain["spec"]["image"] == "legion-platform/toolchain-script:0.2.0",
        "{toolchain}"
    );
    helm(&["rollback", "legion", "--namespace", NAMESPACE])?;
    let after = deployment()?;
    ensure!(
        after["spec"] == before["spec"],
        "rolled back to what was there: {}",
        after["spec"]
    );
    let history: Value = serde_json::from_str(&helm(&["history", "legion", "--namespace", NAMESPACE, "-o", "json"])?)?;
    ensure!(history.as_array().map(Vec::len) == Some(3), "{history}");
    Ok(())
}

fn every_option_is_accepted() -> anyhow::Result<()> {
    for crd in prometheus_crds()? {
        kubectl(&["apply", "--server-side", "-f", "-"], &fs::read_to_string(crd)?)?;
    }
    until_crds_are_served()?;
    install("legion", &["--values", &values("openshift")])?;
    install("legion", &["--values", &values("everything")])?;
    // Strict: a field that Kubernetes would drop, or answer with a warning, is an error.
    let manifest = template("legion", Some("everything"))?;
    let said = run_kubectl(
        &[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ],
        &manifest,
    )?;
    ensure!(said.ok && !said.all.contains("Warning"), "{}", said.all);
    for kind in ["servicemonitor", "prometheusrule", "configmap"] {
        ensure!(
            exists(&[
                kind,
                "--namespace",
                NAMESPACE,
                "-l",
                "app.kubernetes.io/instance=legion"
            ])?,
            "no {kind}"
        );
    }
    for schema in ["legion-operator", "legion-operator-lease"] {
        until("the flow schema has its priority level", || {
            let schema = kubectl_json(&["get", "flowschema", schema])?;
            let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions
                .iter()
                .any(|it| it["type"] == "Dangling" && it["status"] == "False");
            Ok(found.then_some(()))
        })?;
    }
    install("legion", &[])?;
    ensure!(
        !exists(&["flowschema", "legion-operator"])?,
        "what an option made goes with it"
    );
    Ok(())
}

fn a_list_of_namespaces_needs_no_cluster_role() -> anyhow::Result<()> {
    for namespace in ["red", "blue"] {
        kubectl(&["create", "namespace", namespace], "")?;
    }
    install("legion", &["--values", &values("list")])?;
    ensure!(!exists(&[
        "clusterrole,clusterrolebinding",
        "-l",
        "app.kubernetes.io/instance=legion"
    ])?);
    let ours = "legion-platform.org";
    for (namespace, resource, group, may) in [
        ("red", "pods", "", true),
        ("blue", "modeltrainings", ours, true),
        ("demo", "modeltrainings", ours, false),
        ("demo", "pods", "", false),
        (NAMESPACE, "toolchainintegrations", ours, true),
        (NAMESPACE, "pods", "", false),
    ] {
        ensure!(
            can(OPERATOR, "watch", resource, group, namespace)? == may,
            "watch {resource} in {namespace}"
        );
    }
    install("legion", &[])?;
    ensure!(
        can(OPERATOR, "watch", "pods", "", "demo")?,
        "serves every namespace again"
    );
    ensure!(
        !exists(&["role", "--namespace", "red"])?,
        "the roles of the list are gone"
    );
    Ok(())
}

fn uninstall_leaves_what_is_the_users(training: &(Value, Value)) -> anyhow::Result<()> {
    helm(&["uninstall", "legion", "--namespace", NAMESPACE, "--wait"])?;
    let said = helm(&["uninstall", "legion-crds", "--namespace", NAMESPACE, "--wait"])?;
    ensure!(
        said.contains("modeltrainings.legion-platform.org"),
        "it says what it keeps: {said}"
    );
    ensure!(version("modeltraining")? == *training, "the training is as it was");
    ensure!(exists(&["connection", "models", "--namespace", "demo"])?);
    for kind in [
        "deployment,service,serviceaccount,role,rolebinding",
        "toolchainintegration,networkpolicy,pdb",
    ] {
        ensure!(
            !exists(&[
                kind,
                "--namespace",
                NAMESPACE,
                "-l",
                "app.kubernetes.io/instance=legion"
            ])?,
            "{kind}"
        );
    }
    ensure!(!exists(&[
        "clusterrole,clusterrolebinding",
        "-l",
        "app.kubernetes.io/instance=legion"
    ])?);
    Ok(())
}

fn reinstalling_adopts(training: &(Value, Value)) -> anyhow::Result<()> {
    install("legion-crds", &[])?;
    install("legion", &[])?;
    two_replicas_are_admitted()?;
    ensure!(version("modeltraining")? == *training, "adopted as it was");
    // Helm adopts CRDs that kubectl created only when the values ask for it.
    helm(&["uninstall", "legion-crds", "--namespace", NAMESPACE])?;
    kubectl(&["delete", "crd", "connections.legion-platform.org"], "")?;
    let crd = repository().join("crds/connections.yaml");
    kubectl(&["apply", "--server-side", "-f", crd.to_str().context("UTF-8")?], "")?;
    let refused = run_helm(&[
        "upgrade",
        "--install",
        "legion-crds",
        "charts/legion-crds",
        "--namespace",
        NAMESPACE,
    ])?;
    ensure!(
        !refused.ok && refused.all.contains("invalid ownership metadata"),
        "{}",
        refused.all
    );
    install("legion-crds", &["--take-ownership"])?;
    ensure!(version("modeltraining")? == *training, "still as it was");
    Ok(())
}
