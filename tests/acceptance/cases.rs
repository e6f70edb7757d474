//! The cases. Each has a namespace of its own.

use std::fs;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use legion_tests::{
    cluster::{Backend, Cluster, name_of, script},
    local::{repository, succeeded},
};
use serde_json::{Value, json};

/// A command that runs until its pod is deleted. It would also stop if the file `go` existed, but nothing creates it.
const ENDLESS: &str = "echo under way\nwhile [ ! -e go ]; do sleep 0.2; done";
/// A command that ends immediately.
const QUICK: &str = "legion_metric loss 0.25\necho 1 > \"$LEGION_OUTPUT/model/weights\"";

fn example(path: &str) -> anyhow::Result<String> {
    Ok(fs::read_to_string(repository().join("examples").join(path))?)
}

pub(crate) fn the_script_example_trains(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&example("script/training.yaml")?)?;
    let training = cluster.success("script")?;
    complete(&training)?;
    let status = &training["status"];
    ensure!(status["parameters"]["slope"] == "2.5", "{status:#}");
    ensure!(
        status["score"].as_str().is_some_and(|score| score.starts_with("mse=")),
        "{status:#}"
    );
    let pods = cluster.pods("script")?;
    ensure!(pods.len() == 1, "{} pods", pods.len());
    let log = cluster.run(&["logs", "--selector", "legion-platform.org/training=script"])?;
    ensure!(
        log.contains("slope 2.5"),
        "plain `kubectl logs` shows the training: {log}"
    );
    Ok(())
}

pub(crate) fn the_wine_example_trains(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&example("wine/training.yaml")?)?;
    let training = cluster.success("wine")?;
    complete(&training)?;
    let status = &training["status"];
    ensure!(status["score"] == "val_accuracy=0.9714", "{status:#}");
    ensure!(status["artifact"]["format"] == "gppi/v1", "{status:#}");
    ensure!(status["tags"]["dataset"] == "sklearn-wine", "{status:#}");
    Ok(())
}

/// Checks the parts of a status that every successful training has.
fn complete(training: &Value) -> anyhow::Result<()> {
    let status = &training["status"];
    let conditions = status["conditions"].as_array().context("conditions")?;
    let state = |kind: &str| {
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map(|condition| condition["status"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(state("Ready").as_deref() == Some("True"), "{status:#}");
    ensure!(state("Reconciling").as_deref() != Some("True"), "{status:#}");
    ensure!(state("Stalled").as_deref() != Some("True"), "{status:#}");
    ensure!(
        status["observedGeneration"] == training["metadata"]["generation"],
        "{status:#}"
    );
    for pointer in [
        "/artifact/uri",
        "/artifact/digest",
        "/log/uri",
        "/series/uri",
        "/run/id",
        "/source/digest",
    ] {
        let value = status.pointer(pointer).and_then(Value::as_str);
        ensure!(
            value.is_some_and(|text| !text.is_empty()),
            "no status{pointer}: {status:#}"
        );
    }
    ensure!(status["run"]["sequence"] == 1, "{status:#}");
    ensure!(
        status["metrics"].as_array().is_some_and(|metrics| !metrics.is_empty()),
        "{status:#}"
    );
    Ok(())
}

pub(crate) fn an_unchanged_manifest_starts_nothing_and_a_changed_one_starts_a_run(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let manifest = script("again", QUICK, json!({}));
    cluster.apply(&manifest)?;
    let first = cluster.success("again")?;
    cluster.apply(&manifest)?;
    // Labels are for selection. A new label asks for no new run.
    cluster.run(&["label", "modeltraining", "again", "team=vision"])?;
    cluster.apply(&script("again", QUICK, json!({"hyperParameters": {"rate": "0.1"}})))?;
    let second = cluster.success("again")?;
    ensure!(
        second["status"]["run"]["sequence"] == 2,
        "one change is one run: {:#}",
        second["status"]
    );
    ensure!(second["status"]["run"]["id"] != first["status"]["run"]["id"]);
    let history = &second["status"]["history"];
    ensure!(
        history[0]["runId"] == first["status"]["run"]["id"],
        "the first run is remembered: {history:#}"
    );
    Ok(())
}

pub(crate) fn objects_may_be_applied_in_any_order(cluster: &Cluster) -> anyhow::Result<()> {
    let all = script("early", QUICK, json!({"toolchain": "own"}));
    let (source, training) = all.split_once("---\n").context("two documents")?;
    cluster.apply(training)?;
    cluster.waiting("early", "SourceNotFound")?;
    cluster.apply(source)?;
    cluster.waiting("early", "ToolchainNotFound")?;
    // The platform's toolchain, copied into this namespace under another name.
    let shipped = fs::read_to_string(repository().join("toolchains/script/toolchain.yaml"))?;
    let registered = match cluster.backend() {
        Backend::Embedded => shipped,
        // The registry depends on the installation.
        Backend::Kubernetes => cluster.run(&[
            "get",
            "toolchainintegration",
            "script",
            "--namespace=legion-system",
            "--output=jsonpath={\"apiVersion: legion-platform.org/v1alpha1\\nkind: ToolchainIntegration\\nmetadata:\\n  name: script\\nspec: \"}{.spec}",
        ])?,
    };
    cluster.apply(&registered.replacen("name: script", "name: own", 1))?;
    let done = cluster.success("early")?;
    ensure!(done["status"]["run"]["sequence"] == 1, "{:#}", done["status"]);
    Ok(())
}

pub(crate) fn a_suspended_training_has_no_pod_and_resumes(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&script("paused", ENDLESS, json!({"gracePeriod": "1s"})))?;
    cluster.printed("paused", "under way")?;
    let patch = |suspend: bool| {
        let patch = json!({"spec": {"suspend": suspend}}).to_string();
        cluster.run(&["patch", "modeltraining", "paused", "--type=merge", "--patch", &patch])
    };
    patch(true)?;
    cluster.waiting("paused", "Suspended")?;
    cluster.until("paused", "its pod is deleted", |_| {
        Ok(cluster.pods("paused")?.is_empty().then_some(()))
    })?;
    patch(false)?;
    cluster.printed("paused", "under way")?;
    let training = cluster.training("paused")?;
    ensure!(
        training["status"]["run"]["sequence"] == 1,
        "resuming is no new run: {:#}",
        training["status"]
    );
    Ok(())
}

pub(crate) fn a_deleted_pod_costs_only_an_attempt(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&script("lost", ENDLESS, json!({"gracePeriod": "1s"})))?;
    let pod = cluster.printed("lost", "under way")?;
    let name = name_of(&pod)?;
    cluster.run(&["delete", "pod", name, "--wait=false"])?;
    cluster.until("lost", "its second attempt runs", |training| {
        Ok((training["status"]["run"]["attempt"] == 2).then_some(()))
    })?;
    let next = cluster.printed("lost", "under way")?;
    ensure!(
        next["metadata"]["uid"] != pod["metadata"]["uid"],
        "{:#}",
        next["metadata"]
    );
    let training = cluster.training("lost")?;
    ensure!(
        succeeded(&training)["status"] == "Unknown",
        "a deleted pod is no failure of the training: {:#}",
        training["status"]
    );
    Ok(())
}

pub(crate) fn a_failing_command_is_retried_as_configured(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&script(
        "fails",
        "echo no such table >&2\nexit 3",
        json!({"retries": 1}),
    ))?;
    let training = cluster.ended("fails")?;
    let status = &training["status"];
    ensure!(succeeded(&training)["reason"] == "TrainerFailed", "{status:#}");
    ensure!(status["run"]["attempt"] == 2, "{status:#}");
    let failure = &status["failure"];
    ensure!(failure["exitCode"] == 3, "{failure:#}");
    ensure!(
        failure["logTail"]
            .as_str()
            .is_some_and(|tail| tail.contains("no such table")),
        "{failure:#}"
    );
    Ok(())
}

pub(crate) fn a_timeout_ends_the_command(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&script("late", ENDLESS, json!({"timeout": "2s", "gracePeriod": "1s"})))?;
    let training = cluster.ended("late")?;
    ensure!(
        succeeded(&training)["reason"] == "DeadlineExceeded",
        "{:#}",
        training["status"]
    );
    ensure!(
        training["status"]["failure"]["field"] == "spec.timeout",
        "{:#}",
        training["status"]
    );
    Ok(())
}

pub(crate) fn pods_of_ended_attempts_are_deleted_after_their_ttl(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&script("tidy", QUICK, json!({"ttlAfterFinished": "1s"})))?;
    cluster.success("tidy")?;
    cluster.until("tidy", "its pod is deleted", |_| {
        Ok(cluster.pods("tidy")?.is_empty().then_some(()))
    })?;
    cluster.success("tidy")?;
    Ok(())
}

pub(crate) fn a_training_waits_for_a_missing_secret(cluster: &Cluster) -> anyhow::Result<()> {
    let connection = json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "Connection",
        "metadata": {"name": "bucket"},
        "spec": {"type": "s3", "uri": "s3://wine/2026", "endpoint": "http://127.0.0.1:1", "region": "us-east-1", "secretRef": {"name": "bucket-keys"}},
    });
    cluster.apply(&connection.to_string())?;
    let data = json!([{"name": "table", "connection": "bucket", "remotePath": "wine.csv"}]);
    cluster.apply(&script("locked", QUICK, json!({"data": data})))?;
    let waiting = cluster.waiting("locked", "SecretMissing")?;
    let message = succeeded(&waiting)["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("bucket-keys"), "{message}");
    cluster.run(&[
        "create",
        "secret",
        "generic",
        "bucket-keys",
        "--from-literal=accessKeyId=k",
        "--from-literal=secretAccessKey=s",
    ])?;
    // With its keys present, fetch gets as far as the store. The store does not exist.
    cluster.until("locked", "the store is asked", |training| {
        let text = training["status"].to_string();
        Ok(text.contains("127.0.0.1").then_some(()))
    })
}

pub(crate) fn deleting_a_training_ends_its_pod_in_every_phase(cluster: &Cluster) -> anyhow::Result<()> {
    for policy in ["background", "foreground"] {
        for phase in ["Unknown", "Training", "Ended"] {
            let name = format!("{policy}-{}", phase.to_lowercase());
            let lines = if phase == "Ended" { QUICK } else { ENDLESS };
            cluster.apply(&script(&name, lines, json!({"gracePeriod": "1s"})))?;
            match phase {
                "Unknown" => cluster.until(&name, "it has a pod", |_| {
                    Ok((!cluster.pods(&name)?.is_empty()).then_some(()))
                })?,
                "Training" => cluster.printed(&name, "under way").map(drop)?,
                _ => cluster.success(&name).map(drop)?,
            }
            let cascade = format!("--cascade={policy}");
            cluster.run(&["delete", "modeltraining", &name, &cascade, "--timeout=120s"])?;
            cluster.until(&name, "nothing is left", |training| {
                Ok((training.is_null() && cluster.pods(&name)?.is_empty()).then_some(()))
            })?;
        }
    }
    Ok(())
}

pub(crate) fn an_orphaned_pod_is_left_alone(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&script("orphan", ENDLESS, json!({"gracePeriod": "1s"})))?;
    let pod = cluster.printed("orphan", "under way")?;
    let name = name_of(&pod)?;
    cluster.run(&["delete", "modeltraining", "orphan", "--cascade=orphan"])?;
    cluster.until("orphan", "its pod has no owner", |training| {
        let pod = cluster.get::<Pod>(name)?;
        ensure!(!pod.is_null(), "the pod was deleted");
        Ok((training.is_null() && pod["metadata"]["ownerReferences"].is_null()).then_some(()))
    })?;
    // A training of the same name starts its own run. It does not adopt the pod of the deleted one.
    cluster.apply(&script("orphan", QUICK, json!({})))?;
    let training = cluster.success("orphan")?;
    ensure!(
        training["metadata"]["uid"] != pod["metadata"]["ownerReferences"][0]["uid"],
        "{:#}",
        training["metadata"]
    );
    let orphan = cluster.get::<Pod>(name)?;
    ensure!(
        orphan["status"]["phase"] == "Running" && orphan["metadata"]["deletionTimestamp"].is_null(),
        "the orphan runs on: {:#}",
        orphan["status"]
    );
    Ok(())
}

pub(crate) fn wrong_manifests_are_refused_in_the_same_words(cluster: &Cluster) -> anyhow::Result<()> {
    for (spec, words) in [
        (json!({"hyperParams": {"c": "1"}}), "hyperParams"),
        (
            json!({"source": {"configMap": {"name": "a"}, "git": {"uri": "https://example.com/x.git"}}}),
            "exactly one of",
        ),
        (
            json!({"data": [{"name": "d", "connection": "c", "localPath": "../../etc/cron.d/x"}]}),
            "relative path",
        ),
        (
            json!({"source": {"git": {"uri": "https://me:secret@example.com/x.git"}}}),
            "credentials",
        ),
        (json!({"timeout": "soon"}), "spec.timeout"),
        (json!({"retries": -1}), "spec.retries"),
    ] {
        let arguments = ["apply", "--server-side", "-f", "-"];
        let said = cluster.refused(&arguments, &script("wrong", QUICK, spec))?;
        ensure!(said.contains(words), "no {words:?} in\n{said}");
    }
    ensure!(cluster.training("wrong")?.is_null(), "something was stored");
    Ok(())
}
