//! Trainings go on while the parts of the control plane are away, Legion's operator among them.

use std::{thread, time::Duration};

use anyhow::ensure;
use legion_tests::cluster::{Cluster, process};
use serde_json::json;

use crate::{cluster, ended_in_attempt, let_go, under_way};

/// How long a part is away: longer than a request may take, shorter than a lease of the operator.
const AWAY: Duration = Duration::from_secs(8);

/// A training is under way, something happens, and it comes to its end in its first attempt.
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
fn the_operators_pod_may_be_killed() -> anyhow::Result<()> {
    survives("operator", |cluster| {
        let holder = "--output=jsonpath={.spec.holderIdentity}";
        let leader = || cluster.run(&["get", "lease", "legion-operator", "--namespace=legion-system", holder]);
        let before = leader()?;
        let pod = before.trim();
        ensure!(!pod.is_empty(), "nobody leads");
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
fn the_api_server_may_be_restarted() -> anyhow::Result<()> {
    survives("apiserver", |_| {
        process("kube-apiserver", "kill")?;
        process("kube-apiserver", "start")
    })
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn etcd_may_be_silent_for_a_while() -> anyhow::Result<()> {
    survives("etcd", |_| {
        process("etcd", "pause")?;
        // Not for synchronization: it is the fault that is tested.
        thread::sleep(AWAY);
        process("etcd", "resume")
    })
}
