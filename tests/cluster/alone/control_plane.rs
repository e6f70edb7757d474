//! Trainings continue while a part of the control plane is down. Legion's operator is one of these parts.

use std::{thread, time::Duration};

use anyhow::ensure;
use legion_tests::cluster::{Cluster, process};
use serde_json::json;

use crate::{cluster, ended_in_attempt, let_go, under_way};

/// How long a part is down: longer than the timeout of a request, shorter than the operator's lease.
const AWAY: Duration = Duration::from_secs(8);

/// Checks that a running training survives an event and ends in its first attempt.
fn survives(purpose: &str, event: impl FnOnce(&Cluster) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let cluster = cluster(purpose)?;
    let pod = under_way(&cluster, "steady", json!({}))?;
    event(&cluster)?;
    let again = cluster.until_served("its pod is shown again", || cluster.pods("steady"))?;
    ensure!(
        again.len() == 1 && again[0]["metadata"]["uid"] == pod["metadata"]["uid"],
        "the pod is not the one that it was: {again:#?}"
    );
    let_go(&cluster, &pod)?;
    ended_in_attempt(&cluster.success("steady")?, 1)
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_survives_the_kill_of_the_operator() -> anyhow::Result<()> {
    survives("operator", |cluster| {
        let holder = "--output=jsonpath={.spec.holderIdentity}";
        let leader = || cluster.run(&["get", "lease", "legion-operator", "--namespace=legion-system", holder]);
        let before = leader()?;
        let pod = before.trim();
        ensure!(!pod.is_empty(), "no replica leads");
        cluster.run(&[
            "delete",
            "pod",
            pod,
            "--namespace=legion-system",
            "--grace-period=0",
            "--force",
        ])?;
        cluster.until("steady", "another replica leads", |_| {
            let now = leader()?;
            Ok((!now.trim().is_empty() && now != before).then_some(()))
        })
    })
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_survives_a_restart_of_the_api_server() -> anyhow::Result<()> {
    survives("apiserver", |_| {
        process("kube-apiserver", "kill")?;
        process("kube-apiserver", "start")
    })
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_survives_a_pause_of_etcd() -> anyhow::Result<()> {
    survives("etcd", |_| {
        process("etcd", "pause")?;
        // Not synchronization: the pause is the tested fault.
        thread::sleep(AWAY);
        process("etcd", "resume")
    })
}
