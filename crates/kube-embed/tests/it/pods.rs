//! Subresources of pods: logs, binding, eviction.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use http::Method;
use kube_embed::{ApiError, Embedded, LogOptions, LogRequest, LogStream, PodLogs};
use serde_json::{Value, json};

use crate::support::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers every request with two chunks, and records the requests.
#[derive(Default)]
struct Recorded {
    asked: Mutex<Vec<LogRequest>>,
}

impl PodLogs for Recorded {
    fn open(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, ApiError>> {
        self.asked.lock().unwrap().push(request);
        let chunks = ["one\n", "two\n"].map(|c| Ok(bytes::Bytes::from(c)));
        async move { Ok(futures::stream::iter(chunks).boxed()) }.boxed()
    }
}

async fn server_with_pod(containers: Value) -> Embedded {
    let server = server().await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": containers, "initContainers": [{"name": "setup", "image": "i"}]},
    });
    post(&server, PODS, pod).await.ok();
    server
}

async fn set_running(server: &Embedded, name: &str) {
    let status = json!({"status": {"containerStatuses": [{
        "name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }]}});
    patch(server, &format!("{PODS}/p/status"), status).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_log_request_goes_to_the_configured_pod_logs() {
    let server = server_with_pod(json!([{"name": "main", "image": "i"}])).await;
    set_running(&server, "main").await;
    let log = format!("{PODS}/p/log?container=main");
    // Without a container name, the log is that of the only main container. Init containers do not count.
    let unconfigured = get(&server, &format!("{PODS}/p/log")).await;
    assert_eq!(unconfigured.refused().0, 503);

    let recorded = Arc::new(Recorded::default());
    server.set_pod_logs(recorded.clone());
    let text = get(
        &server,
        &format!("{log}&follow=true&tailLines=5&sinceSeconds=10&timestamps=true&limitBytes=9"),
    )
    .await;
    assert_eq!(text.headers["content-type"], "text/plain");
    assert_eq!(text.ok(), "one\ntwo\n");
    let asked = recorded.asked.lock().unwrap().remove(0);
    assert_eq!(
        (asked.namespace.as_str(), asked.pod.as_str(), asked.container.as_str()),
        ("default", "p", "main")
    );
    assert_eq!(
        asked.options,
        LogOptions {
            follow: true,
            previous: false,
            tail_lines: Some(5),
            since: Some("2025-12-31T23:59:50Z".parse().unwrap()),
            timestamps: true,
            limit_bytes: Some(9),
        }
    );
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_log_has_the_error_of_kubernetes() {
    let server = server_with_pod(json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])).await;
    set_running(&server, "a").await;
    for (query, message) in [
        (
            "",
            "a container name must be specified for pod p, choose one of: [setup a b]",
        ),
        ("container=c", "container c is not valid for pod p"),
        (
            "container=b",
            "container \"b\" in pod \"p\" is waiting to start: ContainerCreating",
        ),
        (
            "container=a&previous=true",
            "previous terminated container \"a\" in pod \"p\" not found",
        ),
        (
            "container=a&sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
    ] {
        let answer = get(&server, &format!("{PODS}/p/log?{query}")).await;
        assert_eq!(answer.refused(), (400, "BadRequest", message), "{query}");
    }
    let answer = get(&server, &format!("{PODS}/p/log?container=a&tailLines=-1")).await;
    let (_, _, message) = answer.refused();
    assert!(message.contains("tailLines: Invalid value: -1"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once_and_evicted_by_deletion() {
    let server = server_with_pod(json!([{"name": "a", "image": "i"}])).await;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n"},
    });
    post(&server, &format!("{PODS}/p/binding"), binding.clone()).await.ok();
    let pod = get(&server, &format!("{PODS}/p")).await.ok();
    assert_eq!(pod["spec"]["nodeName"], "n");
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    let again = post(&server, &format!("{PODS}/p/binding"), binding).await;
    assert_eq!(again.refused().1, "Conflict");

    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
        "deleteOptions": {"gracePeriodSeconds": 3},
    });
    send(&server, Method::POST, &format!("{PODS}/p/eviction"), eviction)
        .await
        .ok();
    let marked = get(&server, &format!("{PODS}/p")).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 3);
}
