//! Upgrade, rollback and reinstallation of the Helm release beside a running and a finished training.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use legion_tests::cluster::{Cluster, helm, install, name_of, script};
use serde_json::{Value, json};

use crate::{QUICK, cluster, ended_in_attempt, let_go, under_way};

/// Fails unless the running pod and the finished training are unchanged.
fn untouched(cluster: &Cluster, pod: &Value, done: &Value, after: &str) -> anyhow::Result<()> {
    let pods = cluster.pods("running")?;
    ensure!(
        pods.len() == 1 && pods[0]["metadata"]["uid"] == pod["metadata"]["uid"],
        "after {after} the running pod is not the one that it was: {pods:#?}"
    );
    let now = cluster.training("done")?;
    ensure!(
        now["metadata"]["resourceVersion"] == done["metadata"]["resourceVersion"],
        "after {after} the finished training was written: {:#}",
        now["status"]
    );
    Ok(())
}

/// A setting that changes the pod template, as another version of the operator would. The user id stays, because it
/// owns the files in the namespace's volume.
const OTHER_PODS: [&str; 1] = ["--set=trainings.runAsGroup=70000"];

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn no_upgrade_rollback_or_reinstallation_starts_a_training_again() -> anyhow::Result<()> {
    let cluster = cluster("release")?;
    cluster.apply(&script("done", QUICK, json!({})))?;
    let done = cluster.success("done")?;
    let pod = under_way(&cluster, "running", json!({}))?;

    install(&OTHER_PODS)?;
    leads(&cluster)?;
    untouched(&cluster, &pod, &done, "an upgrade to other pod templates")?;
    // A new training gets the new pod template.
    cluster.apply(&script("newer", QUICK, json!({})))?;
    ended_in_attempt(&cluster.success("newer")?, 1)?;
    let newer = cluster.pods("newer")?;
    ensure!(
        newer[0]["spec"]["securityContext"]["runAsGroup"] == 70000,
        "{:#}",
        newer[0]["spec"]["securityContext"]
    );

    helm(&["rollback", "legion", "--wait"])?;
    leads(&cluster)?;
    untouched(&cluster, &pod, &done, "a rollback")?;

    helm(&["uninstall", "legion", "--wait"])?;
    helm(&["uninstall", "legion-crds", "--wait"])?;
    for crd in ["modeltrainings", "connections", "toolchainintegrations"] {
        let crd = format!("{crd}.legion-platform.org");
        ensure!(
            !cluster
                .run(&["get", "crd", &crd, "--ignore-not-found", "--output=name"])?
                .trim()
                .is_empty(),
            "{crd} was deleted with its release"
        );
    }
    untouched(&cluster, &pod, &done, "an uninstallation")?;
    // It ends while no operator runs.
    let_go(&cluster, &pod)?;
    let name = name_of(&pod)?;
    cluster.until("running", "its pod has ended", |_| {
        Ok((cluster.get::<Pod>(name)?["status"]["phase"] == "Succeeded").then_some(()))
    })?;

    install(&[])?;
    ended_in_attempt(&cluster.success("running")?, 1)?;
    untouched(&cluster, &pod, &done, "a new installation")
}

/// Waits until a running replica leads. Before that, an object may be untouched only because no operator ran.
fn leads(cluster: &Cluster) -> anyhow::Result<()> {
    let lease = [
        "get",
        "lease",
        "legion-operator",
        "--namespace=legion-system",
        "--output=jsonpath={.spec.holderIdentity}",
    ];
    cluster.until("done", "a replica of the new release leads", |_| {
        let holder = cluster.run(&lease)?;
        if holder.trim().is_empty() {
            return Ok(None);
        }
        let pod = [
            "get",
            "pod",
            holder.trim(),
            "--namespace=legion-system",
            "--ignore-not-found",
            "--output=name",
        ];
        Ok((!cluster.run(&pod)?.trim().is_empty()).then_some(()))
    })?;
    // It has reconciled all objects by then: a training that is applied now is reconciled after all earlier ones.
    let marker = format!("marker-{}", std::process::id());
    cluster.apply(&script(&marker, QUICK, json!({"suspend": true})))?;
    cluster.waiting(&marker, "Suspended")?;
    cluster.run(&["delete", "modeltraining", &marker]).map(drop)
}
