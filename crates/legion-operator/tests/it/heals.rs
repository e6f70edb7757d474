//! Missing referents are named and waited for.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use legion_api::{
    Connection, ToolchainIntegration,
    condition::{SUCCEEDED, find},
};
use legion_protocol::reason::StepReason;
use legion_testkit::{agent::Behavior, cluster::Cluster, manifests};
use serde_json::{Value, json};

use crate::support::{LIMIT, furnished, logs, operator, reason, succeeded};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Toolchain,
    Output,
    Source,
    Training,
}

async fn apply(cluster: &Cluster, part: Part) {
    match part {
        Part::Toolchain => drop(cluster.create(&manifests::toolchain()).await),
        Part::Output => drop(cluster.create(&manifests::default_output()).await),
        Part::Source => drop(cluster.create(&manifests::source("print('wine')")).await),
        Part::Training => drop(cluster.create(&manifests::training("wine")).await),
    }
}

fn permutations(parts: &[Part]) -> Vec<Vec<Part>> {
    if parts.len() <= 1 {
        return vec![parts.to_vec()];
    }
    let mut all = Vec::new();
    for (i, first) in parts.iter().enumerate() {
        let mut rest = parts.to_vec();
        rest.remove(i);
        all.extend(permutations(&rest).into_iter().map(|mut tail| {
            tail.insert(0, *first);
            tail
        }));
    }
    all
}

/// Applied in any order, a minute apart, it converges.
#[tokio::test(start_paused = true)]
async fn every_order_converges() {
    logs();
    for order in permutations(&[Part::Toolchain, Part::Output, Part::Source, Part::Training]) {
        let mut cluster = Cluster::new(operator()).await;
        cluster.start();
        for part in &order {
            apply(&cluster, *part).await;
            cluster.settle(Duration::from_secs(60)).await;
            if *part == Part::Training && order.last() != Some(part) {
                let training = cluster.training("wine").await;
                let reported = reason(&training);
                assert!(
                    ["ToolchainNotFound", "DefaultOutputMissing", "SourceNotFound"].contains(&reported.as_str()),
                    "{order:?}: {reported:?}"
                );
                assert_eq!(training.status.unwrap().observed_generation, Some(1), "{order:?}");
            }
        }
        succeeded(cluster.wait_for("wine", "True", LIMIT).await);
        assert_eq!(cluster.agents.ledger().finished.values().sum::<usize>(), 1, "{order:?}");
        assert_eq!(cluster.history.violations(), Vec::<String>::new(), "{order:?}");
        cluster.shutdown().await;
    }
}

/// Each deleted referent is named. The training continues once it exists again.
#[tokio::test(start_paused = true)]
async fn each_missing_referent_is_named() {
    for (part, expected) in [
        (Part::Toolchain, "ToolchainNotFound"),
        (Part::Output, "DefaultOutputMissing"),
        (Part::Source, "SourceNotFound"),
    ] {
        let mut cluster = Cluster::new(operator()).await;
        cluster.furnish().await;
        match part {
            Part::Toolchain => {
                let api = cluster.api::<ToolchainIntegration>(manifests::PLATFORM);
                api.delete("mlflow", &Default::default()).await.unwrap();
            }
            Part::Output => cluster.delete::<Connection>("models").await,
            _ => cluster.delete::<ConfigMap>("wine-source").await,
        }
        cluster.start();
        cluster.create(&manifests::training("wine")).await;
        cluster.settle(Duration::from_secs(10)).await;
        assert_eq!(reason(&cluster.training("wine").await), expected);
        apply(&cluster, part).await;
        succeeded(cluster.wait_for("wine", "True", LIMIT).await);
        cluster.shutdown().await;
    }
}

fn connection(name: &str, spec: Value) -> Connection {
    serde_json::from_value(json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "Connection",
        "metadata": {"name": name, "namespace": manifests::NAMESPACE}, "spec": spec,
    }))
    .expect("a connection")
}

/// One condition names all missing connections, each with its field. Connections that appear are no longer named.
#[tokio::test(start_paused = true)]
async fn missing_connections_are_named_one_and_all() {
    logs();
    let mut cluster = Cluster::new(operator()).await;
    cluster.furnish().await;
    cluster.start();
    let mut training = manifests::training("wine");
    training.spec.source = serde_json::from_value(json!({"git": {"connection": "code"}})).unwrap();
    training.spec.data = serde_json::from_value(json!([{"name": "train", "connection": "lake"}])).unwrap();
    training.spec.output = serde_json::from_value(json!({"connection": "store"})).unwrap();
    cluster.create(&training).await;
    let mut missing = vec![
        (
            "spec.source.git.connection",
            "code",
            json!({"type": "git", "uri": "https://example.org/wine.git"}),
        ),
        (
            "spec.data[0].connection",
            "lake",
            json!({"type": "s3", "uri": "s3://lake"}),
        ),
        (
            "spec.output.connection",
            "store",
            json!({"type": "s3", "uri": "s3://store"}),
        ),
    ];
    let fields: Vec<_> = missing.iter().map(|(field, ..)| *field).collect();
    while !missing.is_empty() {
        cluster.settle(Duration::from_secs(60)).await;
        let status = cluster.training("wine").await.status.unwrap();
        let condition = find(&status.conditions, SUCCEEDED).unwrap();
        assert_eq!(condition.reason, "ConnectionNotFound");
        let still = fields.len() - missing.len();
        for (n, field) in fields.iter().enumerate() {
            assert_eq!(
                condition.message.contains(field),
                n >= still,
                "{field}: {}",
                condition.message
            );
        }
        let (_, name, spec) = missing.remove(0);
        assert!(
            condition.message.contains(&format!("{name:?}")),
            "{}",
            condition.message
        );
        cluster.create(&connection(name, spec)).await;
    }
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    cluster.shutdown().await;
}

/// The operator may not read Secrets: `fetch` finds out, again and again until it is there.
#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_named_and_waited_for() {
    let cluster = furnished().await;
    let missing = Behavior {
        fetch_error: Some(StepReason::SecretMissing),
        ..Behavior::default()
    };
    cluster.agents.behave([missing]);
    cluster.create(&manifests::training("wine")).await;
    // Many more attempts than any other fault is given.
    cluster.settle(Duration::from_secs(4 * 3600)).await;
    let status = cluster.training("wine").await.status.unwrap();
    let condition = find(&status.conditions, SUCCEEDED).unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("Unknown", "SecretMissing")
    );
    assert!(condition.message.contains("create the Secret"), "{}", condition.message);
    assert!(status.run.unwrap().attempt > 10);
    cluster.agents.behave([Behavior::default()]);
    let training = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    assert_eq!(training.status.unwrap().failure, None);
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    cluster.shutdown().await;
}

/// A toolchain that cannot be used is named with its own fault, and so it is on the toolchain itself.
#[tokio::test(start_paused = true)]
async fn a_fixed_toolchain_is_used() {
    let cluster = furnished().await;
    let broken = json!({"spec": {"arguments": {"type": "objct"}}});
    let toolchains = cluster.api::<ToolchainIntegration>(manifests::PLATFORM);
    let merge = |body| async {
        let params = kube::api::PatchParams::default();
        toolchains
            .patch("mlflow", &params, &kube::api::Patch::Merge(body))
            .await
            .unwrap()
    };
    merge(broken).await;
    cluster.settle(Duration::from_secs(1)).await;
    cluster.create(&manifests::training("wine")).await;
    cluster.settle(Duration::from_secs(10)).await;
    assert_eq!(reason(&cluster.training("wine").await), "ToolchainNotReady");
    let status = toolchains.get("mlflow").await.unwrap().status.unwrap();
    assert!(
        status.conditions[0].message.contains("spec.arguments"),
        "{:?}",
        status.conditions
    );
    merge(json!({"spec": {"arguments": {"type": "object"}}})).await;
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    cluster.shutdown().await;
}

/// The scheduler says which claim is missing: the status names it, and the field that it comes from.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_there_is_named_and_waited_for() {
    let cluster = furnished().await;
    cluster
        .create(&connection("disk", json!({"type": "pvc", "uri": "pvc://models"})))
        .await;
    let mut training = manifests::training("wine");
    training.spec.output = serde_json::from_value(json!({"connection": "disk"})).unwrap();
    cluster.create(&training).await;
    cluster.settle(Duration::from_secs(30)).await;
    let training = cluster.training("wine").await;
    assert_eq!(reason(&training), "VolumeNotMounted");
    let message = &training.status.unwrap().conditions[0].message;
    for word in ["spec.output: ", "persistentvolumeclaim \"models\" not found"] {
        assert!(message.contains(word), "{message}");
    }
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "namespace": manifests::NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))
    .unwrap();
    cluster.create(&claim).await;
    let training = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    assert_eq!(training.status.unwrap().run.unwrap().attempt, 1, "the same pod goes on");
    cluster.shutdown().await;
}
