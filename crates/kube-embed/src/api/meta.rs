//! Reads and writes `metadata`.

use serde_json::{Map, Value};

/// Returns the string at a path of field names, or an empty string.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the value at a path of field names.
pub(super) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter()
        .try_fold(object, |value, field| value.get(field))
        .filter(|v| !v.is_null())
}

/// Returns `metadata` and creates it if necessary. Decoding has already refused metadata of another type.
pub(super) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    section(object, "metadata")
}

/// Returns a top-level section and creates it if necessary. A value that is not an object is replaced.
pub(super) fn section<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else {
        unreachable!("it was made an object above")
    };
    let section = fields
        .entry(name.to_owned())
        .or_insert_with(|| Value::Object(Map::new()));
    if !section.is_object() {
        *section = Value::Object(Map::new());
    }
    let Value::Object(section) = section else {
        unreachable!("it was made an object above")
    };
    section
}

pub(super) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub(super) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

pub(super) fn version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

pub(super) fn generation(object: &Value) -> i64 {
    at(object, &["metadata", "generation"])
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

pub(super) fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

pub(super) fn grace_period(object: &Value) -> Option<i64> {
    at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64)
}

pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    at(object, &["metadata", "finalizers"])
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Sets a metadata field, or removes it.
pub(super) fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let metadata = metadata(object);
    match value {
        Some(value) => metadata.insert(field.to_owned(), value),
        None => metadata.remove(field),
    };
}

/// Removes fields of the metadata that are empty. Kubernetes omits them, also in custom resources, because it reads the
/// metadata of every object into one type.
pub(super) fn omit_empty(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let is_empty = |value: &Value| match value {
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if metadata.get(field).is_some_and(is_empty) {
            metadata.remove(field);
        }
    }
}

/// Returns whether two objects are equal apart from managedFields.
pub(super) fn same_content(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    a.len() == b.len()
        && a.iter().all(|(field, value)| match (field.as_str(), b.get(field)) {
            ("metadata", Some(other)) => same_without(value, other, "managedFields"),
            (_, Some(other)) => value == other,
            (_, None) => false,
        })
}

fn same_without(a: &Value, b: &Value, ignored: &str) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    let count = |m: &Map<String, Value>| m.keys().filter(|k| *k != ignored).count();
    count(a) == count(b) && a.iter().all(|(k, v)| k == ignored || b.get(k) == Some(v))
}

/// Returns whether managedFields are equal apart from their times.
pub(super) fn same_managers(a: &Value, b: &Value) -> bool {
    let list = |object: &Value| -> Vec<Value> {
        let mut entries = at(object, &["metadata", "managedFields"])
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        for entry in &mut entries {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("time");
            }
        }
        entries
    };
    list(a) == list(b)
}
