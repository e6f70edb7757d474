//! Checks that an applied configuration has the types of its schema. Other values cannot be merged.

use serde_json::Value;

use super::walk::well_formed;
use crate::schema::TypeInfo;
use crate::schema::node::{JsonType, Node};

/// Returns every value of a wrong type with structured-merge-diff's message: the path, the expected type and the
/// actual one. Also returns items of keyed lists with duplicate keys. A null has any type.
pub(crate) fn mistyped(applied: &Value, types: &TypeInfo) -> Vec<String> {
    let mut found = Vec::new();
    walk(applied, types.root(), "", &mut found);
    if found.is_empty() {
        found.extend(well_formed(applied, Some(types.root()), "").err());
    }
    found
}

fn walk(value: &Value, node: &Node, path: &str, found: &mut Vec<String>) {
    if value.is_null() || node.int_or_string {
        return;
    }
    let expected = match (node.kind, value) {
        (Some(JsonType::Object), Value::Object(_)) | (Some(JsonType::Array), Value::Array(_)) => None,
        (Some(JsonType::Object), _) => Some(format!("map, got {}", in_go(value))),
        (Some(JsonType::Array), _) => Some(format!("list, got {}", in_go(value))),
        (Some(JsonType::Integer | JsonType::Number), Value::Number(_)) => None,
        (Some(JsonType::Integer | JsonType::Number), _) => {
            Some(format!("numeric (int or float), got {}", go_type(value)))
        }
        (Some(JsonType::String), Value::String(_)) => None,
        (Some(JsonType::String), _) => Some(format!("string, got &value.valueUnstructured{{Value:{value}}}")),
        (Some(JsonType::Boolean), Value::Bool(_)) | (None, _) => None,
        (Some(JsonType::Boolean), _) => Some(format!("boolean, got {}", in_go(value))),
    };
    if let Some(expected) = expected {
        found.push(format!("{path}: expected {expected}"));
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(child) = node.child(name) {
                    walk(value, child, &format!("{path}.{name}"), found);
                }
            }
        }
        Value::Array(items) => {
            let Some(node) = &node.items else { return };
            for (index, item) in items.iter().enumerate() {
                walk(item, node, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Formats a value as Go prints a value of structured-merge-diff.
fn in_go(value: &Value) -> String {
    match value {
        Value::String(text) => format!("&{{{text}}}"),
        other => format!("&{{{other}}}"),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
