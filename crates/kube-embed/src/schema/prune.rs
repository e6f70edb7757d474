//! Removal of fields that are not in the schema.

use serde_json::Value;

use super::node::{Additional, Node};
use super::path::Path;

/// Removes unknown fields and returns their paths, sorted.
pub(crate) fn prune(object: &mut Value, root: &Node) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(object, Some(root), root.preserve_unknown, &Path::ROOT, &mut unknown);
    unknown.sort_unstable();
    unknown
}

/// With `keep`, unknown fields of this value stay. Below a known property, the property's own schema decides. The
/// items of a list inherit `keep` from the list.
fn walk(value: &mut Value, node: Option<&Node>, keep: bool, at: &Path<'_>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.retain(|key, child| {
            let path = at.field(key);
            if let Some(property) = node.and_then(|n| n.properties.get(key)) {
                walk(child, Some(property), property.preserve_unknown, &path, unknown);
                return true;
            }
            match node.map_or(&Additional::Absent, |n| &n.additional) {
                Additional::Schema(schema) => walk(child, Some(schema), schema.preserve_unknown, &path, unknown),
                // `additionalProperties: true` allows any key, but has no schema for the values.
                Additional::Any => walk(child, None, false, &path, unknown),
                Additional::Absent if keep => {}
                Additional::Absent => {
                    unknown.push(path.to_string());
                    return false;
                }
            }
            true
        }),
        Value::Array(items) => {
            let schema = node.and_then(|n| n.items.as_deref());
            if schema.is_none() && keep {
                return;
            }
            let keep = keep || schema.is_some_and(|s| s.preserve_unknown);
            for (i, item) in items.iter_mut().enumerate() {
                walk(item, schema, keep, &at.index(i), unknown);
            }
        }
        _ => {}
    }
}
