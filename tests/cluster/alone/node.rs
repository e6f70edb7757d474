//! Trainings whose node is drained, lost, or under pressure.

use std::fs;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use legion_tests::{
    cluster::{Cluster, cluster_directory, name_of, process},
    local::succeeded,
};
use serde_json::{Value, json};

use crate::{cluster, ended_in_attempt, let_go, under_way};

/// The only node of the harness.
const NODE: &str = "node-1";

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_drained_training_continues_in_a_second_attempt() -> anyhow::Result<()> {
    let cluster = cluster("drain")?;
    under_way(&cluster, "drained", json!({"gracePeriod": "1s"}))?;
    let drained = cluster.run(&[
        "drain",
        NODE,
        "--delete-emptydir-data",
        "--ignore-daemonsets",
        // Legion's own pods stay: the harness has no second node for them.
        "--pod-selector=legion-platform.org/run",
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
fn a_restart_of_the_kubelet_disturbs_no_training() -> anyhow::Result<()> {
    let cluster = cluster("kubelet")?;
    let pod = under_way(&cluster, "unmoved", json!({}))?;
    process("kubelet", "kill")?;
    process("kubelet", "start")?;
    let_go_when_it_answers(&cluster, &pod)?;
    let training = cluster.success("unmoved")?;
    ended_in_attempt(&training, 1)
}

/// Lets the command finish once the kubelet answers. After its start a kubelet needs a moment to serve `exec`.
fn let_go_when_it_answers(cluster: &Cluster, pod: &Value) -> anyhow::Result<()> {
    cluster.until_served("the kubelet answers", || let_go(cluster, pod))
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_waits_for_its_lost_node() -> anyhow::Result<()> {
    let cluster = cluster("lost")?;
    // By default, Kubernetes evicts the pods of an unreachable node after five minutes.
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
    // The returning kubelet ends the deleted pod. Only then does the second attempt start.
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

/// Waits until the pods of the unreachable node are being deleted.
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
        // When all nodes are unreachable, Kubernetes assumes that it is cut off itself and evicts no pods ("full
        // disruption"). This cluster has one node, so the test sets the taint. Kubernetes may remove it, so the test
        // sets it repeatedly.
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
fn an_evicted_training_continues_in_a_second_attempt() -> anyhow::Result<()> {
    let cluster = cluster("pressure")?;
    let pod = under_way(&cluster, "pressed", json!({"gracePeriod": "1s"}))?;
    let name = name_of(&pod)?;
    let file = cluster_directory()?.join("kubelet.yaml");
    let usual = fs::read_to_string(&file)?;
    let mut pressed: Value = serde_json::from_str(&usual)?;
    // More than any machine has free: the node is always under memory pressure.
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
