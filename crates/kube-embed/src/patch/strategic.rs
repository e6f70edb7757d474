//! Strategic merge patch: a merge patch that also merges lists by their keys.

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::TypeInfo;
use crate::schema::node::{Node, Strategic};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch of a built-in kind.
pub(crate) fn strategic(target: &Value, patch: &Value, types: &TypeInfo) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (target, patch) else {
        return Err(PatchError::Malformed(
            "a strategic merge patch must be an object".into(),
        ));
    };
    merge_map(object.clone(), patch, Some(types.root())).map(Value::Object)
}

fn malformed<T>(message: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(message.into()))
}

fn child<'a>(node: Option<&'a Node>, key: &str) -> Option<&'a Node> {
    node.and_then(|n| n.child(key)).map(AsRef::as_ref)
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    node: Option<&Node>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("delete") => return Ok(Map::new()),
        Some("replace") => original.clear(),
        Some(other) => return malformed(format!("unknown patch type found: {other}")),
    }
    retain_keys(&mut original, patch)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_primitives(&mut original, field, value)?;
        }
    }
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER) {
            continue;
        }
        let schema = child(node, key);
        match value {
            Value::Null => {
                original.remove(key);
            }
            Value::Object(patch) => {
                let before = match original.remove(key) {
                    Some(Value::Object(map)) => map,
                    _ => Map::new(),
                };
                let removes = patch.get(PATCH).and_then(Value::as_str) == Some("delete");
                let merged = merge_map(before, patch, schema)?;
                if !removes {
                    original.insert(key.clone(), Value::Object(merged));
                }
            }
            Value::Array(items) => {
                let strategy = schema.map(|n| n.strategic).unwrap_or_default();
                let order = patch.get(&format!("{SET_ORDER}{key}"));
                let before = match original.remove(key) {
                    Some(Value::Array(list)) => list,
                    _ => Vec::new(),
                };
                let merged = merge_list(before, items, strategy, schema, order)?;
                original.insert(key.clone(), Value::Array(merged));
            }
            scalar => {
                original.insert(key.clone(), scalar.clone());
            }
        }
    }
    // An order may be given for a list whose elements do not change.
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(SET_ORDER) else {
            continue;
        };
        if patch.contains_key(field) {
            continue;
        }
        let strategy = child(node, field).map(|n| n.strategic).unwrap_or_default();
        if let Some(Value::Array(list)) = original.get_mut(field) {
            let server = list.clone();
            *list = in_order(
                std::mem::take(list),
                &server,
                order,
                strategy.merge_key.unwrap_or_default(),
            )?;
        }
    }
    Ok(original)
}

fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(keep) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let Some(keep) = keep.as_array() else {
        return malformed("invalid patch format of retainKeys list");
    };
    let keeps = |key: &str| keep.iter().any(|k| k.as_str() == Some(key));
    let stray = patch
        .iter()
        .any(|(key, value)| !key.starts_with('$') && !value.is_null() && !keeps(key));
    if stray {
        return malformed("retainKeys list and patch mismatch");
    }
    original.retain(|key, _| keeps(key));
    Ok(())
}

fn delete_primitives(original: &mut Map<String, Value>, field: &str, gone: &Value) -> Result<(), PatchError> {
    let Some(gone) = gone.as_array() else {
        return malformed("invalid patch format of primitive list");
    };
    if let Some(Value::Array(list)) = original.get_mut(field) {
        list.retain(|item| !gone.contains(item));
        if list.is_empty() {
            original.remove(field);
        }
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: &[Value],
    strategy: Strategic,
    node: Option<&Node>,
    order: Option<&Value>,
) -> Result<Vec<Value>, PatchError> {
    let item_node = node.and_then(|n| n.items.as_deref());
    let Some(merge_key) = strategy.merge_key else {
        return plain_items(patch, item_node);
    };
    let server = original.clone();
    let merged = if merge_key.is_empty() {
        let mut merged = original;
        for item in patch {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        merged
    } else {
        merge_keyed(original, patch, merge_key, item_node)?
    };
    // A patch without an explicit order uses the order of its items.
    let own: Value = patch.iter().filter(|item| item.get(PATCH).is_none()).cloned().collect();
    in_order(merged, &server, order.unwrap_or(&own), merge_key)
}

/// Removes directives from the items of a replaced list, because they must not be stored.
fn plain_items(patch: &[Value], node: Option<&Node>) -> Result<Vec<Value>, PatchError> {
    patch
        .iter()
        .filter(|item| item.get(PATCH).and_then(Value::as_str) != Some("delete"))
        .filter(|item| {
            !item
                .as_object()
                .is_some_and(|map| map.len() == 1 && map.contains_key(PATCH))
        })
        .map(|item| match item {
            Value::Object(map) => merge_map(Map::new(), map, node).map(Value::Object),
            other => Ok(other.clone()),
        })
        .collect()
}

fn merge_keyed(
    original: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
    node: Option<&Node>,
) -> Result<Vec<Value>, PatchError> {
    let mut merged = original;
    let mut changes: Vec<&Map<String, Value>> = Vec::new();
    for item in patch {
        let Value::Object(item) = item else {
            return malformed(format!(
                "expected a list of objects with key {merge_key}, but found {item}"
            ));
        };
        match item.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
            Some("replace") => {
                // The directive is an element of its own and applies to the whole list.
                let rest: Vec<Value> = patch.iter().filter(|i| i.get(PATCH).is_none()).cloned().collect();
                return plain_items(&rest, node);
            }
            Some("delete") => {
                let key = key_of(item, merge_key)?;
                merged.retain(|other| other.get(merge_key) != Some(key));
            }
            Some("merge") | None => changes.push(item),
            Some(other) => return malformed(format!("unknown patch type found: {other}")),
        }
    }
    for item in changes {
        let key = key_of(item, merge_key)?;
        match merged.iter_mut().find(|other| other.get(merge_key) == Some(key)) {
            Some(Value::Object(found)) => *found = merge_map(std::mem::take(found), item, node)?,
            _ => merged.push(Value::Object(merge_map(Map::new(), item, node)?)),
        }
    }
    Ok(merged)
}

fn key_of<'a>(item: &'a Map<String, Value>, merge_key: &str) -> Result<&'a Value, PatchError> {
    match item.get(merge_key) {
        Some(key) => Ok(key),
        None => malformed(format!(
            "map: {} does not contain declared merge key: {merge_key}",
            Value::Object(item.clone())
        )),
    }
}

/// Sorts the listed items in the given order. Items that only the server has keep their position relative to the
/// items before them.
fn in_order(list: Vec<Value>, server: &[Value], order: &Value, merge_key: &str) -> Result<Vec<Value>, PatchError> {
    let Some(order) = order.as_array() else {
        return malformed("invalid patch format of setElementOrder list");
    };
    let identity = |item: &Value| {
        if merge_key.is_empty() {
            item.clone()
        } else {
            item.get(merge_key).cloned().unwrap_or_default()
        }
    };
    let order: Vec<Value> = order.iter().map(identity).collect();
    let place = |item: &Value| order.iter().position(|o| *o == identity(item));
    let served = |item: &Value| server.iter().position(|s| identity(s) == identity(item));
    let (mut listed, unlisted): (Vec<Value>, Vec<Value>) = list.into_iter().partition(|item| place(item).is_some());
    listed.sort_by_key(place);
    let mut out = Vec::with_capacity(listed.len() + unlisted.len());
    let (mut left, mut right) = (unlisted.into_iter().peekable(), listed.into_iter().peekable());
    while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
        let left_first = matches!((served(l), served(r)), (Some(l), Some(r)) if l < r);
        out.extend(if left_first { left.next() } else { right.next() });
    }
    out.extend(left);
    out.extend(right);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::builtin::{self, Gvk};

    fn pod(target: Value, patch: Value) -> Result<Value, PatchError> {
        strategic(&target, &patch, &builtin::types(Gvk::new("", "v1", "Pod")).unwrap())
    }

    fn containers(list: Value) -> Value {
        json!({"spec": {"containers": list}})
    }

    #[test]
    fn table() {
        let cases = [
            (
                "lists merge by key",
                containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
                containers(json!([{"name": "b", "image": "2"}, {"name": "c", "image": "3"}])),
                containers(
                    json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]),
                ),
            ),
            (
                "$patch: delete removes an element",
                containers(json!([{"name": "a"}, {"name": "b"}])),
                containers(json!([{"name": "a", "$patch": "delete"}])),
                containers(json!([{"name": "b"}])),
            ),
            (
                "$patch: replace in a list",
                containers(json!([{"name": "a"}, {"name": "b"}])),
                containers(json!([{"$patch": "replace"}, {"name": "c"}])),
                containers(json!([{"name": "c"}])),
            ),
            (
                "$patch: replace in a map",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
                json!({"metadata": {"labels": {"c": "3"}}}),
            ),
            (
                "null removes",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"a": null, "missing": null}}}),
                json!({"metadata": {"labels": {"b": "2"}}}),
            ),
            (
                "lists without a strategy are replaced",
                containers(json!([{"name": "a", "command": ["x", "y"]}])),
                containers(json!([{"name": "a", "command": ["z"]}])),
                containers(json!([{"name": "a", "command": ["z"]}])),
            ),
            (
                "tolerations are atomic",
                json!({"spec": {"tolerations": [{"key": "a"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
            ),
            (
                "primitive lists merge as sets",
                json!({"metadata": {"finalizers": ["a/a", "b/b"]}}),
                json!({"metadata": {"finalizers": ["b/b", "c/c"]}}),
                json!({"metadata": {"finalizers": ["a/a", "b/b", "c/c"]}}),
            ),
            (
                "$deleteFromPrimitiveList",
                json!({"metadata": {"finalizers": ["a/a", "b/b"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}}),
                json!({"metadata": {"finalizers": ["b/b"]}}),
            ),
            (
                "$retainKeys switches a volume's source",
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}}),
            ),
            (
                "$setElementOrder with a new element",
                containers(json!([{"name": "a"}, {"name": "s"}, {"name": "b"}])),
                json!({"spec": {
                    "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                    "containers": [{"name": "c"}],
                }}),
                containers(json!([{"name": "c"}, {"name": "s"}, {"name": "b"}, {"name": "a"}])),
            ),
            (
                "$setElementOrder alone",
                json!({"metadata": {"finalizers": ["a/a", "b/b"]}}),
                json!({"metadata": {"$setElementOrder/finalizers": ["b/b", "a/a"]}}),
                json!({"metadata": {"finalizers": ["b/b", "a/a"]}}),
            ),
            (
                "directives are not stored in new objects",
                json!({}),
                containers(
                    json!([{"name": "a", "securityContext": {"$patch": "merge", "privileged": true, "x": null}}]),
                ),
                containers(json!([{"name": "a", "securityContext": {"privileged": true}}])),
            ),
        ];
        for (name, target, patch, expected) in cases {
            assert_eq!(pod(target, patch).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn refusals() {
        let missing = pod(containers(json!([])), containers(json!([{"image": "x"}]))).unwrap_err();
        assert_eq!(
            missing,
            PatchError::Malformed("map: {\"image\":\"x\"} does not contain declared merge key: name".into())
        );
        let unknown = pod(json!({}), json!({"metadata": {"$patch": "explode"}})).unwrap_err();
        assert_eq!(unknown.to_string(), "unknown patch type found: explode");
        let stray = pod(json!({}), json!({"metadata": {"$retainKeys": ["a"], "b": 1}})).unwrap_err();
        assert_eq!(stray.to_string(), "retainKeys list and patch mismatch");
    }
}
