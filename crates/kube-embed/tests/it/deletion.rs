//! Deletion: finalizers, grace periods, preconditions, propagation, namespaces.

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn finalizers_delay_the_deletion_of_an_object() {
    let server = server_with_widgets().await;
    let mut held = widget("a", 1);
    held["metadata"]["finalizers"] = json!(["demo.io/hold"]);
    post(&server, WIDGETS, held).await.ok();
    let path = format!("{WIDGETS}/a");
    let marked = delete(&server, &path, Value::Null).await.ok();
    assert_eq!(marked["kind"], "Widget");
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(marked["metadata"]["generation"], 2, "the mark is a new generation");
    let again = delete(&server, &path, Value::Null).await.ok();
    assert_eq!(
        again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"],
        "a second deletion changes nothing"
    );

    let more = patch(
        &server,
        &path,
        json!({"metadata": {"finalizers": ["demo.io/hold", "demo.io/more"]}}),
    )
    .await;
    assert!(
        more.refused()
            .2
            .contains("no new finalizers can be added if the object is being deleted")
    );

    let last = patch(&server, &path, json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert_eq!(last["metadata"]["name"], "a");
    assert_eq!(get(&server, &path).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn preconditions_are_checked_before_deletion() {
    let server = server().await;
    let made = post(&server, MAPS, config_map("a")).await.ok();
    let path = format!("{MAPS}/a");
    for wrong in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let refused = delete(&server, &path, json!({"preconditions": wrong})).await;
        let (code, reason, message) = refused.refused();
        assert_eq!((code, reason), (409, "Conflict"));
        assert!(message.contains("does not match the"), "{message}");
    }
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}});
    let gone = delete(&server, &path, right).await.ok();
    assert_eq!(gone["status"], "Success");
    assert_eq!(gone["details"]["uid"], made["metadata"]["uid"]);
}

fn pod(name: &str, node: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 20, "containers": [{"name": "c", "image": "i"}]},
    })
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(start_paused = true)]
async fn a_running_pod_exists_until_its_node_confirms_the_deletion() {
    let server = server().await;
    post(&server, PODS, pod("idle", None)).await.ok();
    delete(&server, &format!("{PODS}/idle"), Value::Null).await.ok();
    assert_eq!(
        get(&server, &format!("{PODS}/idle")).await.status,
        404,
        "no node runs it"
    );

    post(&server, PODS, pod("busy", Some("n"))).await.ok();
    let path = format!("{PODS}/busy");
    let marked = delete(&server, &path, Value::Null).await.ok();
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:20Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 20);
    let longer = delete(&server, &path, json!({"gracePeriodSeconds": 60})).await.ok();
    assert_eq!(
        longer["metadata"]["deletionGracePeriodSeconds"], 20,
        "a grace period is never extended"
    );
    let shorter = delete(&server, &path, json!({"gracePeriodSeconds": 5})).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let last = delete(&server, &path, json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!(last["kind"], "Pod");
    assert_eq!(get(&server, &path).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn the_propagation_policy_becomes_a_finalizer_for_the_garbage_collector() {
    let server = server().await;
    for (name, policy, finalizer) in [("a", "Foreground", "foregroundDeletion"), ("b", "Orphan", "orphan")] {
        post(&server, MAPS, config_map(name)).await.ok();
        let marked = delete(
            &server,
            &format!("{MAPS}/{name}?propagationPolicy={policy}"),
            Value::Null,
        )
        .await
        .ok();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
    let unknown = delete(&server, &format!("{MAPS}/a?propagationPolicy=Sometimes"), Value::Null).await;
    assert_eq!(unknown.refused().0, 422);
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_selector() {
    let server = server().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"app": app});
        post(&server, MAPS, object).await.ok();
    }
    let deleted = delete(&server, &format!("{MAPS}?labelSelector=app%3Dx"), Value::Null)
        .await
        .ok();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = get(&server, MAPS).await.ok();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
}

#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_refuses_objects_and_is_deleted_when_finalized() {
    let server = server().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    let made = post(&server, "/api/v1/namespaces", namespace).await.ok();
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    let marked = delete(&server, "/api/v1/namespaces/team", Value::Null).await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = post(&server, "/api/v1/namespaces/team/configmaps", config_map("a")).await;
    assert_eq!(refused.refused().1, "Forbidden");
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");

    let mut done = get(&server, "/api/v1/namespaces/team").await.ok();
    done["spec"]["finalizers"] = json!([]);
    put(&server, "/api/v1/namespaces/team/finalize", done).await.ok();
    assert_eq!(get(&server, "/api/v1/namespaces/team").await.status, 404);
}
