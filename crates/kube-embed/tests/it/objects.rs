//! Create, update, patch: what is stored, what is refused, and how.

use http::Method;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_object_lives_and_its_version_moves_only_when_it_changes() {
    let server = server_with_widgets().await;
    let made = post(&server, WIDGETS, widget("a", 1)).await.ok();
    let metadata = &made["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(metadata["generation"], 1);
    assert_eq!(made["spec"]["colour"], "grey", "defaults come from the schema");

    let path = format!("{WIDGETS}/a");
    let same = put(&server, &path, made.clone()).await.ok();
    assert_eq!(same, made, "an update that changes nothing is no write");

    let mut next = made.clone();
    next["spec"]["size"] = json!(2);
    next["status"] = json!({"seen": 7});
    let next = put(&server, &path, next).await.ok();
    assert_eq!(next["metadata"]["generation"], 2);
    assert_eq!(next.get("status"), None, "status is written through its own path");

    let stale = put(&server, &path, made).await;
    let (code, reason, message) = stale.refused();
    assert_eq!((code, reason), (409, "Conflict"));
    assert!(
        message.contains("the object has been modified; please apply your changes to the latest version"),
        "{message}"
    );

    let status = patch(
        &server,
        &format!("{path}/status"),
        json!({"spec": {"size": 9}, "status": {"seen": 2}}),
    )
    .await
    .ok();
    assert_eq!(status["spec"]["size"], 2, "and the spec is not");
    assert_eq!(status["status"]["seen"], 2);
    assert_eq!(status["metadata"]["generation"], 2, "status is no new generation");

    let labelled = patch(&server, &path, json!({"metadata": {"labels": {"x": "y"}}}))
        .await
        .ok();
    assert_eq!(labelled["metadata"]["generation"], 2, "nor are labels");
    assert_ne!(
        labelled["metadata"]["resourceVersion"],
        status["metadata"]["resourceVersion"]
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_have_kubernetes_shapes() {
    let server = server_with_widgets().await;
    post(&server, MAPS, config_map("a")).await.ok();
    for (method, path, body, want) in [
        (
            Method::POST,
            MAPS.to_owned(),
            config_map("a"),
            (409, "AlreadyExists", "configmaps \"a\" already exists"),
        ),
        (
            Method::GET,
            format!("{MAPS}/b"),
            Value::Null,
            (404, "NotFound", "configmaps \"b\" not found"),
        ),
        (
            Method::GET,
            format!("{WIDGETS}/b"),
            Value::Null,
            (404, "NotFound", "widgets.demo.io \"b\" not found"),
        ),
        (
            Method::POST,
            "/api/v1/namespaces/nowhere/configmaps".into(),
            config_map("a"),
            (404, "NotFound", "namespaces \"nowhere\" not found"),
        ),
        (
            Method::GET,
            "/api/v1/nonsense".into(),
            Value::Null,
            (404, "NotFound", "the server could not find the requested resource"),
        ),
        (
            Method::POST,
            "/api/v1/configmaps".into(),
            config_map("a"),
            (
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ),
        ),
        (
            Method::POST,
            MAPS.to_owned(),
            json!({"metadata": {"name": "x"}}),
            (400, "BadRequest", "Object 'Kind' is missing"),
        ),
        (
            Method::POST,
            WIDGETS.to_owned(),
            widget("w", 0),
            (
                422,
                "Invalid",
                "Widget.demo.io \"w\" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
            ),
        ),
        (
            Method::PUT,
            format!("{MAPS}/a"),
            config_map("other"),
            (
                400,
                "BadRequest",
                "the name of the object (other) does not match the name on the URL (a)",
            ),
        ),
    ] {
        let answer = send(&server, method.clone(), &path, body).await;
        assert_eq!(answer.refused(), want, "{method} {path}");
    }
    let invalid = post(&server, WIDGETS, widget("w", 0)).await.body;
    assert_eq!(invalid["details"]["kind"], "Widget");
    assert_eq!(invalid["details"]["group"], "demo.io");
    assert_eq!(invalid["details"]["name"], "w");
    assert_eq!(invalid["details"]["causes"][0]["field"], "spec.size");
    assert_eq!(invalid["details"]["causes"][0]["reason"], "FieldValueInvalid");
}

#[tokio::test(start_paused = true)]
async fn a_transition_rule_sees_the_old_object() {
    let server = server_with_widgets().await;
    post(&server, WIDGETS, widget("a", 5)).await.ok();
    let answer = patch(&server, &format!("{WIDGETS}/a"), json!({"spec": {"size": 4}})).await;
    let (code, _, message) = answer.refused();
    assert_eq!(code, 422);
    assert!(message.contains("a widget never shrinks"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_pruned_warned_about_or_refused() {
    let server = server_with_widgets().await;
    let with_typo = |name: &str| {
        let mut object = widget(name, 1);
        object["spec"]["sise"] = json!(2);
        object
    };
    let warned = post(&server, WIDGETS, with_typo("a")).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.sise\\\"\"");
    assert_eq!(warned.ok()["spec"].get("sise"), None);
    let ignored = post(&server, &format!("{WIDGETS}?fieldValidation=Ignore"), with_typo("b")).await;
    assert!(!ignored.headers.contains_key("warning"));
    let strict = post(&server, &format!("{WIDGETS}?fieldValidation=Strict"), with_typo("c")).await;
    let (code, reason, message) = strict.refused();
    assert_eq!((code, reason), (400, "BadRequest"));
    assert!(
        message.ends_with("strict decoding error: unknown field \"spec.sise\""),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn generated_names_are_unique_and_dry_runs_leave_nothing() {
    let server = server().await;
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}});
    let first = post(&server, MAPS, generated.clone()).await.ok();
    let second = post(&server, MAPS, generated).await.ok();
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("made-"));
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);

    let before = get(&server, MAPS).await.ok()["metadata"]["resourceVersion"].clone();
    let tried = post(&server, &format!("{MAPS}?dryRun=All"), config_map("tried")).await;
    assert_eq!(tried.status, 201);
    let name = first["metadata"]["name"].as_str().unwrap();
    patch(
        &server,
        &format!("{MAPS}/{name}?dryRun=All"),
        json!({"data": {"a": "b"}}),
    )
    .await
    .ok();
    delete(&server, &format!("{MAPS}/{name}?dryRun=All"), Value::Null)
        .await
        .ok();
    let list = get(&server, MAPS).await.ok();
    assert_eq!(list["metadata"]["resourceVersion"], before);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn patches_by_their_media_types() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await.ok();
    let path = format!("{MAPS}/a");
    let patched = raw(
        &server,
        Method::PATCH,
        &path,
        "application/json-patch+json",
        "application/json",
        json!([{"op": "test", "path": "/data/k", "value": "v"}, {"op": "add", "path": "/data/j", "value": "w"}]),
    )
    .await
    .ok();
    assert_eq!(patched["data"], json!({"k": "v", "j": "w"}));
    let strategic = raw(
        &server,
        Method::PATCH,
        &path,
        "application/strategic-merge-patch+json",
        "application/json",
        json!({"data": {"j": null}}),
    )
    .await
    .ok();
    assert_eq!(strategic["data"], json!({"k": "v"}));
    let failed = raw(
        &server,
        Method::PATCH,
        &path,
        "application/json-patch+json",
        "application/json",
        json!([{"op": "test", "path": "/data/k", "value": "other"}]),
    )
    .await;
    assert_eq!(failed.refused().0, 422);
    let unknown = raw(
        &server,
        Method::PATCH,
        &path,
        "text/plain",
        "application/json",
        json!({}),
    )
    .await;
    assert_eq!(unknown.refused().1, "UnsupportedMediaType");

    let stale = patch(
        &server,
        &path,
        json!({"metadata": {"resourceVersion": "1"}, "data": {"k": "x"}}),
    )
    .await;
    assert_eq!(stale.refused().1, "Conflict");
}

#[tokio::test(start_paused = true)]
async fn limits_of_size() {
    let server = server().await;
    let mut big = config_map("a");
    big["metadata"]["annotations"] = json!({"x": "y".repeat(256 * 1024)});
    let (code, reason, _) = {
        let a = post(&server, MAPS, big).await;
        (a.status, a.body["reason"].clone(), ())
    };
    assert_eq!((code, reason), (422, json!("Invalid")));
    let mut huge = config_map("a");
    huge["data"]["x"] = json!("y".repeat(3 * 1024 * 1024));
    assert_eq!(post(&server, MAPS, huge).await.refused().1, "RequestEntityTooLarge");
}

#[tokio::test(start_paused = true)]
async fn secrets_are_written_as_text_and_kept_as_data() {
    let server = server().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let made = post(&server, secrets, secret).await.ok();
    assert_eq!(made["data"], json!({"a": "Yg=="}));
    assert_eq!(made.get("stringData"), None);
    assert_eq!(made["type"], "Opaque");
}

#[tokio::test(start_paused = true)]
async fn both_forms_of_events_are_one_object() {
    let server = server().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Testing", "reason": "Because", "type": "Normal",
        "reportingController": "tests", "reportingInstance": "tests-0", "note": "it happened",
        "regarding": {"kind": "ConfigMap", "name": "a", "namespace": "default", "apiVersion": "v1"},
    });
    post(&server, "/apis/events.k8s.io/v1/namespaces/default/events", event)
        .await
        .ok();
    let core = get(
        &server,
        "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Da",
    )
    .await
    .ok();
    assert_eq!(core["items"][0]["message"], "it happened");
    assert_eq!(core["items"][0]["apiVersion"], "v1");
    let new = get(&server, "/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .ok();
    assert_eq!(new["note"], "it happened");
    assert_eq!(new["regarding"]["name"], "a");
}
