//! Images that do not exist, and images that were not built for Kubernetes.

use anyhow::{Context as _, ensure};
use legion_tests::cluster::script;
use serde_json::json;

use crate::{QUICK, cluster, ended_in_attempt};

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_missing_image_is_waited_for_until_the_manifest_changes() -> anyhow::Result<()> {
    let cluster = cluster("pull")?;
    let image = "10.244.0.1:5000/none-such:1";
    cluster.apply(&script("pulled", QUICK, json!({"image": image})))?;
    let waiting = cluster.waiting("pulled", "ImageNotPulled")?;
    let text = waiting["status"].to_string();
    ensure!(text.contains(image) && text.contains("spec.image"), "{text}");
    // Without the field, the toolchain's image is used.
    cluster.run(&[
        "patch",
        "modeltraining",
        "pulled",
        "--type=json",
        "--patch=[{\"op\": \"remove\", \"path\": \"/spec/image\"}]",
    ])?;
    let training = cluster.success("pulled")?;
    ensure!(training["status"]["run"]["sequence"] == 2, "{:#}", training["status"]);
    Ok(())
}

/// The image sets no user, so its default is root. It has no /etc/passwd, only a shell.
#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn an_image_with_only_a_shell_trains_as_an_unknown_user() -> anyhow::Result<()> {
    let cluster = cluster("bare")?;
    let toolchain = json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "ToolchainIntegration",
        "metadata": {"name": "bare"},
        "spec": {
            "type": "Training",
            "image": "legion.internal/busybox:1",
            "command": ["/bin/sh", "-c", "set -eu; echo \"user $(/bin/busybox id -u)\"; ! [ -e /etc/passwd ]; mkdir -p \"$LEGION_OUTPUT/model\"; echo 1 > \"$LEGION_OUTPUT/model/weights\""],
            "format": "files/v1",
        },
    });
    cluster.apply(&toolchain.to_string())?;
    cluster.apply(&script("bare", QUICK, json!({"toolchain": "bare"})))?;
    let training = cluster.ended("bare")?;
    ended_in_attempt(&training, 1)?;
    let pods = cluster.pods("bare")?;
    let name = pods
        .first()
        .and_then(|pod| pod["metadata"]["name"].as_str())
        .context("a pod")?;
    let log = cluster.run(&["logs", name])?;
    ensure!(log.trim() == "user 65532", "{log}");
    Ok(())
}
