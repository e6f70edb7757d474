//! A malformed object affects no other object, and its status reports the fault.

use std::time::Duration;

use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
};
use legion_api::ModelTraining;
use legion_testkit::{cluster::Cluster, manifests};
use serde_json::json;

use crate::support::{LIMIT, logs, operator, succeeded, writes};

#[tokio::test(start_paused = true)]
async fn a_malformed_training_is_reported_and_stalls_no_other() {
    logs();
    // An older schema, which allowed what the type does not.
    let crds = legion_api::crd::all()
        .into_iter()
        .map(|crd| {
            let mut value = serde_json::to_value(crd).unwrap();
            let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/retries";
            if let Some(retries) = value.pointer_mut(path) {
                *retries = json!({"x-kubernetes-preserve-unknown-fields": true});
            }
            serde_json::from_value(value).unwrap()
        })
        .collect();
    let mut cluster = Cluster::with_crds(operator(), crds).await;
    cluster.furnish().await;
    let mut bad = serde_json::to_value(manifests::training("bad")).unwrap();
    bad["spec"]["retries"] = json!("twice");
    let api: Api<DynamicObject> = Api::namespaced_with(
        cluster.client.clone(),
        manifests::NAMESPACE,
        &ApiResource::erase::<ModelTraining>(&()),
    );
    api.create(&PostParams::default(), &serde_json::from_value(bad).unwrap())
        .await
        .unwrap();
    cluster.create(&manifests::training("good")).await;
    cluster.start();

    succeeded(cluster.wait_for("good", "True", LIMIT).await);
    let bad = api.get("bad").await.unwrap();
    let conditions = bad.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let succeeded = conditions
        .iter()
        .find(|condition| condition["type"] == "Succeeded")
        .cloned()
        .unwrap_or_default();
    assert_eq!(
        (&succeeded["status"], &succeeded["reason"]),
        (&json!("False"), &json!("InvalidObject"))
    );
    assert!(succeeded["message"].as_str().unwrap().contains("twice"), "{succeeded}");

    // Said once, also after a restart.
    let calls = cluster.chaos.calls().len();
    cluster.restart().await;
    cluster.settle(Duration::from_secs(120)).await;
    assert_eq!(writes(&cluster.chaos.calls().split_off(calls)), Vec::<String>::new());

    // Fixed, it trains.
    cluster
        .patch::<ModelTraining>("bad", json!({"spec": {"retries": 0}}))
        .await;
    crate::support::succeeded(cluster.wait_for("bad", "True", LIMIT).await);
    cluster.shutdown().await;
}
