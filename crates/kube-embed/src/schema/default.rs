//! Defaults from a schema, and Kubernetes' handling of `null`.

use serde_json::Value;

use super::node::Node;

/// Removes nulls that are not allowed and have no default, then fills in defaults. Only existing objects are filled:
/// a default inside an absent parent is not applied.
pub(crate) fn default(object: &mut Value, root: &Node) {
    prune_nulls(object, Some(root));
    fill(object, root);
}

fn prune_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(map) => map.retain(|key, child| {
            let schema = node.and_then(|n| n.child(key)).map(AsRef::as_ref);
            if child.is_null() {
                return schema.is_none_or(|s| s.nullable || s.default.is_some());
            }
            prune_nulls(child, schema);
            true
        }),
        Value::Array(items) => {
            let schema = node.and_then(|n| n.items.as_deref());
            items.iter_mut().for_each(|item| prune_nulls(item, schema));
        }
        _ => {}
    }
}

fn fill(value: &mut Value, node: &Node) {
    if !node.has_defaults {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                if let Some(default) = &property.default
                    && map.get(name).is_none_or(|v| v.is_null() && !property.nullable)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (key, child) in map.iter_mut() {
                if let Some(schema) = node.child(key) {
                    fill_null(child, schema);
                    fill(child, schema);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &node.items {
                for item in items {
                    fill_null(item, schema);
                    fill(item, schema);
                }
            }
        }
        _ => {}
    }
}

fn fill_null(value: &mut Value, node: &Node) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}
