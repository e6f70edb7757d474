//! Server-side apply on a real API server: repeated without a difference, beside other field managers, pruned, deleted.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, ensure};
use legion_tests::{
    local::repository,
    tool::{CommandOutput, kubectl, kubectl_json, run_kubectl, until_crds_are_served},
};
use rstest::rstest;
use serde_json::{Value, json};

/// Field manager of the GitOps tool.
const MANAGER: &str = "--field-manager=gitops";
const KINDS: &str = "configmaps,persistentvolumeclaims,connections,modeltrainings";
const TRAINING: &str = "examples/wine/training.yaml";

/// Creates a namespace for one test in a cluster with our CRDs.
fn namespace(name: &str) -> anyhow::Result<String> {
    for entry in fs::read_dir(repository().join("crds"))? {
        let crd = entry?.path();
        kubectl(
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "-f",
                crd.to_str().context("UTF-8")?,
            ],
            "",
        )?;
    }
    until_crds_are_served()?;
    let manifest = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}");
    kubectl(&["apply", "-f", "-"], &manifest)?;
    Ok(name.to_owned())
}

/// Every manifest of the examples.
fn examples() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(repository().join("examples"))? {
        let directory = entry?.path();
        if !directory.is_dir() {
            continue;
        }
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".yaml") && name != "example.yaml" {
                found.push(path);
            }
        }
    }
    found.sort();
    ensure!(found.len() > 8, "{found:?}");
    Ok(found)
}

/// Returns generation and resourceVersion of all objects that the cluster did not create.
fn versions(namespace: &str) -> anyhow::Result<BTreeMap<String, (i64, String)>> {
    let list = kubectl_json(&["get", KINDS, "--namespace", namespace])?;
    let mut found = BTreeMap::new();
    for object in list["items"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        // Created by the cluster.
        if name == "kube-root-ca.crt" {
            continue;
        }
        let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
        let version = (generation, text(&object["metadata"]["resourceVersion"]));
        found.insert(format!("{kind}/{name}"), version);
    }
    Ok(found)
}

fn apply(namespace: &str, manifest: &str, more: &[&str]) -> anyhow::Result<CommandOutput> {
    let mut arguments = vec!["apply", "--server-side", "--namespace", namespace, "-f", "-"];
    arguments.extend(more);
    run_kubectl(&arguments, manifest)
}

/// Returns the output of `kubectl diff`: what apply would change.
fn difference(namespace: &str, manifest: &str, more: &[&str]) -> anyhow::Result<String> {
    let mut arguments = vec!["diff", "--namespace", namespace, "-f", "-"];
    arguments.extend(more);
    let said = run_kubectl(&arguments, manifest)?;
    // 1: there is a difference. Above 1: kubectl failed.
    ensure!(matches!(said.code, Some(0 | 1)), "{}", said.all);
    ensure!(said.ok == said.out.is_empty(), "{}", said.all);
    Ok(said.out)
}

/// Writes a status as the operator does: with its own field manager, in the subresource.
fn write_status(namespace: &str) -> anyhow::Result<()> {
    let patch = json!({"status": {"observedGeneration": 1, "score": "val_accuracy=0.97", "conditions": [{
        "type": "Ready", "status": "True", "reason": "RunSucceeded", "message": "the model is trained",
        "observedGeneration": 1, "lastTransitionTime": "2026-11-23T17:00:00Z",
    }]}});
    kubectl(
        &[
            "patch",
            "modeltraining",
            "wine",
            "--namespace",
            namespace,
            "--subresource=status",
            "--type=merge",
            "--field-manager=legion-operator",
            "--patch",
            &patch.to_string(),
        ],
        "",
    )?;
    Ok(())
}

/// Server-side as in Flux and Argo CD, and client-side as in plain `kubectl apply`.
#[rstest]
#[case::server_side("gitops-server-side", &["--server-side", MANAGER])]
#[case::client_side("gitops-client-side", &[])]
#[ignore = "needs a cluster"]
fn every_example_is_applied_again_without_a_difference(#[case] name: &str, #[case] how: &[&str]) -> anyhow::Result<()> {
    let namespace = namespace(name)?;
    let apply = |manifest: &str| {
        let mut arguments = vec!["apply", "--namespace", &namespace, "-f", "-"];
        arguments.extend(how);
        kubectl(&arguments, manifest)
    };
    for path in examples()? {
        let manifest = fs::read_to_string(&path)?;
        let new = difference(&namespace, &manifest, how)?;
        ensure!(!new.is_empty(), "{}: what is not there differs", path.display());
        apply(&manifest)?;
        let left = difference(&namespace, &manifest, how)?;
        ensure!(
            left.is_empty(),
            "{}: differs after it was applied:\n{left}",
            path.display()
        );
        // The CRDs set a default in the status. Until the first write after its creation, the API server adds that
        // default to every response; then it stores it. The operator's first write has the same effect.
        apply(&manifest)?;
        let before = versions(&namespace)?;
        apply(&manifest)?;
        let after = versions(&namespace)?;
        ensure!(
            after == before,
            "{}: applying again writes: {before:?}, then {after:?}",
            path.display()
        );
    }
    // A status of another field manager is no difference.
    let manifest = fs::read_to_string(repository().join(TRAINING))?;
    apply(&manifest)?;
    write_status(&namespace)?;
    let before = versions(&namespace)?;
    let left = difference(&namespace, &manifest, how)?;
    ensure!(left.is_empty(), "differs once there is a status:\n{left}");
    apply(&manifest)?;
    ensure!(
        versions(&namespace)? == before,
        "applying again writes once there is a status"
    );
    // A real difference is shown, and no other.
    let changed = manifest.replace("timeout: 15m", "timeout: 20m");
    let seen = difference(&namespace, &changed, how)?;
    ensure!(
        changed != manifest && seen.contains("+  timeout: 20m") && seen.contains("-  timeout: 15m"),
        "{seen}"
    );
    for path in examples()? {
        kubectl(
            &[
                "delete",
                "--namespace",
                &namespace,
                "--ignore-not-found",
                "--wait=false",
                "-f",
                "-",
            ],
            &fs::read_to_string(path)?,
        )?;
    }
    // A claim has a finalizer of the cluster, which needs a moment.
    kubectl(
        &[
            "wait",
            "--for=delete",
            KINDS.trim_start_matches("configmaps,"),
            "--all",
            "--namespace",
            &namespace,
            "--timeout=60s",
        ],
        "",
    )?;
    ensure!(versions(&namespace)?.is_empty(), "{:?}", versions(&namespace)?);
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn fields_of_other_managers_are_kept() -> anyhow::Result<()> {
    let namespace = namespace("gitops-managers")?;
    let manifest = fs::read_to_string(repository().join(TRAINING))?;
    ensure!(apply(&namespace, &manifest, &[MANAGER])?.ok);
    write_status(&namespace)?;
    let get = || kubectl_json(&["get", "modeltraining", "wine", "--namespace", &namespace]);
    let partial = |metadata: Value, spec: Value| {
        let mut metadata = metadata;
        metadata["name"] = json!("wine");
        json!({"apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining", "metadata": metadata, "spec": spec}).to_string()
    };
    // A label of a team, and a field of the spec that is not in git.
    let before = get()?;
    let team = "--field-manager=team";
    let extra = partial(
        json!({"labels": {"team": "red"}}),
        json!({"hyperParameters": {"seed": "7"}, "suspend": true}),
    );
    let said = apply(&namespace, &extra, &[team])?;
    ensure!(said.ok, "{}", said.all);
    ensure!(apply(&namespace, &manifest, &[MANAGER])?.ok);
    let beside = get()?;
    ensure!(beside["metadata"]["labels"]["team"] == "red", "the label stays");
    ensure!(
        beside["spec"]["suspend"] == true && beside["spec"]["hyperParameters"]["seed"] == "7",
        "{}",
        beside["spec"]
    );
    ensure!(
        beside["spec"]["hyperParameters"]["folds"] == "5",
        "an entry of its own beside those of git"
    );
    ensure!(
        beside["status"] == before["status"],
        "only the operator writes a status"
    );
    let left = difference(&namespace, &manifest, &["--server-side", MANAGER])?;
    ensure!(left.is_empty(), "{left}");

    // The same field: the second manager gets a conflict, and force makes it the owner.
    // An apply lists all fields of its manager: the manager gives up a field that is left out.
    let mine = partial(
        json!({"labels": {"team": "red"}}),
        json!({"hyperParameters": {"seed": "7"}, "suspend": true, "timeout": "1h"}),
    );
    let conflict = apply(&namespace, &mine, &[team])?;
    ensure!(
        !conflict.ok && conflict.all.contains("conflict with \"gitops\": .spec.timeout"),
        "{}",
        conflict.all
    );
    ensure!(apply(&namespace, &mine, &[team, "--force-conflicts"])?.ok);
    let conflict = apply(&namespace, &manifest, &[MANAGER])?;
    ensure!(
        !conflict.ok && conflict.all.contains("conflict with \"team\": .spec.timeout"),
        "{}",
        conflict.all
    );
    ensure!(
        apply(&namespace, &manifest, &[MANAGER, "--force-conflicts"])?.ok,
        "as Flux does"
    );
    let healed = get()?;
    ensure!(healed["spec"]["timeout"] == "15m", "{}", healed["spec"]);

    // A field that is no longer in git is removed. Fields of other managers stay.
    let less = manifest.replace("  objective: {metric: val_accuracy, goal: Maximize}\n", "");
    ensure!(less != manifest && apply(&namespace, &less, &[MANAGER])?.ok);
    let reduced = get()?;
    ensure!(reduced["spec"].get("objective").is_none(), "{}", reduced["spec"]);
    ensure!(reduced["metadata"]["labels"]["team"] == "red", "the label stays");

    // A change of labels is no new generation, so it starts no run.
    let generation = reduced["metadata"]["generation"].clone();
    kubectl(
        &[
            "label",
            "modeltraining",
            "wine",
            "argocd.argoproj.io/instance=trainings",
            "--namespace",
            &namespace,
        ],
        "",
    )?;
    kubectl(
        &[
            "annotate",
            "modeltraining",
            "wine",
            "kustomize.toolkit.fluxcd.io/checksum=1",
            "--namespace",
            &namespace,
        ],
        "",
    )?;
    ensure!(
        get()?["metadata"]["generation"] == generation,
        "metadata makes a generation"
    );
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn pruning_deletes_only_what_is_no_longer_in_git() -> anyhow::Result<()> {
    let namespace = namespace("gitops-prune")?;
    let wine = fs::read_to_string(repository().join(TRAINING))?;
    let script = fs::read_to_string(repository().join("examples/script/training.yaml"))?;
    let output = fs::read_to_string(repository().join("examples/default-output/pvc.yaml"))?;
    // Owned by another manager, in no set.
    ensure!(apply(&namespace, &output, &[MANAGER])?.ok);
    let set = |manifest: &str| {
        let arguments = [
            "apply",
            "--server-side",
            "--namespace",
            &namespace,
            "--prune",
            "--applyset=configmaps/set",
            "-f",
            "-",
        ];
        let mut command = std::process::Command::new("kubectl");
        legion_tests::tool::run(command.args(arguments).env("KUBECTL_APPLYSET", "true"), manifest)
    };
    let both = set(&format!("{wine}\n---\n{script}"))?;
    ensure!(both.ok, "{}", both.all);
    let names = || -> anyhow::Result<Vec<String>> { Ok(versions(&namespace)?.into_keys().collect()) };
    let all = [
        "ConfigMap/script-source",
        "ConfigMap/set",
        "ConfigMap/wine-source",
        "Connection/models",
        "ModelTraining/script",
        "ModelTraining/wine",
        "PersistentVolumeClaim/legion-models",
    ];
    ensure!(names()? == all, "{:?}", names()?);
    let one = set(&wine)?;
    ensure!(
        one.ok && one.out.contains("modeltraining.legion-platform.org/script pruned"),
        "{}",
        one.all
    );
    let left = [
        "ConfigMap/set",
        "ConfigMap/wine-source",
        "Connection/models",
        "ModelTraining/wine",
        "PersistentVolumeClaim/legion-models",
    ];
    ensure!(names()? == left, "{:?}", names()?);

    // By label and list of kinds, as older scripts do.
    let labelled = |manifest: &str| manifest.replace("metadata:\n  name:", "metadata:\n  labels: {app: lab}\n  name:");
    let prune = |manifest: &str| {
        kubectl(
            &[
                "apply",
                "--namespace",
                &namespace,
                "--prune",
                "--selector",
                "app=lab",
                "--prune-allowlist=core/v1/ConfigMap",
                "--prune-allowlist=legion-platform.org/v1alpha1/ModelTraining",
                "-f",
                "-",
            ],
            &labelled(manifest),
        )
    };
    prune(&script)?;
    ensure!(names()?.contains(&"ModelTraining/script".to_owned()));
    let diabetes = fs::read_to_string(repository().join("examples/diabetes/training.yaml"))?;
    let said = prune(&diabetes)?;
    ensure!(
        said.contains("modeltraining.legion-platform.org/script pruned"),
        "{said}"
    );
    ensure!(
        names()?.contains(&"ModelTraining/wine".to_owned()),
        "what has no such label stays"
    );
    ensure!(names()?.contains(&"ModelTraining/diabetes".to_owned()));
    Ok(())
}
