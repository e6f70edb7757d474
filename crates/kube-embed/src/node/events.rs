//! Events, as `kubectl describe` shows them.
//!
//! Recording never waits and never fails. Events go through a queue to a separate task. A repeated event (such as a
//! back-off) increases the count of the first one.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;

use crate::clock::Clock;

/// Number of distinct events that are remembered for counting.
const REMEMBERED: usize = 4096;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Record {
    involved: InvolvedObject,
    event_type: EventType,
    component: &'static str,
    reason: String,
    message: String,
}

/// The object of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InvolvedObject {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field_path: Option<String>,
}

impl InvolvedObject {
    pub(crate) fn pod(pod: &Pod) -> Self {
        Self {
            kind: "Pod",
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            field_path: None,
        }
    }

    pub(crate) fn container(pod: &Pod, name: &str, init: bool) -> Self {
        let list = if init { "initContainers" } else { "containers" };
        Self {
            field_path: Some(format!("spec.{list}{{{name}}}")),
            ..Self::pod(pod)
        }
    }

    pub(crate) fn claim(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            kind: "PersistentVolumeClaim",
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            field_path: None,
        }
    }
}

/// Records events. It is cheap to clone. The writing task ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::UnboundedSender<(Record, Timestamp)>,
    clock: Arc<dyn Clock>,
}

impl Recorder {
    /// Creates a recorder and the task that writes the events. The caller runs the task.
    pub(crate) fn new(client: Client, node: String, clock: Arc<dyn Clock>) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, records) = mpsc::unbounded_channel();
        (Self { queue, clock }, write(client, node, records))
    }

    pub(crate) fn record(
        &self,
        component: &'static str,
        involved: InvolvedObject,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let record = Record {
            involved,
            event_type,
            component,
            reason: reason.into(),
            message: message.into(),
        };
        // The queue is closed only during shutdown of the node, when events have no reader.
        let _ = self.queue.send((record, self.clock.now()));
    }

    pub(crate) fn normal(&self, involved: InvolvedObject, reason: &str, message: impl Into<String>) {
        self.record("kubelet", involved, EventType::Normal, reason, message);
    }

    pub(crate) fn warning(&self, involved: InvolvedObject, reason: &str, message: impl Into<String>) {
        self.record("kubelet", involved, EventType::Warning, reason, message);
    }
}

async fn write(client: Client, node: String, mut records: mpsc::UnboundedReceiver<(Record, Timestamp)>) {
    let mut seen: HashMap<Record, (String, i32)> = HashMap::new();
    let mut serial = 0_u64;
    while let Some((record, time)) = records.recv().await {
        let api: Api<Event> = Api::namespaced(client.clone(), &record.involved.namespace);
        if let Some((name, count)) = seen.get_mut(&record) {
            *count += 1;
            let patch = serde_json::json!({"count": *count, "lastTimestamp": Time(time)});
            if api
                .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .is_ok()
            {
                continue;
            }
            // The event has expired or was deleted, so a new one is created.
            seen.remove(&record);
        }
        serial += 1;
        let name = format!("{}.{:x}{serial:04x}", record.involved.name, time.as_nanosecond());
        if let Err(error) = api
            .create(&PostParams::default(), &event(&record, &name, &node, time))
            .await
        {
            // A namespace that is being deleted refuses events. No one could read them later anyway.
            tracing::debug!(%error, reason = record.reason, pod = record.involved.name, "event not written");
            continue;
        }
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(record, (name, 1));
    }
}

fn event(record: &Record, name: &str, node: &str, time: Timestamp) -> Event {
    let host = (record.component == "kubelet").then(|| node.to_owned());
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(record.involved.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(record.involved.kind.into()),
            namespace: Some(record.involved.namespace.clone()),
            name: Some(record.involved.name.clone()),
            uid: Some(record.involved.uid.clone()),
            field_path: record.involved.field_path.clone(),
            resource_version: None,
        },
        type_: Some(match record.event_type {
            EventType::Normal => "Normal".into(),
            EventType::Warning => "Warning".into(),
        }),
        reason: Some(record.reason.clone()),
        message: Some(record.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(time)),
        last_timestamp: Some(Time(time)),
        source: Some(EventSource {
            component: Some(record.component.into()),
            host: host.clone(),
        }),
        reporting_component: Some(record.component.into()),
        reporting_instance: Some(host.unwrap_or_default()),
        ..Event::default()
    }
}
