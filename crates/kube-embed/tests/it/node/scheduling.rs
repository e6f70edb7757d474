//! Which pods the scheduler binds, and what it reports about the others.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, PostParams};
use kube_embed::node::runtime::scripted::Script;
use serde_json::json;

use super::cluster::{condition, phase, pod, scripted, scripted_with};

#[tokio::test(start_paused = true)]
async fn pods_wait_for_free_capacity() {
    let (cluster, runtime) = scripted_with(|options| options.cpu_milli = 2000).await;
    runtime.script("main", Script::new().runs(Duration::from_secs(10)));
    let spec = json!({"containers": [{"name": "main", "image": "image", "resources": {"requests": {"cpu": "1"}}}]});
    for name in ["a", "b", "c"] {
        cluster.create(&pod(name, spec.clone())).await;
    }
    let waits = cluster.until("c", |p| condition(p, "PodScheduled").0 == "False").await;
    assert_eq!(
        (phase(&waits), condition(&waits, "PodScheduled").1),
        ("Pending", "Unschedulable")
    );
    let event = cluster.event("c", "FailedScheduling").await;
    assert_eq!(
        event.message.as_deref(),
        Some("0/1 nodes are available: 1 Insufficient cpu.")
    );
    let done = cluster.phase("c", "Succeeded").await;
    assert_eq!(condition(&done, "PodScheduled"), ("True", ""));
    let starts: Vec<_> = runtime
        .started()
        .iter()
        .map(|s| (s.pod.name.clone(), s.at.as_secs()))
        .collect();
    assert_eq!(starts, [("a".into(), 0), ("b".into(), 0), ("c".into(), 10)]);
}

#[tokio::test(start_paused = true)]
async fn an_unmatched_node_selector_is_reported_once_and_the_pod_can_be_deleted() {
    let (cluster, _) = scripted().await;
    cluster.create(&pod("p", json!({"nodeSelector": {"gpu": "yes"}}))).await;
    cluster.event("p", "FailedScheduling").await;
    // Other pods are created and deleted. The scheduler does not report the same again.
    cluster.run(&pod("q", json!({}))).await;
    assert_eq!(cluster.reasons("p").await, ["FailedScheduling"]);
    cluster.delete("p").await;
    cluster.gone("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_claim_and_the_claim_is_bound() {
    let (cluster, _) = scripted().await;
    let spec = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}]});
    cluster.create(&pod("p", spec)).await;
    let event = cluster.event("p", "FailedScheduling").await;
    assert_eq!(
        event.message.as_deref(),
        Some("0/1 nodes are available: persistentvolumeclaim \"claim\" not found.")
    );
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client.clone());
    let claim = serde_json::from_value(json!({
        "metadata": {"name": "claim"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }));
    claims.create(&PostParams::default(), &claim.unwrap()).await.unwrap();
    cluster.phase("p", "Succeeded").await;
    let bound = claims.get("claim").await.unwrap().status.unwrap();
    assert_eq!(bound.phase.as_deref(), Some("Bound"));
    assert_eq!(bound.capacity.unwrap()["storage"].0, "1Gi");
}
