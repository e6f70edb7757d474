//! Stored objects and events, with their bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

/// Namespace (empty for cluster-wide objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    /// Namespace; empty for cluster-wide objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// An object at one version. It never changes; a write makes another.
#[derive(Debug)]
pub(crate) struct Object {
    key: ObjectKey,
    version: u64,
    value: Arc<Value>,
    bytes: OnceLock<Bytes>,
    /// The schema that was last found to leave the object as it is; 0 for none.
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

    /// An object that is shown but not stored: the outcome of a dry run.
    pub(crate) fn transient(key: ObjectKey, value: Value) -> Self {
        Self {
            key,
            version: 0,
            value: Arc::new(value),
            bytes: OnceLock::new(),
            schema: AtomicU64::new(0),
        }
    }

    /// Namespace and name.
    pub(crate) fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The version at which the object came to be as it is.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The object.
    pub(crate) fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// The object as JSON, serialised once.
    pub(crate) fn bytes(&self) -> &Bytes {
        // A `Value` always serialises: its keys are strings and its numbers finite.
        self.bytes
            .get_or_init(|| Bytes::from(serde_json::to_vec(&self.value).unwrap_or_default()))
    }

    /// Whether the object is as this schema wants it, as far as is known: it has its defaults, and nothing unknown.
    pub(crate) fn fits(&self, schema: u64) -> bool {
        self.schema.load(Ordering::Relaxed) == schema
    }

    /// Remembers that the object is as this schema wants it.
    pub(crate) fn note_fit(&self, schema: u64) {
        self.schema.store(schema, Ordering::Relaxed);
    }

    /// Whether the object is marked for deletion.
    pub(crate) fn is_terminating(&self) -> bool {
        self.value
            .pointer("/metadata/deletionTimestamp")
            .is_some_and(|t| !t.is_null())
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEventType {
    /// The object came into being.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone.
    Deleted,
}

impl WatchEventType {
    /// As a watch event calls it.
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
    /// What happened.
    pub kind: WatchEventType,
    /// The object after it (for a removal: its last state, with the version of the removal).
    pub object: Arc<Object>,
    /// The object before it.
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

    /// The version of the change.
    pub(crate) fn version(&self) -> u64 {
        self.object.version()
    }

    /// The event as a line of a watch, serialised once for all watches.
    pub(crate) fn frame(&self) -> &Bytes {
        self.frame
            .get_or_init(|| frame(self.kind.as_str(), self.object.bytes()))
    }
}

/// A line of a watch around an object's JSON.
pub(crate) fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + kind.len() + 26);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}
