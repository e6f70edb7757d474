//! An undisturbed training.

use legion_api::condition;
use legion_testkit::{fault::Verb, manifests};

use crate::support::{LIMIT, furnished, reads, succeeded, writes};

#[tokio::test(start_paused = true)]
async fn costs_three_writes_and_one_read_of_its_source() {
    let cluster = furnished().await;
    let before = cluster.chaos.calls().len();
    cluster.create(&manifests::training("wine")).await;
    let training = succeeded(cluster.wait_for("wine", "True", LIMIT).await);

    let calls = cluster.chaos.calls().split_off(before);
    assert_eq!(
        writes(&calls),
        [
            "create pods#1",
            "patch modeltrainings/status#1",
            "patch modeltrainings/status#2"
        ],
        "one pod, one status that it runs, one status that it has ended"
    );
    assert_eq!(reads(&calls), ["get configmaps#1"]);
    let events = calls
        .iter()
        .filter(|call| call.verb == Verb::Create && call.resource == "events")
        .count();
    assert!(events <= 1, "{events} events");

    let status = training.status.unwrap();
    assert_eq!(status.score.as_deref(), Some("val_accuracy=0.9722"));
    assert_eq!(status.parameters["c"], "0.5");
    assert_eq!(status.tags["dataset"], "wine");
    assert!(status.artifact.unwrap().digest.starts_with("sha256:"));
    assert_eq!(status.run.unwrap().attempt, 1);
    assert!(condition::is_true(&status.conditions, condition::READY));
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_manifest_again_starts_nothing_and_another_source_trains_again() {
    let cluster = furnished().await;
    cluster.create(&manifests::training("wine")).await;
    let first = succeeded(cluster.wait_for("wine", "True", LIMIT).await);

    // A change of metadata only.
    let label = serde_json::json!({"metadata": {"labels": {"team": "a"}}});
    cluster.patch::<legion_api::ModelTraining>("wine", label).await;
    cluster.settle(LIMIT).await;
    assert_eq!(cluster.agents.ledger().started.len(), 1);

    let source = serde_json::json!({"data": {"train.py": "print('more wine')"}});
    cluster
        .patch::<k8s_openapi::api::core::v1::ConfigMap>("wine-source", source)
        .await;
    cluster.settle(std::time::Duration::from_secs(10)).await;
    let second = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    let (first, second) = (first.status.unwrap().run.unwrap(), second.status.unwrap().run.unwrap());
    assert_ne!(first.id, second.id);
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert_eq!(cluster.agents.ledger().started.len(), 2);
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn its_pod_is_removed_after_the_time_to_live_and_nothing_else() {
    let cluster = furnished().await;
    cluster.create(&manifests::training("wine")).await;
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    assert_eq!(cluster.pods().await.len(), 1);
    cluster.settle(std::time::Duration::from_secs(700)).await;
    assert_eq!(cluster.pods().await.len(), 0);
    let before = cluster.chaos.calls().len();
    cluster.settle(LIMIT * 3).await;
    let calls = cluster.chaos.calls().split_off(before);
    assert_eq!(writes(&calls), Vec::<String>::new());
    assert_eq!(reads(&calls), Vec::<String>::new());
    succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    cluster.shutdown().await;
}
