//! Changes that a user makes to a training's pod.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use legion_tests::{cluster::name_of, local::succeeded};
use serde_json::json;

use crate::{cluster, ended_in_attempt, let_go, under_way};

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn an_unlabeled_pod_is_still_followed() -> anyhow::Result<()> {
    let cluster = cluster("label")?;
    let pod = under_way(&cluster, "unlabelled", json!({}))?;
    let name = name_of(&pod)?;
    // The operator watches only pods with this label.
    cluster.run(&["label", "pod", name, "legion-platform.org/run-"])?;
    let_go(&cluster, &pod)?;
    ended_in_attempt(&cluster.success("unlabelled")?, 1)?;
    let made = cluster.list::<Pod>("")?;
    ensure!(made.len() == 1, "a second pod was created: {made:#?}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_pod_with_a_shortened_deadline_ends_the_run() -> anyhow::Result<()> {
    let cluster = cluster("deadline")?;
    let pod = under_way(&cluster, "hurried", json!({"gracePeriod": "1s"}))?;
    let name = name_of(&pod)?;
    // Besides images, this is the only field of a running pod's spec that may change.
    cluster.run(&[
        "patch",
        "pod",
        name,
        "--patch={\"spec\": {\"activeDeadlineSeconds\": 1}}",
    ])?;
    let training = cluster.ended("hurried")?;
    ensure!(
        succeeded(&training)["reason"] == "DeadlineExceeded",
        "{:#}",
        training["status"]
    );
    ensure!(training["status"]["run"]["attempt"] == 1, "{:#}", training["status"]);
    Ok(())
}
