//! CustomResourceDefinitions: creation, changes, deletion.

use kube_embed::Embedded;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_crd_is_established_immediately_and_its_schema_can_change() {
    let server = server().await;
    assert_eq!(get(&server, WIDGETS).await.status, 404);
    let crd = post(&server, CRDS, widget_crd()).await.ok();
    let status = |type_: &str| {
        let conditions = crd["status"]["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|c| c["type"] == type_).unwrap()["status"].clone()
    };
    assert_eq!(status("Established"), "True");
    assert_eq!(status("NamesAccepted"), "True");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
    post(&server, WIDGETS, widget("a", 1)).await.ok();

    let mut next = crd.clone();
    next["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["weight"] =
        json!({"type": "integer", "default": 5});
    put(&server, &format!("{CRDS}/widgets.demo.io"), next).await.ok();
    let weighed = patch(
        &server,
        &format!("{WIDGETS}/a"),
        json!({"metadata": {"labels": {"x": "y"}}}),
    )
    .await
    .ok();
    assert_eq!(weighed["spec"]["weight"], 5);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_crd_is_refused_with_all_errors() {
    let server = server().await;
    let mut crd = widget_crd();
    crd["metadata"]["name"] = json!("other.demo.io");
    crd["spec"]["scope"] = json!("Global");
    crd["spec"]["versions"][0]["storage"] = json!(false);
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"properties": {}});
    let answer = post(&server, CRDS, crd).await;
    assert_eq!(answer.refused().0, 422);
    let fields: Vec<_> = answer.body["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["field"].as_str().unwrap())
        .collect();
    for field in ["metadata.name", "spec.scope", "spec.versions"] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    assert!(
        fields
            .iter()
            .any(|f| f.starts_with("spec.versions[0].schema.openAPIV3Schema.properties[spec]")),
        "{fields:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_is_served_in_two_versions() {
    let server = server().await;
    let mut crd = widget_crd();
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    post(&server, CRDS, crd).await.ok();
    post(&server, WIDGETS, widget("a", 1)).await.ok();
    let path = "/apis/demo.io/v2/namespaces/default/widgets/a";
    let second = get(&server, path).await.ok();
    assert_eq!(second["apiVersion"], "demo.io/v2");
    let written = put(&server, path, second.clone()).await.ok();
    assert_eq!(written, second, "the same object through another version is no change");
    assert_eq!(
        get(&server, "/apis/demo.io").await.ok()["preferredVersion"]["version"],
        "v2"
    );
}

#[tokio::test(start_paused = true)]
async fn deletion_of_a_crd_deletes_its_objects_and_waits_for_their_finalizers() {
    let server = server_with_widgets().await;
    post(&server, WIDGETS, widget("free", 1)).await.ok();
    let mut held = widget("held", 1);
    held["metadata"]["finalizers"] = json!(["demo.io/hold"]);
    post(&server, WIDGETS, held).await.ok();
    let path = format!("{CRDS}/widgets.demo.io");
    let marked = delete(&server, &path, Value::Null).await.ok();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(get(&server, &format!("{WIDGETS}/free")).await.status, 404);
    assert!(get(&server, &format!("{WIDGETS}/held")).await.ok()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(post(&server, WIDGETS, widget("new", 1)).await.refused().0, 403);

    patch(
        &server,
        &format!("{WIDGETS}/held"),
        json!({"metadata": {"finalizers": null}}),
    )
    .await
    .ok();
    assert_eq!(get(&server, &path).await.status, 404);
    assert_eq!(get(&server, WIDGETS).await.status, 404);
    post(&server, CRDS, widget_crd()).await.ok();
    assert_eq!(get(&server, WIDGETS).await.ok()["items"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_crd_with_conflicting_names_is_not_served() {
    let server = server_with_widgets().await;
    let mut crd = widget_crd();
    crd["metadata"]["name"] = json!("wotsits.demo.io");
    crd["spec"]["names"] = json!({"plural": "wotsits", "kind": "Widget"});
    let crd = post(&server, CRDS, crd).await.ok();
    let conditions = crd["status"]["conditions"].as_array().unwrap();
    let accepted = conditions.iter().find(|c| c["type"] == "NamesAccepted").unwrap();
    assert_eq!(accepted["status"], "False");
    assert_eq!(
        get(&server, "/apis/demo.io/v1/namespaces/default/wotsits").await.status,
        404
    );
}

/// Updates the CRD of widgets as a later release does: adds a field with a default, and removes another.
async fn upgrade(server: &Embedded) {
    let mut next = get(server, &format!("{CRDS}/widgets.demo.io")).await.ok();
    let spec = &mut next["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    spec["weight"] = json!({"type": "integer", "default": 5});
    spec.as_object_mut().unwrap().remove("colour");
    next["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.weight"}]);
    put(server, &format!("{CRDS}/widgets.demo.io"), next).await.ok();
}

#[tokio::test(start_paused = true)]
async fn an_object_from_an_older_schema_is_served_in_the_new_schema() {
    let server = server_with_widgets().await;
    let before = post(&server, WIDGETS, widget("a", 1)).await.ok();
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let path = format!("{WIDGETS}/a");
    upgrade(&server).await;

    let wanted = json!({"size": 1, "weight": 5});
    let shown = get(&server, &path).await.ok();
    assert_eq!(shown["spec"], wanted);
    assert_eq!(version(&shown), version(&before), "reading writes nothing");
    assert_eq!(get(&server, WIDGETS).await.ok()["items"][0]["spec"], wanted);
    let selected = get(&server, &format!("{WIDGETS}?fieldSelector=spec.weight%3D5"))
        .await
        .ok();
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let first = get(&server, &format!("{WIDGETS}?watch=1&timeoutSeconds=1")).await.ok();
    assert_eq!(first["object"]["spec"], wanted);

    // The first write stores the new form, even if the write itself changes nothing. The generation stays the same.
    let renewed = patch(&server, &path, json!({})).await.ok();
    assert_ne!(version(&renewed), version(&before));
    assert_eq!(renewed["metadata"]["generation"], 1);
    assert_eq!(renewed["spec"], wanted);
    let again = patch(&server, &path, json!({})).await.ok();
    assert_eq!(version(&again), version(&renewed));
}

#[tokio::test]
async fn defaults_apply_to_objects_that_an_earlier_server_stored() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let storage = kube_embed::Storage::Disk(directory.path().to_owned());
        Embedded::builder().storage(storage).build()
    };
    let server = open().await.unwrap();
    post(&server, CRDS, widget_crd()).await.ok();
    post(&server, WIDGETS, widget("a", 1)).await.ok();
    upgrade(&server).await;
    server.shutdown().await;
    drop(server);
    let server = open().await.unwrap();
    let shown = get(&server, &format!("{WIDGETS}/a")).await.ok();
    assert_eq!(shown["spec"], json!({"size": 1, "weight": 5}));
    server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_when_the_schema_changes_and_not_before() {
    let server = server_with_widgets().await;
    let made = post(&server, WIDGETS, widget("a", 1)).await.ok();
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{WIDGETS}?watch=1&resourceVersion={from}");
    let watch = get(&server, &path);
    let changes = async {
        // A change of the CRD that does not affect the schema.
        let note = json!({"metadata": {"annotations": {"note": "x"}}});
        patch(&server, &format!("{CRDS}/widgets.demo.io"), note).await.ok();
        patch(&server, &format!("{WIDGETS}/a"), json!({"spec": {"size": 2}}))
            .await
            .ok();
        // Virtual time passes only when all tasks are idle. The watch has then received both changes.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        upgrade(&server).await;
    };
    let began = tokio::time::Instant::now();
    let (events, ()) = tokio::join!(watch, changes);
    assert_eq!(events.ok()["object"]["spec"]["size"], 2);
    assert!(
        began.elapsed() < std::time::Duration::from_secs(60),
        "the watch ended before its timeout"
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_crd_that_is_being_deleted_has_a_finalizer() {
    let server = server_with_widgets().await;
    let path = format!("{CRDS}/widgets.demo.io");
    assert!(get(&server, &path).await.ok()["metadata"].get("finalizers").is_none());
    let mut held = widget("held", 1);
    held["metadata"]["finalizers"] = json!(["demo.io/hold"]);
    post(&server, WIDGETS, held).await.ok();
    let marked = delete(&server, &path, Value::Null).await.ok();
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
}
