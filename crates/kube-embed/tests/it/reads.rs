//! Lists, pagination, selectors, tables, discovery.

use http::Method;
use serde_json::{Value, json};

use crate::support::*;

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn all_pages_of_a_list_have_the_same_version() {
    let server = server().await;
    for i in 0..7 {
        post(&server, MAPS, config_map(&format!("m{i}"))).await.ok();
    }
    let first = get(&server, &format!("{MAPS}?limit=3")).await.ok();
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();

    // Later pages do not contain changes made between the requests.
    delete(&server, &format!("{MAPS}/m4"), Value::Null).await.ok();
    post(&server, MAPS, config_map("m35")).await.ok();
    patch(&server, &format!("{MAPS}/m5"), json!({"data": {"k": "changed"}}))
        .await
        .ok();

    let second = get(&server, &format!("{MAPS}?limit=3&continue={token}")).await.ok();
    assert_eq!(names(&second), ["m3", "m4", "m5"]);
    assert_eq!(second["items"][2]["data"]["k"], "v");
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = get(&server, &format!("{MAPS}?limit=3&continue={token}")).await.ok();
    assert_eq!(names(&third), ["m6"]);
    assert_eq!(third["metadata"].get("continue"), None);

    let version = &first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = get(
        &server,
        &format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"),
    )
    .await
    .ok();
    assert_eq!(names(&exact).len(), 7);
    let now = get(
        &server,
        &format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan"),
    )
    .await
    .ok();
    assert_eq!(names(&now), ["m0", "m1", "m2", "m3", "m35", "m5", "m6"]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_continue_token_is_refused_with_a_new_token() {
    let server = kube_embed::Embedded::builder()
        .clock(clock())
        .history(4)
        .build()
        .await
        .unwrap();
    for i in 0..4 {
        post(&server, MAPS, config_map(&format!("m{i}"))).await.ok();
    }
    let first = get(&server, &format!("{MAPS}?limit=2")).await.ok();
    let token = first["metadata"]["continue"].as_str().unwrap();
    for i in 0..8 {
        patch(&server, &format!("{MAPS}/m0"), json!({"data": {"k": format!("{i}")}}))
            .await
            .ok();
    }
    let expired = get(&server, &format!("{MAPS}?limit=2&continue={token}")).await;
    let (code, reason, message) = expired.refused();
    assert_eq!((code, reason), (410, "Expired"));
    assert!(
        message.contains("too old to display a consistent list result"),
        "{message}"
    );
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = get(&server, &format!("{MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!(names(&rest), ["m2", "m3"]);

    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let old = get(
        &server,
        &format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"),
    )
    .await;
    assert_eq!(old.refused().0, 410);
    let future = get(&server, &format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!(future.refused().1, "Timeout");
    assert_eq!(future.headers["retry-after"], "1");
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test(start_paused = true)]
async fn invalid_parameters_are_refused() {
    let server = server().await;
    for query in [
        "limit=x",
        "continue=x",
        "resourceVersion=x",
        "labelSelector=a%20b",
        "fieldSelector=data.k%3Dv",
    ] {
        assert_eq!(
            get(&server, &format!("{MAPS}?{query}")).await.refused().0,
            400,
            "{query}"
        );
    }
    for query in [
        "resourceVersionMatch=Exact",
        "resourceVersionMatch=Sometimes",
        "sendInitialEvents=true",
        "watch=1&sendInitialEvents=true",
    ] {
        assert_eq!(
            get(&server, &format!("{MAPS}?{query}")).await.refused().0,
            422,
            "{query}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsupported_accept_header_is_refused() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await.ok();
    let ask = |accept: &'static str, query: &str| {
        let path = format!("{MAPS}{query}");
        let server = server.clone();
        async move { raw(&server, Method::GET, &path, "", accept, Value::Null).await }
    };
    assert_eq!(
        ask("application/vnd.kubernetes.protobuf", "").await.refused().1,
        "NotAcceptable"
    );
    ask("application/vnd.kubernetes.protobuf, application/json", "")
        .await
        .ok();
    ask("*/*", "").await.ok();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(ask(table, "?includeObject=Some").await.refused().0, 400);
    assert_eq!(
        ask(table, "?includeObject=None").await.ok()["rows"][0]["object"],
        Value::Null
    );
}

#[tokio::test(start_paused = true)]
async fn label_and_field_selectors() {
    let server = server_with_widgets().await;
    for (name, colour) in [("a", "red"), ("b", "grey"), ("c", "red")] {
        let mut object = widget(name, 1);
        object["spec"]["colour"] = json!(colour);
        object["metadata"]["labels"] = json!({"tier": name});
        post(&server, WIDGETS, object).await.ok();
    }
    let by_field = get(&server, &format!("{WIDGETS}?fieldSelector=spec.colour%3Dred"))
        .await
        .ok();
    assert_eq!(names(&by_field), ["a", "c"]);
    let by_set = get(&server, &format!("{WIDGETS}?labelSelector=tier%20in%20(a,b)"))
        .await
        .ok();
    assert_eq!(names(&by_set), ["a", "b"]);
    let everywhere = get(&server, "/apis/demo.io/v1/widgets?labelSelector=tier!%3Da")
        .await
        .ok();
    assert_eq!(names(&everywhere), ["b", "c"]);
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test(start_paused = true)]
async fn tables_for_crds_and_built_in_kinds() {
    let server = server_with_widgets().await;
    post(&server, WIDGETS, widget("a", 3)).await.ok();
    post(&server, MAPS, config_map("m")).await.ok();
    tokio::time::sleep(std::time::Duration::from_secs(150)).await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    patch(&server, &format!("{WIDGETS}/a/status"), status).await.ok();

    let widgets = raw(&server, Method::GET, WIDGETS, "", TABLE, Value::Null).await.ok();
    assert_eq!(widgets["kind"], "Table");
    let headings: Vec<_> = widgets["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(headings, ["Name", "Size", "Ready", "Age"]);
    assert_eq!(widgets["rows"][0]["cells"], json!(["a", 3, "True", "2m30s"]));
    assert_eq!(widgets["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(widgets["rows"][0]["object"]["metadata"]["name"], "a");

    let one = raw(
        &server,
        Method::GET,
        &format!("{MAPS}/m?includeObject=Object"),
        "",
        TABLE,
        Value::Null,
    )
    .await
    .ok();
    assert_eq!(one["rows"][0]["cells"], json!(["m", 1, "2m30s"]));
    assert_eq!(one["rows"][0]["object"]["data"]["k"], "v");

    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
    let list = raw(&server, Method::GET, MAPS, "", partial, Value::Null).await.ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0].get("data"), None);
}

#[tokio::test(start_paused = true)]
async fn discovery_in_both_forms() {
    let server = server_with_widgets().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let groups = raw(&server, Method::GET, "/apis", "", aggregated, Value::Null).await;
    assert!(
        groups.headers["content-type"]
            .to_str()
            .unwrap()
            .contains("as=APIGroupDiscoveryList")
    );
    let groups = groups.ok();
    let demo = groups["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["metadata"]["name"] == "demo.io")
        .unwrap();
    let resource = &demo["versions"][0]["resources"][0];
    assert_eq!(resource["resource"], "widgets");
    assert_eq!(resource["shortNames"], json!(["wd"]));
    assert_eq!(resource["categories"], json!(["demo"]));
    assert_eq!(resource["subresources"][0]["subresource"], "status");

    let plain = get(&server, "/apis").await.ok();
    assert_eq!(plain["kind"], "APIGroupList");
    let list = get(&server, "/apis/demo.io/v1").await.ok();
    let listed: Vec<_> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].clone())
        .collect();
    assert_eq!(listed, ["widgets", "widgets/status"]);
    assert_eq!(
        get(&server, "/apis/demo.io").await.ok()["preferredVersion"]["version"],
        "v1"
    );
    assert_eq!(get(&server, "/version").await.ok()["minor"], "37");
    assert_eq!(get(&server, "/readyz").await.ok(), "ok");

    let discovered = kube::Discovery::new(server.client("default")).run().await.unwrap();
    assert!(discovered.groups().any(|g| g.name() == "demo.io"));
    let discovered = kube::Discovery::new(server.client("default"))
        .run_aggregated()
        .await
        .unwrap();
    let (resource, _) = discovered.get("demo.io").unwrap().recommended_kind("Widget").unwrap();
    assert_eq!(resource.plural, "widgets");
}

#[tokio::test(start_paused = true)]
async fn every_authenticated_client_may_do_everything() {
    let server = server().await;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "delete", "resource": "pods"}},
    });
    let answer = post(
        &server,
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        review,
    )
    .await
    .ok();
    assert_eq!(answer["status"]["allowed"], true);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_must_be_a_duration() {
    let server = server().await;
    for good in ["", "0", "10s", "1h30m"] {
        get(&server, &format!("{MAPS}?timeout={good}")).await.ok();
    }
    let refused = get(&server, &format!("{MAPS}?timeout=soon")).await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.body["message"],
        "invalid timeout specified in the request URL - time: invalid duration \"soon\""
    );
}
