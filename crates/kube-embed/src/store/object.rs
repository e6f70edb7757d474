//! Stored objects and events, with their bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

/// Namespace and name. The namespace of cluster-scoped objects is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// An object at one version. It is immutable: a write creates another.
#[derive(Debug)]
pub(crate) struct Object {
    key: ObjectKey,
    version: u64,
    value: Arc<Value>,
    bytes: OnceLock<Bytes>,
    /// The schema for which the object is known to need no changes. 0 means none.
    schema: AtomicU64,
}

impl Object {
    pub(crate) fn new(key: ObjectKey, version: u64, mut value: Value) -> Self {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), Value::String(version.to_string()));
        }
        Self {
            key,
            version,
            value: Arc::new(value),
            bytes: OnceLock::new(),
            schema: AtomicU64::new(0),
        }
    }

    /// Creates an object that is shown but not stored: the result of a dry run.
    pub(crate) fn transient(key: ObjectKey, value: Value) -> Self {
        Self {
            key,
            version: 0,
            value: Arc::new(value),
            bytes: OnceLock::new(),
            schema: AtomicU64::new(0),
        }
    }

    pub(crate) fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Returns the version of the write that created this state.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// Returns the object as JSON. It is serialized once.
    pub(crate) fn bytes(&self) -> &Bytes {
        // A `Value` always serializes: its keys are strings and its numbers finite.
        self.bytes
            .get_or_init(|| Bytes::from(serde_json::to_vec(&self.value).unwrap_or_default()))
    }

    /// Returns whether the object is known to match this schema: it has all defaults, and no unknown fields.
    pub(crate) fn fits(&self, schema: u64) -> bool {
        self.schema.load(Ordering::Relaxed) == schema
    }

    /// Records that the object matches this schema.
    pub(crate) fn note_fit(&self, schema: u64) {
        self.schema.store(schema, Ordering::Relaxed);
    }

    /// Returns whether the object is being deleted.
    pub(crate) fn is_terminating(&self) -> bool {
        self.value
            .pointer("/metadata/deletionTimestamp")
            .is_some_and(|t| !t.is_null())
    }
}

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEventType {
    Added,
    Modified,
    Deleted,
}

impl WatchEventType {
    /// Returns the type's name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct WatchEvent {
    pub kind: WatchEventType,
    /// The object after the change. For a removal, this is its last state with the version of the removal.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
    frame: OnceLock<Bytes>,
}

impl WatchEvent {
    pub(crate) fn new(kind: WatchEventType, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self {
            kind,
            object,
            previous,
            frame: OnceLock::new(),
        }
    }

    /// Returns the version of the change.
    pub(crate) fn version(&self) -> u64 {
        self.object.version()
    }

    /// Returns the event as a line of a watch. It is serialized once for all watches.
    pub(crate) fn frame(&self) -> &Bytes {
        self.frame
            .get_or_init(|| frame(self.kind.as_str(), self.object.bytes()))
    }
}

/// Returns a line of a watch with an object's JSON.
pub(crate) fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + kind.len() + 26);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}
