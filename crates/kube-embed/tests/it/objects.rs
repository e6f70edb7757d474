//! Create, update, patch: which objects are stored, and the errors for the others.

use http::Method;
use kube_embed::Embedded;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn the_resource_version_of_an_object_changes_only_with_its_content() {
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
async fn errors_have_the_form_of_kubernetes() {
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
            json!({"kind": "Secret", "metadata": {"name": "x"}}),
            (
                400,
                "BadRequest",
                "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
            ),
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
async fn unknown_fields_are_pruned_with_a_warning_or_refused() {
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
async fn generated_names_are_unique_and_dry_runs_store_nothing() {
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
async fn the_media_type_selects_the_kind_of_patch() {
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
async fn objects_and_annotations_have_size_limits() {
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
async fn string_data_of_a_secret_is_stored_as_data() {
    let server = server().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let made = post(&server, secrets, secret).await.ok();
    assert_eq!(made["data"], json!({"a": "Yg=="}));
    assert_eq!(made.get("stringData"), None);
    assert_eq!(made["type"], "Opaque");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_served_by_both_event_apis() {
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
    let path = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=regarding.name%3Da";
    assert_eq!(get(&server, path).await.ok()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_the_events_api_requires_all_fields() {
    let server = server().await;
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Testing", "reason": "Because", "type": "Normal",
        "reportingController": "tests", "reportingInstance": "tests-0",
    });
    for (field, value, expected) in [
        ("eventTime", Value::Null, "eventTime: Required value"),
        ("action", json!(""), "action: Required value"),
        (
            "reason",
            json!("r".repeat(129)),
            "reason: Invalid value: \"\": can have at most 128 characters",
        ),
        ("reportingInstance", json!(""), "reportingInstance: Required value"),
        (
            "type",
            json!("Bad"),
            "type: Invalid value: \"\": has invalid value: Bad",
        ),
    ] {
        let mut wrong = event.clone();
        wrong[field] = value;
        let answer = post(&server, path, wrong).await;
        let (code, _, message) = answer.refused();
        assert_eq!(code, 422);
        assert!(
            message.ends_with(&format!(" \"e\" is invalid: {expected}")),
            "{field}: {message}"
        );
    }
    post(&server, path, event).await.ok();
}

async fn apply(server: &Embedded, path: &str, manager: &str, body: Value) -> Answer {
    let path = format!("{path}?fieldManager={manager}");
    let apply = "application/apply-patch+yaml";
    raw(server, Method::PATCH, &path, apply, "application/json", body).await
}

#[tokio::test(start_paused = true)]
async fn an_apply_can_remove_the_last_label_of_its_manager() {
    let server = server_with_widgets().await;
    let path = format!("{WIDGETS}/a");
    let mut labelled = widget("a", 1);
    labelled["metadata"]["labels"] = json!({"x": "y"});
    labelled["metadata"]["annotations"] = json!({"mine": "1"});
    let made = apply(&server, &path, "one", labelled).await.ok();
    patch(&server, &path, json!({"metadata": {"annotations": {"theirs": "2"}}}))
        .await
        .ok();
    let bare = apply(&server, &path, "one", widget("a", 1)).await.ok();
    assert!(bare["metadata"].get("labels").is_none(), "{bare}");
    assert_eq!(bare["metadata"]["annotations"], json!({"theirs": "2"}));
    assert_eq!(bare["metadata"]["name"], "a");
    assert_eq!(bare["metadata"]["uid"], made["metadata"]["uid"]);
    let again = apply(&server, &path, "one", widget("a", 1)).await.ok();
    assert_eq!(again, bare);
}

#[tokio::test(start_paused = true)]
async fn an_apply_of_the_object_ignores_status_and_an_apply_of_status_ignores_the_rest() {
    let server = server_with_widgets().await;
    let path = format!("{WIDGETS}/a");
    apply(&server, &path, "one", widget("a", 1)).await.ok();
    let seen = json!({"apiVersion": "demo.io/v1", "kind": "Widget", "metadata": {"name": "a"}, "status": {"seen": 1}});
    apply(&server, &format!("{path}/status"), "two", seen).await.ok();
    let mut with_status = widget("a", 2);
    with_status["status"] = json!({"seen": 9});
    let applied = apply(&server, &path, "one", with_status).await.ok();
    assert_eq!(
        (&applied["spec"]["size"], &applied["status"]["seen"]),
        (&json!(2), &json!(1))
    );
    let mut with_spec = widget("a", 9);
    with_spec["status"] = json!({"seen": 3});
    let applied = apply(&server, &format!("{path}/status"), "two", with_spec).await.ok();
    let (size, seen) = (&applied["spec"]["size"], &applied["status"]["seen"]);
    assert_eq!((size, seen), (&json!(2), &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn an_apply_with_a_field_outside_the_schema_is_refused() {
    let server = server_with_widgets().await;
    let path = format!("{WIDGETS}/a");
    let mut typo = widget("a", 1);
    typo["spec"]["sise"] = json!(1);
    let answer = apply(&server, &path, "one", typo).await;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.body["message"],
        "failed to create typed patch object (/a; demo.io/v1, Kind=Widget): .spec.sise: field not declared in schema"
    );
    assert!(answer.body.get("reason").is_none());
    assert_eq!(get(&server, &path).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_write_with_another_uid_is_refused() {
    let server = server_with_widgets().await;
    let path = format!("{WIDGETS}/a");
    let made = post(&server, WIDGETS, widget("a", 1)).await.ok();
    let immutable = "metadata.uid: Invalid value: \"other\": field is immutable";
    let patched = patch(&server, &path, json!({"metadata": {"uid": "other"}})).await;
    assert_eq!(patched.refused().0, 422);
    assert!(patched.refused().2.contains(immutable), "{}", patched.refused().2);
    let mut other = widget("a", 1);
    other["metadata"]["uid"] = json!("other");
    let applied = apply(&server, &path, "one", other.clone()).await;
    assert!(applied.refused().2.contains(immutable), "{}", applied.refused().2);
    other["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    assert_eq!(put(&server, &path, other).await.refused().0, 409);
    let missing = put(&server, &format!("{WIDGETS}/z"), widget("z", 1)).await;
    assert_eq!(missing.refused().0, 404, "before the missing version is reported");
}

#[tokio::test(start_paused = true)]
async fn the_name_of_a_field_manager_has_a_maximum_length() {
    let server = server().await;
    let long = "m".repeat(129);
    let answer = post(&server, &format!("{MAPS}?fieldManager={long}"), config_map("a")).await;
    assert_eq!(answer.refused().0, 422);
    assert!(
        answer.refused().2.contains("fieldManager: Too long"),
        "{}",
        answer.refused().2
    );
    post(&server, &format!("{MAPS}?fieldManager={}", &long[1..]), config_map("a"))
        .await
        .ok();
}
