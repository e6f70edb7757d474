//! `metadata.managedFields`: which manager set which fields.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// The kind of write that changed an object, for `managedFields[].operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) fields: FieldSet,
}

impl Entry {
    /// Returns whether two entries have the same writer. Appliers keep their identity across API versions.
    pub(super) fn same_writer(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// Returns the writer's name in conflict messages.
    pub(super) fn shown(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }
}

/// Returns the time of an entry.
pub(super) fn stamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the entries of an object.
pub(super) fn decode(object: &Value) -> Vec<Entry> {
    let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let operation = match entry.get("operation").and_then(Value::as_str)? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            Some(Entry {
                manager: text(entry, "manager"),
                operation,
                api_version: text(entry, "apiVersion"),
                subresource: text(entry, "subresource"),
                time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
                fields: FieldSet::decode(entry.get("fieldsV1").unwrap_or(&Value::Null)),
            })
        })
        .collect()
}

/// Returns whether a client asks to drop all entries. It does so with a single empty entry.
pub(super) fn is_reset(object: &Value) -> bool {
    object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .is_some_and(|list| match list.as_slice() {
            [] => true,
            [Value::Object(one)] => one.is_empty(),
            _ => false,
        })
}

/// Removes the entries from an object.
pub(super) fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Writes the entries, sorted as the API server sorts them.
pub(super) fn encode(object: &mut Value, mut entries: Vec<Entry>) {
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            (
                e.operation,
                e.time.clone(),
                e.manager.clone(),
                e.api_version.clone(),
                e.subresource.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    strip(object);
    if entries.is_empty() {
        return;
    }
    let list: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            let mut out = Map::new();
            out.insert("manager".into(), entry.manager.into());
            out.insert("operation".into(), entry.operation.name().into());
            out.insert("apiVersion".into(), entry.api_version.into());
            if let Some(time) = entry.time {
                out.insert("time".into(), time.into());
            }
            out.insert("fieldsType".into(), "FieldsV1".into());
            out.insert("fieldsV1".into(), entry.fields.encode());
            if !entry.subresource.is_empty() {
                out.insert("subresource".into(), entry.subresource.into());
            }
            Value::Object(out)
        })
        .collect();
    if let Some(object) = object.as_object_mut()
        && let Some(metadata) = object.entry("metadata").or_insert_with(|| json!({})).as_object_mut()
    {
        metadata.insert("managedFields".into(), list.into());
    }
}

/// Returns the fields without an owner: the object's identity and the fields that the server writes.
pub(super) fn unowned() -> FieldSet {
    FieldSet::decode(&json!({
        "f:apiVersion": {}, "f:kind": {},
        "f:metadata": {
            ".": {}, "f:name": {}, "f:namespace": {}, "f:creationTimestamp": {}, "f:selfLink": {}, "f:uid": {},
            "f:clusterName": {}, "f:generation": {}, "f:managedFields": {}, "f:resourceVersion": {},
        },
    }))
}

/// Maximum number of `Update` writers per object.
const MAX_UPDATERS: usize = 10;

/// Merges the oldest updaters into one entry per API version, so an object cannot grow without limit as new manager
/// names appear.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    loop {
        let mut updaters: Vec<usize> = (0..entries.len())
            .filter(|i| entries[*i].operation == Operation::Update)
            .collect();
        if updaters.len() <= MAX_UPDATERS {
            return;
        }
        updaters.sort_by(|a, b| {
            let key = |i: &usize| (entries[*i].time.clone(), entries[*i].manager.clone());
            key(a).cmp(&key(b))
        });
        let Some(&oldest) = updaters.iter().find(|i| entries[**i].manager != "ancient-changes") else {
            return;
        };
        let mut entry = entries.remove(oldest);
        entry.manager = "ancient-changes".into();
        entry.subresource.clear();
        match entries.iter_mut().find(|e| e.same_writer(&entry)) {
            Some(bucket) => {
                bucket.fields = bucket.fields.union(&entry.fields);
                bucket.time = bucket.time.take().max(entry.time);
            }
            None => {
                entries.push(entry);
                // Renaming an entry alone frees no space. The next round merges another one into it.
            }
        }
    }
}
