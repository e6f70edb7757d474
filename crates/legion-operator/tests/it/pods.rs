//! Pods that are lost, relabelled or deleted by somebody, and trainings that are deleted, suspended or changed, at every
//! phase.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use legion_api::ModelTraining;
use legion_testkit::{agent::Behaviour, cluster::Cluster, manifests};
use serde_json::json;

use crate::support::{LIMIT, furnished, reason, succeeded};

/// Seconds after the training was created: its pod fetches, trains (twice), publishes, has ended, waits for its removal.
const MOMENTS: [u64; 6] = [1, 4, 20, 34, 37, 100];

async fn begun(moment: u64) -> Cluster {
    let cluster = furnished().await;
    cluster.create(&manifests::training("wine")).await;
    cluster.settle(Duration::from_secs(moment)).await;
    cluster
}

/// The end that every disturbance of a pod has: one result, published once, and never two pods.
async fn ends_well(cluster: Cluster, what: &str) {
    let training = cluster.wait_for("wine", "True", LIMIT).await;
    if let Err(training) = &training {
        panic!("{what}: {:#?}", training.status);
    }
    cluster.settle(Duration::from_secs(900)).await;
    assert_eq!(cluster.agents.ledger().published.len(), 1, "{what}");
    assert_eq!(cluster.history.violations(), Vec::<String>::new(), "{what}");
    assert!(cluster.pods().await.is_empty(), "{what}: a pod is left");
    cluster.shutdown().await;
}

async fn only_pod(cluster: &Cluster) -> Option<Pod> {
    cluster.pods().await.pop()
}

#[tokio::test(start_paused = true)]
async fn deleted_by_somebody() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        if let Some(pod) = only_pod(&cluster).await {
            cluster.delete::<Pod>(&pod.name_any()).await;
        }
        ends_well(cluster, &format!("deleted after {moment} s")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_by_force() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        if let Some(pod) = only_pod(&cluster).await {
            let force = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            cluster
                .api::<Pod>(manifests::NAMESPACE)
                .delete(&pod.name_any(), &force)
                .await
                .unwrap();
        }
        ends_well(cluster, &format!("deleted by force after {moment} s")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn relabelled() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        if let Some(pod) = only_pod(&cluster).await {
            let labels = json!({"metadata": {"labels": {legion_plan::training::labels::TRAINING: null}}});
            cluster.patch::<Pod>(&pod.name_any(), labels).await;
        }
        let training = cluster.wait_for("wine", "True", LIMIT).await;
        succeeded(training);
        assert_eq!(cluster.agents.ledger().published.len(), 1, "after {moment} s");
        assert_eq!(cluster.history.violations(), Vec::<String>::new(), "after {moment} s");
        cluster.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_node_that_is_cut_off_for_a_while() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        cluster.node.lose().await.unwrap();
        cluster.settle(Duration::from_secs(100)).await;
        cluster.node.recover().await.unwrap();
        ends_well(cluster, &format!("cut off after {moment} s")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_training_that_is_suspended_and_resumed() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        cluster
            .patch::<ModelTraining>("wine", json!({"spec": {"suspend": true}}))
            .await;
        cluster.settle(Duration::from_secs(200)).await;
        if moment < 34 {
            assert_eq!(reason(&cluster.training("wine").await), "Suspended", "after {moment} s");
            assert!(
                cluster
                    .pods()
                    .await
                    .iter()
                    .all(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Failed"))
            );
        }
        cluster
            .patch::<ModelTraining>("wine", json!({"spec": {"suspend": false}}))
            .await;
        ends_well(cluster, &format!("suspended after {moment} s")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_training_that_is_changed() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        cluster
            .patch::<ModelTraining>("wine", json!({"spec": {"hyperParameters": {"c": "0.7"}}}))
            .await;
        let training = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
        assert_eq!(
            training.status.unwrap().observed_generation,
            Some(2),
            "after {moment} s"
        );
        cluster.settle(Duration::from_secs(900)).await;
        let published = cluster.agents.ledger().published.len();
        assert!((1..=2).contains(&published), "after {moment} s: {published}");
        assert_eq!(cluster.history.violations(), Vec::<String>::new(), "after {moment} s");
        assert!(cluster.pods().await.is_empty(), "after {moment} s");
        cluster.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_training_that_is_deleted() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        cluster.delete::<ModelTraining>("wine").await;
        cluster.settle(Duration::from_secs(200)).await;
        assert!(cluster.pods().await.is_empty(), "after {moment} s");
        assert!(
            cluster.history.pods_created().values().all(|&pods| pods == 1),
            "after {moment} s"
        );
        cluster.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_training_that_is_deleted_and_made_again() {
    for moment in MOMENTS {
        let cluster = begun(moment).await;
        cluster.delete::<ModelTraining>("wine").await;
        cluster.create(&manifests::training("wine")).await;
        succeeded(cluster.wait_for("wine", "True", LIMIT).await);
        cluster.settle(Duration::from_secs(900)).await;
        assert!(cluster.pods().await.is_empty(), "after {moment} s");
        assert_eq!(cluster.history.violations(), Vec::<String>::new(), "after {moment} s");
        cluster.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_somebody_else_with_the_name_of_the_next_attempt() {
    let cluster = furnished().await;
    cluster.agents.behave([
        Behaviour {
            exit_code: 3,
            ..Behaviour::default()
        },
        Behaviour::default(),
    ]);
    let mut training = manifests::training("wine");
    training.spec.retries = 1;
    cluster.create(&training).await;
    cluster.settle(Duration::from_secs(20)).await;
    let run = cluster.training("wine").await.status.unwrap().run.unwrap();
    let name = format!("wine-{}-2", run.id);
    let foreign: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": manifests::NAMESPACE},
        "spec": {"containers": [{"name": "other", "image": "other:1"}], "nodeSelector": {"no": "node"}},
    }))
    .unwrap();
    let foreign = cluster.create(&foreign).await;
    cluster.settle(Duration::from_secs(120)).await;
    assert_eq!(reason(&cluster.training("wine").await), "PodNameTaken");
    let found = cluster.api::<Pod>(manifests::NAMESPACE).get(&name).await.unwrap();
    assert_eq!(found.uid(), foreign.uid(), "it is left alone");
    cluster.delete::<Pod>(&name).await;
    let training = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    assert_eq!(training.status.unwrap().run.unwrap().attempt, 2);
    cluster.shutdown().await;
}
