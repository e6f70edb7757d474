//! Pods in the way, and pods of a training that waits.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use legion_api::ModelTraining;
use legion_testkit::{agent::Behavior, manifests};
use serde_json::json;

use crate::support::{LIMIT, furnished, reason, succeeded};

#[tokio::test(start_paused = true)]
async fn of_a_suspended_training_is_ended() {
    let cluster = furnished().await;
    cluster.create(&manifests::training("wine")).await;
    cluster.settle(Duration::from_secs(20)).await;
    cluster
        .patch::<ModelTraining>("wine", json!({"spec": {"suspend": true}}))
        .await;
    cluster.settle(Duration::from_secs(200)).await;
    let training = cluster.training("wine").await;
    assert_eq!(reason(&training), "Suspended");
    let pods = cluster.pods().await;
    let phases: Vec<_> = pods
        .iter()
        .filter_map(|pod| pod.status.as_ref()?.phase.as_deref())
        .collect();
    assert!(phases.iter().all(|phase| *phase == "Failed"), "{phases:?}");
    cluster
        .patch::<ModelTraining>("wine", json!({"spec": {"suspend": false}}))
        .await;
    let training = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    let run = training.status.unwrap().run.unwrap();
    // Two attempts, and neither an interruption that counts nor another run.
    assert_eq!((run.sequence, run.attempt, run.disruptions), (1, 2, 0));
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_pod_with_the_name_of_the_next_attempt() {
    let cluster = furnished().await;
    cluster.agents.behave([
        Behavior {
            exit_code: 3,
            ..Behavior::default()
        },
        Behavior::default(),
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
