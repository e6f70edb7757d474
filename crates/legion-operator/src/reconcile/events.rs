//! Events, for `kubectl describe`. There are few, and one that cannot be written is never a reason to fail.

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use legion_api::condition::cut;
use legion_plan::EventNote;
use legion_runtime::retry::ErrorClass;
use sha2::{Digest as _, Sha256};

use crate::{context::Context, requests::Object};

/// `reportingController` of every event.
const CONTROLLER: &str = "legion-platform.org/operator";
/// Longest note that the API accepts, in bytes.
const NOTE_MAX: usize = 1024;

/// Publishes an event about an object. Its name is a hash of its content. So the same event is never published twice
/// for the same object, also after a crash. An event that cannot be published is lost: the status has everything in it.
pub(crate) async fn publish<K: Object>(context: &Context, object: &K, note: &EventNote, now: Timestamp) {
    let event = event(object, note, now);
    if let Err(error) = context.requests.create(&event).await
        && error.class != ErrorClass::AlreadyExists
    {
        tracing::warn!(class = error.class.as_str(), %error, "an event could not be published");
    }
}

fn event<K: Object>(object: &K, note: &EventNote, now: Timestamp) -> Event {
    let meta = object.meta();
    let name = meta.name.clone().unwrap_or_default();
    let uid = meta.uid.clone().unwrap_or_default();
    let text = cut(&note.message, NOTE_MAX);
    let generation = meta.generation.unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [
        uid.as_str(),
        note.reason.as_str(),
        text.as_str(),
        &generation.to_string(),
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest: String = hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Event {
        metadata: ObjectMeta {
            // The longest name has 253 characters, and the object's own at most 63.
            name: Some(format!("{name}.{digest}")),
            namespace: meta.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(text),
        reason: Some(note.reason.as_str().to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: Some(name),
            namespace: meta.namespace.clone(),
            uid: Some(uid),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some("legion-operator".to_owned()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}
