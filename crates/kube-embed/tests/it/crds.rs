//! CustomResourceDefinitions: accepted, changed, deleted.

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_crd_is_established_at_once_and_its_schema_can_change() {
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
async fn a_wrong_crd_is_told_every_fault() {
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
async fn two_versions_are_one_object() {
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
async fn a_crd_takes_its_objects_along_but_waits_for_their_finalizers() {
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
    assert_eq!(post(&server, WIDGETS, widget("new", 1)).await.refused().0, 405);

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
async fn a_name_that_is_taken_is_not_served() {
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
