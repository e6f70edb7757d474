//! `pods/log`, `pods/binding`, `pods/eviction`.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use super::body;
use super::meta;
use super::request::{ApiResult, ResourceRequest};
use crate::logs::{LogOptions, LogRequest};
use crate::schema::FieldError;
use crate::status::ApiError;

impl ResourceRequest {
    pub(super) async fn log(&self) -> ApiResult {
        let pod = self.live()?;
        let value = pod.value();
        let container = self.container(value)?;
        let query = &self.query;
        let mut errors = Vec::new();
        for (name, least, rule) in [
            ("limitBytes", 1, "must be greater than 0"),
            ("sinceSeconds", 1, "must be greater than 0"),
            ("tailLines", 0, "must be greater than or equal to 0"),
        ] {
            if let Some(given) = query.integer(name)?.filter(|number| *number < least) {
                errors.push(FieldError::invalid(name, json!(given), rule));
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid("", "PodLogOptions", &self.name, &errors));
        }
        let since = match (query.number("sinceSeconds")?, query.get("sinceTime")) {
            (Some(_), Some(_)) => {
                return Err(ApiError::bad_request(
                    "at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            (Some(seconds), None) => self.server.clock().now().checked_sub(Duration::from_secs(seconds)).ok(),
            (None, Some(time)) => Some(
                time.parse()
                    .map_err(|e| ApiError::bad_request(format!("sinceTime {time:?} is no RFC 3339 time: {e}")))?,
            ),
            (None, None) => None,
        };
        let options = LogOptions {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            tail_lines: query.number("tailLines")?,
            since,
            timestamps: query.flag("timestamps"),
            limit_bytes: query.number("limitBytes")?,
        };
        self.check_started(value, &container, options.previous)?;
        let logs = self.server.pod_logs().ok_or_else(|| {
            ApiError::unavailable("no node is attached to this server, so there are no logs to read", 5)
        })?;
        let stream = logs
            .open(LogRequest {
                namespace: pod.key().namespace.clone(),
                pod: pod.key().name.clone(),
                uid: meta::uid(value).to_owned(),
                container,
                object: value.clone(),
                options,
            })
            .await?;
        let stopping = self.server.stopping();
        let stream = stream
            .map(|chunk| chunk.map(Frame::data))
            .take_until(stopping.cancelled_owned());
        let mut response = body::full(200, "text/plain", Bytes::new());
        *response.body_mut() = StreamBody::new(stream).boxed_unsync();
        Ok(response)
    }

    /// Returns the requested container. A pod with one main container needs no name.
    fn container(&self, pod: &Value) -> Result<String, ApiError> {
        let names = |list: &str| -> Vec<&str> {
            meta::at(pod, &["spec", list])
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|c| meta::text(c, &["name"]))
                .collect()
        };
        let (main, init) = (names("containers"), names("initContainers"));
        let name = meta::name(pod);
        match (self.query.get("container"), main.as_slice()) {
            (Some(given), _) if main.contains(&given) || init.contains(&given) => Ok(given.to_owned()),
            (Some(given), _) => Err(ApiError::bad_request(format!(
                "container {given} is not valid for pod {name}"
            ))),
            (None, [only]) => Ok((*only).to_owned()),
            (None, _) => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                [init, main].concat().join(" ")
            ))),
        }
    }

    /// Refuses a log of a container that has not started yet.
    fn check_started(&self, pod: &Value, container: &str, previous: bool) -> Result<(), ApiError> {
        let status = ["containerStatuses", "initContainerStatuses"]
            .iter()
            .filter_map(|list| meta::at(pod, &["status", list])?.as_array())
            .flatten()
            .find(|c| meta::text(c, &["name"]) == container);
        let name = meta::name(pod);
        if previous {
            return match status.and_then(|s| meta::at(s, &["lastState", "terminated"])) {
                Some(_) => Ok(()),
                None => Err(ApiError::bad_request(format!(
                    "previous terminated container {container:?} in pod {name:?} not found"
                ))),
            };
        }
        let ran = |s: &Value| {
            meta::at(s, &["state", "running"]).is_some()
                || meta::at(s, &["state", "terminated"]).is_some()
                || meta::at(s, &["lastState", "terminated"]).is_some()
        };
        match status {
            Some(status) if ran(status) => Ok(()),
            _ => {
                let reason = status.map_or("", |s| meta::text(s, &["state", "waiting", "reason"]));
                let reason = if reason.is_empty() { "ContainerCreating" } else { reason };
                Err(ApiError::bad_request(format!(
                    "container {container:?} in pod {name:?} is waiting to start: {reason}"
                )))
            }
        }
    }

    /// Binds the pod to a node. A pod is bound only once.
    pub(super) async fn bind(&self, body: &Bytes) -> ApiResult {
        let binding = self.decode(body)?;
        let node = meta::text(&binding, &["target", "name"]).to_owned();
        if node.is_empty() {
            return Err(ApiError::bad_request("target.name must be the name of a node"));
        }
        let now = crate::clock::seconds(self.server.clock().now());
        self.modify(
            |live| {
                let bound = meta::text(live, &["spec", "nodeName"]);
                if !bound.is_empty() {
                    return Err(ApiError::conflict(
                        &self.resource.info,
                        &self.name,
                        format!("pod {} is already assigned to node {bound:?}", self.name),
                    ));
                }
                if meta::is_deleting(live) {
                    return Err(ApiError::conflict(
                        &self.resource.info,
                        &self.name,
                        format!("pod {} is being deleted, cannot be assigned to a host", self.name),
                    ));
                }
                let mut new = live.clone();
                meta::section(&mut new, "spec").insert("nodeName".into(), json!(node));
                let conditions = meta::section(&mut new, "status")
                    .entry("conditions")
                    .or_insert_with(|| json!([]));
                if let Some(conditions) = conditions.as_array_mut() {
                    conditions.retain(|c| c["type"] != "PodScheduled");
                    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now}));
                }
                Ok(new)
            },
            true,
        )
        .await?;
        Ok(body::json(
            201,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        ))
    }

    /// Evicts a pod. This server has no disruption budgets, so an eviction is a deletion.
    pub(super) async fn evict(&self, body: &Bytes) -> ApiResult {
        let eviction = self.decode(body)?;
        let options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
        self.delete(&Bytes::from(options.to_string())).await?;
        Ok(body::json(
            201,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        ))
    }
}
