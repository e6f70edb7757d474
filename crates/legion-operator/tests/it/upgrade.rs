//! An upgrade starts no finished training again.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, api::PostParams};
use legion_testkit::manifests;
use serde_json::json;

use crate::support::{LIMIT, furnished, succeeded, writes};

#[tokio::test(start_paused = true)]
async fn a_defaulted_field_and_a_restart_start_nothing() {
    let mut cluster = furnished().await;
    cluster.create(&manifests::training("wine")).await;
    let before = succeeded(cluster.wait_for("wine", "True", LIMIT).await);
    cluster.settle(Duration::from_secs(900)).await;

    // The next version's CRD: one more field, with a default.
    let crds = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let crd = crds.get("modeltrainings.legion-platform.org").await.unwrap();
    let mut value = serde_json::to_value(&crd).unwrap();
    let spec = &mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["colour"] = json!({"type": "string", "default": "blue", "description": "New."});
    let crd: CustomResourceDefinition = serde_json::from_value(value).unwrap();
    crds.replace("modeltrainings.legion-platform.org", &PostParams::default(), &crd)
        .await
        .unwrap();
    cluster.settle(Duration::from_secs(5)).await;

    let calls = cluster.chaos.calls().len();
    cluster.restart().await;
    cluster.settle(Duration::from_secs(900)).await;
    assert_eq!(writes(&cluster.chaos.calls().split_off(calls)), Vec::<String>::new());
    let after = cluster.training("wine").await;
    assert_eq!(after.status, before.status);
    assert_eq!(cluster.agents.ledger().started.len(), 1);
    // The next write of anything stores the default, which is no work either.
    cluster
        .patch::<legion_api::ModelTraining>("wine", json!({"metadata": {"labels": {"team": "a"}}}))
        .await;
    cluster.settle(Duration::from_secs(900)).await;
    assert_eq!(cluster.agents.ledger().started.len(), 1);
    let served = cluster.client.request::<serde_json::Value>(
        http::Request::get("/apis/legion-platform.org/v1alpha1/namespaces/team/modeltrainings/wine")
            .body(vec![])
            .unwrap(),
    );
    assert_eq!(served.await.unwrap()["spec"]["colour"], "blue", "the field is there");
    cluster.shutdown().await;
}
