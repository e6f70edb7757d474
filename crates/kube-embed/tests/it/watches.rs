//! Watches, through kube-rs and as raw streams.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::Request;
use http_body_util::{BodyExt, Empty};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use kube_embed::Embedded;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::*;

/// A watch as a stream of JSON lines.
struct Lines {
    body: kube_embed::ResponseBody,
    buffer: Vec<u8>,
}

impl Lines {
    async fn open(server: &Embedded, query: &str) -> Self {
        let request = Request::get(format!("{MAPS}?watch=true&{query}"))
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = server.service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.buffer
                .extend(self.body.frame().await?.unwrap().into_data().unwrap());
        }
    }

    /// Returns type and name of the next event. For a bookmark, the name is its resourceVersion.
    async fn brief(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let object = &event["object"]["metadata"];
        let what = object["name"]
            .as_str()
            .or(object["resourceVersion"].as_str())
            .unwrap_or_default();
        (event["type"].as_str().unwrap().to_owned(), what.to_owned())
    }
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_and_reports_when_objects_start_and_stop_matching_the_selector() {
    let server = server().await;
    let made = post(&server, MAPS, config_map("a")).await.ok();
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    patch(
        &server,
        &format!("{MAPS}/a"),
        json!({"metadata": {"labels": {"x": "1"}}}),
    )
    .await
    .ok();
    patch(&server, &format!("{MAPS}/a"), json!({"data": {"k": "w"}}))
        .await
        .ok();
    patch(
        &server,
        &format!("{MAPS}/a"),
        json!({"metadata": {"labels": {"x": "2"}}}),
    )
    .await
    .ok();
    delete(&server, &format!("{MAPS}/a"), Value::Null).await.ok();

    let mut all = Lines::open(&server, &format!("resourceVersion={from}")).await;
    for kind in ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.brief().await, pair(kind, "a"));
    }
    let mut selected = Lines::open(&server, &format!("resourceVersion={from}&labelSelector=x%3D1")).await;
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(selected.brief().await, pair(kind, "a"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_an_expired_version_ends_with_410_in_its_stream() {
    let server = Embedded::builder().clock(clock()).history(3).build().await.unwrap();
    let made = post(&server, MAPS, config_map("a")).await.ok();
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    for i in 0..5 {
        patch(&server, &format!("{MAPS}/a"), json!({"data": {"k": format!("{i}")}}))
            .await
            .ok();
    }
    let mut watch = Lines::open(&server, &format!("resourceVersion={from}")).await;
    let error = watch.next().await.unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!(error["object"]["code"], 410);
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_an_annotated_bookmark_and_later_bookmarks_follow() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await.ok();
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=300";
    let mut watch = Lines::open(&server, query).await;
    assert_eq!(watch.brief().await, pair("ADDED", "a"));
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );

    // A write to another kind increases the version. The next bookmark contains it, after a minute of virtual time.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let secret = post(&server, "/api/v1/namespaces/default/secrets", secret).await.ok();
    let start = tokio::time::Instant::now();
    assert_eq!(
        watch.brief().await,
        pair("BOOKMARK", secret["metadata"]["resourceVersion"].as_str().unwrap())
    );
    assert_eq!(start.elapsed().as_secs(), 60);
    assert_eq!(watch.next().await, None, "no event until the timeout");
    assert_eq!(start.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn shutdown_and_deletion_of_a_crd_end_watches() {
    let server = server_with_widgets().await;
    let mut maps = Lines::open(&server, "resourceVersion=1").await;
    let request = Request::get(format!("{WIDGETS}?watch=1&resourceVersion=0"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let mut widgets = server.service().oneshot(request).await.unwrap().into_body();
    delete(&server, &format!("{CRDS}/widgets.demo.io"), Value::Null)
        .await
        .ok();
    assert!(widgets.frame().await.is_none());
    server.shutdown().await;
    assert_eq!(maps.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn the_watcher_of_kube_rs_survives_a_relist_in_both_strategies() {
    for streaming in [false, true] {
        let server = Embedded::builder().clock(clock()).history(8).build().await.unwrap();
        let api: Api<ConfigMap> = Api::namespaced(server.client("default"), "default");
        for i in 0..5 {
            let object = serde_json::from_value(config_map(&format!("m{i}"))).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap();
        }
        let config = watcher::Config::default();
        let config = if streaming {
            config.streaming_lists()
        } else {
            config.page_size(2)
        };
        let mut stream = std::pin::pin!(watcher(api.clone(), config));
        let mut seen = Vec::new();
        loop {
            match stream.next().await.unwrap().unwrap() {
                watcher::Event::InitApply(object) => seen.push(object.metadata.name.unwrap()),
                watcher::Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4"], "streaming: {streaming}");
        patch(&server, &format!("{MAPS}/m1"), json!({"data": {"k": "new"}}))
            .await
            .ok();
        let event = stream.next().await.unwrap().unwrap();
        assert!(matches!(event, watcher::Event::Apply(o) if o.metadata.name.as_deref() == Some("m1")));

        // Without a poll, more events happen than the history holds. The watcher receives an error and lists again.
        for i in 0..20 {
            patch(&server, &format!("{MAPS}/m2"), json!({"data": {"k": format!("{i}")}}))
                .await
                .ok();
        }
        delete(&server, &format!("{MAPS}/m4"), Value::Null).await.ok();
        let relisted = tokio::time::timeout(Duration::from_secs(600), async {
            let mut names = Vec::new();
            loop {
                match stream.next().await.unwrap() {
                    Ok(watcher::Event::Init) => names.clear(),
                    Ok(watcher::Event::InitApply(object)) => names.push(object.metadata.name.unwrap()),
                    Ok(watcher::Event::InitDone) => return names,
                    _ => {}
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(relisted, ["m0", "m1", "m2", "m3"], "streaming: {streaming}");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_objects_are_watched_and_listed() {
    let server = Embedded::builder()
        .clock(clock())
        .history(20_000)
        .build()
        .await
        .unwrap();
    let api: Api<ConfigMap> = Api::namespaced(server.client("default"), "default");
    let mut watch = api
        .watch(&WatchParams::default().timeout(200), "0")
        .await
        .unwrap()
        .boxed();
    for i in 0..10_000 {
        post(&server, MAPS, config_map(&format!("m{i:05}"))).await.ok();
    }
    for i in 0..10_000 {
        let event = watch.try_next().await.unwrap().unwrap();
        let WatchEvent::Added(object) = event else {
            panic!("{event:?}")
        };
        assert_eq!(object.metadata.name.unwrap(), format!("m{i:05}"));
    }
    let listed = api.list(&Default::default()).await.unwrap();
    assert_eq!(listed.items.len(), 10_000);
}
