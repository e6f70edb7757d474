//! Helpers for the tests: a server with a fixed clock, raw requests, and a small CRD.

use std::sync::Arc;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use kube_embed::{Embedded, TokioClock};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Starts a server in memory. Its clock starts at the first second of 2026 and follows tokio's clock.
pub(crate) async fn server() -> Embedded {
    Embedded::builder().clock(clock()).seed(7).build().await.unwrap()
}

pub(crate) fn clock() -> Arc<TokioClock> {
    Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()))
}

/// A response: status code, headers, and JSON body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.body);
        self.body
    }

    /// Returns the code, reason and message of an error response.
    #[track_caller]
    pub(crate) fn refused(&self) -> (u16, &str, &str) {
        assert_eq!(self.body["kind"], "Status", "{}", self.body);
        assert_eq!(self.body["status"], "Failure");
        assert_eq!(self.body["code"], self.status);
        (
            self.status,
            self.body["reason"].as_str().unwrap(),
            self.body["message"].as_str().unwrap(),
        )
    }
}

/// Sends a request with the usual content type of its method.
pub(crate) async fn send(server: &Embedded, method: Method, path: &str, body: Value) -> Answer {
    let content_type = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    raw(server, method, path, content_type, "application/json", body).await
}

pub(crate) async fn raw(
    server: &Embedded,
    method: Method,
    path: &str,
    content_type: &str,
    accept: &str,
    body: Value,
) -> Answer {
    let bytes = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .header("accept", accept)
        .header("user-agent", "test/1.0")
        .body(Full::new(bytes::Bytes::from(bytes)))
        .unwrap();
    let response = server.service().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}

pub(crate) async fn get(server: &Embedded, path: &str) -> Answer {
    send(server, Method::GET, path, Value::Null).await
}

pub(crate) async fn post(server: &Embedded, path: &str, body: Value) -> Answer {
    send(server, Method::POST, path, body).await
}

pub(crate) async fn put(server: &Embedded, path: &str, body: Value) -> Answer {
    send(server, Method::PUT, path, body).await
}

pub(crate) async fn patch(server: &Embedded, path: &str, body: Value) -> Answer {
    send(server, Method::PATCH, path, body).await
}

pub(crate) async fn delete(server: &Embedded, path: &str, body: Value) -> Answer {
    send(server, Method::DELETE, path, body).await
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const WIDGETS: &str = "/apis/demo.io/v1/namespaces/default/widgets";
pub(crate) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

pub(crate) fn widget(name: &str, size: i64) -> Value {
    json!({"apiVersion": "demo.io/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}})
}

pub(crate) fn widget_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.demo.io"},
        "spec": {
            "group": "demo.io", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["demo"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "selectableFields": [{"jsonPath": ".spec.colour"}],
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A widget.",
                    "properties": {
                        "spec": {
                            "type": "object", "required": ["size"],
                            "properties": {
                                "size": {"type": "integer", "minimum": 1, "description": "How big."},
                                "colour": {"type": "string", "default": "grey", "enum": ["grey", "red"]},
                            },
                            "x-kubernetes-validations": [
                                {"rule": "self.size >= oldSelf.size", "message": "a widget never shrinks"},
                            ],
                        },
                        "status": {
                            "type": "object",
                            "properties": {
                                "seen": {"type": "integer"},
                                "conditions": {
                                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                                    "items": {
                                        "type": "object", "required": ["type", "status"],
                                        "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                                    },
                                },
                            },
                        },
                    },
                }},
            }],
        },
    })
}

/// Starts a server with the CRD of widgets.
pub(crate) async fn server_with_widgets() -> Embedded {
    let server = server().await;
    post(&server, CRDS, widget_crd()).await.ok();
    server
}
