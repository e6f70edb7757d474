//! What becomes of a training when something becomes of its node.

use std::fs;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use legion_tests::{
    cluster::{Cluster, cluster_directory, name_of, process},
    local::succeeded,
};
use serde_json::{Value, json};

use crate::{cluster, ended_in_attempt, let_go, under_way};

/// The harness has one.
const NODE: &str = "node-1";

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_drain_interrupts_and_the_run_goes_on_elsewhere() -> anyhow::Result<()> {
    let cluster = cluster("drain")?;
    under_way(&cluster, "drained", json!({"gracePeriod": "1s"}))?;
    let drained = cluster.run(&[
        "drain",
        NODE,
        "--delete-emptydir-data",
        "--ignore-daemonsets",
        // The one node is not emptied of Legion's own pods.
        "--pod-selector=legion-platform.org/training",
        "--timeout=120s",
    ]);
    let waiting = drained.and_then(|_| cluster.waiting("drained", "Unschedulable"));
    cluster.run(&["uncordon", NODE])?;
    let waiting = waiting?;
    ensure!(waiting["status"]["run"]["attempt"] == 2, "{:#}", waiting["status"]);
    let_go(&cluster, &cluster.printed("drained", "under way")?)?;
    ended_in_attempt(&cluster.success("drained")?, 2)
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_restart_of_the_kubelet_is_not_noticed() -> anyhow::Result<()> {
    let cluster = cluster("kubelet")?;
    let pod = under_way(&cluster, "unmoved", json!({}))?;
    process("kubelet", "kill")?;
    process("kubelet", "start")?;
    let_go_when_it_answers(&cluster, &pod)?;
    let training = cluster.success("unmoved")?;
    ended_in_attempt(&training, 1)
}

/// A kubelet that has just been started takes a moment until it serves `exec`.
fn let_go_when_it_answers(cluster: &Cluster, pod: &Value) -> anyhow::Result<()> {
    cluster.until_served("the kubelet answers", || let_go(cluster, pod))
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_lost_node_is_waited_for_and_may_come_back() -> anyhow::Result<()> {
    let cluster = cluster("lost")?;
    // Usually the pods of a silent node are given up after five minutes.
    let soon = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]);
    let first = under_way(&cluster, "lonely", json!({"tolerations": soon, "gracePeriod": "1s"}))?;
    process("kubelet", "kill")?;
    let waiting = given_up(&cluster).and_then(|()| cluster.waiting("lonely", "NodeLost"));
    process("kubelet", "start")?;
    let waiting = waiting?;
    let message = succeeded(&waiting)["message"].as_str().unwrap_or_default();
    ensure!(message.contains(NODE), "{message}");
    ensure!(
        waiting["status"]["run"]["attempt"] == 1,
        "no second pod beside one that may run: {message}"
    );
    // Back, it ends the pod as it was told meanwhile; then, and not before, there is a second attempt.
    let second = cluster.until("lonely", "its second attempt runs", |_| {
        let pods = cluster.pods("lonely")?;
        let next = pods
            .into_iter()
            .find(|pod| pod["metadata"]["uid"] != first["metadata"]["uid"] && pod["status"]["phase"] == "Running");
        Ok(next)
    })?;
    let_go_when_it_answers(&cluster, &second)?;
    ended_in_attempt(&cluster.success("lonely")?, 2)
}

/// Waits until the pods of the silent node are given up: they are being deleted.
fn given_up(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.until("lonely", "its pod is given up", |_| {
        let node = cluster.run(&[
            "get",
            "node",
            NODE,
            "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}",
        ])?;
        if node.trim() != "Unknown" {
            return Ok(None);
        }
        // Where all nodes are silent, Kubernetes takes itself for what was cut off and gives up none; this cluster has one. It
        // also takes such a taint away when it comes to see it so: hence again and again.
        cluster.run(&[
            "taint",
            "node",
            NODE,
            "--overwrite",
            "node.kubernetes.io/unreachable:NoExecute",
        ])?;
        let pods = cluster.pods("lonely")?;
        let gone = pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string());
        Ok(gone.then_some(()))
    })
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_node_under_pressure_interrupts_and_the_run_goes_on() -> anyhow::Result<()> {
    let cluster = cluster("pressure")?;
    let pod = under_way(&cluster, "pressed", json!({"gracePeriod": "1s"}))?;
    let name = name_of(&pod)?;
    let file = cluster_directory()?.join("kubelet.yaml");
    let usual = fs::read_to_string(&file)?;
    let mut pressed: Value = serde_json::from_str(&usual)?;
    // More than any machine has free: all of its memory counts as scarce.
    pressed["evictionHard"]["memory.available"] = "90%".into();
    fs::write(&file, pressed.to_string())?;
    let restart = || process("kubelet", "stop").and_then(|()| process("kubelet", "start"));
    restart()?;
    let evicted = cluster.until("pressed", "its pod is evicted", |training| {
        let pod = cluster.get::<Pod>(name)?;
        let gone = pod.is_null() || pod["status"]["reason"] == "Evicted";
        Ok((gone || training["status"]["run"]["attempt"] == 2).then_some(()))
    });
    fs::write(&file, &usual)?;
    restart()?;
    evicted?;
    let next = cluster.printed("pressed", "under way")?;
    let_go_when_it_answers(&cluster, &next)?;
    ended_in_attempt(&cluster.success("pressed")?, 2)
}
