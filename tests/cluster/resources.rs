//! Resources that a namespace or a node lacks.

use anyhow::{Context as _, ensure};
use legion_tests::{cluster::script, local::succeeded};
use serde_json::json;

use crate::{QUICK, cluster, ended_in_attempt, under_way};

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn out_of_memory_names_the_limit() -> anyhow::Result<()> {
    let cluster = cluster("memory")?;
    let grow = "awk 'BEGIN { s = \"x\"; while (length(s) < 1000000) s = s s; for (i = 0; i < 400; i++) a[i] = s i }'";
    let resources = json!({"requests": {"memory": "32Mi"}, "limits": {"memory": "48Mi"}});
    cluster.apply(&script("greedy", grow, json!({"resources": resources})))?;
    let training = cluster.ended("greedy")?;
    let failure = &training["status"]["failure"];
    ensure!(
        succeeded(&training)["reason"] == "OutOfMemory",
        "{:#}",
        training["status"]
    );
    ensure!(failure["field"] == "spec.resources.limits.memory", "{failure:#}");
    ensure!(
        failure["message"]
            .as_str()
            .is_some_and(|message| message.contains("48Mi")),
        "{failure:#}"
    );
    Ok(())
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_full_workspace_fails_the_training() -> anyhow::Result<()> {
    let cluster = cluster("workspace")?;
    let fill = "dd if=/dev/zero of=big bs=1M count=64 2>&1\necho full\nwhile :; do sleep 1; done";
    cluster.apply(&script(
        "full",
        fill,
        json!({"workspace": {"size": "16Mi"}, "gracePeriod": "1s"}),
    ))?;
    let training = cluster.ended("full")?;
    ensure!(succeeded(&training)["reason"] == "Evicted", "{:#}", training["status"]);
    ensure!(training["status"]["run"]["attempt"] == 1, "{:#}", training["status"]);
    Ok(())
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_limit_range_sets_its_defaults() -> anyhow::Result<()> {
    let cluster = cluster("limits")?;
    let limits = json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "defaults"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "1", "memory": "200Mi"}, "defaultRequest": {"cpu": "10m", "memory": "32Mi"}}]},
    });
    cluster.apply(&limits.to_string())?;
    let pod = under_way(&cluster, "limited", json!({}))?;
    let trainer = pod["spec"]["containers"]
        .as_array()
        .and_then(|containers| containers.iter().find(|container| container["name"] == "trainer"))
        .context("a trainer")?;
    ensure!(!trainer["resources"]["limits"]["memory"].is_null(), "{trainer:#}");
    crate::let_go(&cluster, &pod)?;
    ended_in_attempt(&cluster.success("limited")?, 1)
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_waits_for_its_quota() -> anyhow::Result<()> {
    let cluster = cluster("quota")?;
    let quota = |pods: u32| {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}, "spec": {"hard": {"pods": pods.to_string()}}});
        cluster.apply(&quota.to_string())
    };
    quota(1)?;
    // The quota is enforced once its status reports it.
    cluster.run(&[
        "wait",
        "--for=jsonpath={.status.hard.pods}=1",
        "resourcequota/pods",
        "--timeout=60s",
    ])?;
    let first = under_way(&cluster, "first", json!({}))?;
    cluster.apply(&script("second", QUICK, json!({})))?;
    let waiting = cluster.waiting("second", "QuotaExceeded")?;
    let message = succeeded(&waiting)["message"].as_str().unwrap_or_default();
    ensure!(message.contains("pods=1"), "{message}");
    // The end of the first training makes room for the second. The quota does not change.
    crate::let_go(&cluster, &first)?;
    ended_in_attempt(&cluster.success("first")?, 1)?;
    ended_in_attempt(&cluster.success("second")?, 1)
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_training_waits_for_a_suitable_node() -> anyhow::Result<()> {
    let cluster = cluster("unschedulable")?;
    let selector = json!({"nodeSelector": {"accelerator": "none-such"}});
    cluster.apply(&script("picky", QUICK, selector))?;
    cluster.waiting("picky", "Unschedulable")?;
    cluster.run(&["label", "nodes", "--all", "accelerator=none-such"])?;
    let ended = cluster.success("picky");
    cluster.run(&["label", "nodes", "--all", "accelerator-"])?;
    ended_in_attempt(&ended?, 1)
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_volume_that_cannot_be_mounted_is_reported_and_waited_for() -> anyhow::Result<()> {
    let cluster = cluster("mount")?;
    let directory = tempfile::tempdir()?;
    let missing = directory.path().join("models");
    let name = cluster.namespace();
    let size = json!({"storage": "1Gi"});
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {"capacity": size, "accessModes": ["ReadWriteOnce"], "storageClassName": "", "hostPath": {"path": missing, "type": "Directory"}},
    });
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "elsewhere"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name, "resources": {"requests": size}},
    });
    let connection = json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "Connection",
        "metadata": {"name": "elsewhere"},
        "spec": {"type": "pvc", "uri": "pvc://elsewhere"},
    });
    cluster.apply(&format!("{volume}\n---\n{claim}\n---\n{connection}"))?;
    cluster.apply(&script(
        "mounted",
        QUICK,
        json!({"output": {"connection": "elsewhere"}}),
    ))?;
    let waiting = cluster.waiting("mounted", "VolumeNotMounted");
    // The kubelet retries the mount.
    std::fs::create_dir(&missing)?;
    std::fs::set_permissions(&missing, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let ended = waiting.and_then(|waiting| {
        let message = succeeded(&waiting)["message"].as_str().unwrap_or_default().to_owned();
        ensure!(
            message.contains("spec.output") && message.contains("hostPath"),
            "{message}"
        );
        cluster.success("mounted")
    });
    cluster.run(&["delete", "persistentvolume", name, "--wait=false"])?;
    ended_in_attempt(&ended?, 1)
}
