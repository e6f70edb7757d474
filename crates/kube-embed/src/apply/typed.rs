//! Whether an applied configuration has the types of its schema: what has not cannot be merged.

use serde_json::Value;

use super::walk::well_formed;
use crate::schema::TypeInfo;
use crate::schema::node::{JsonType, Node};

/// Every value of another type than the schema wants, as structured-merge-diff words it: a path with what was expected
/// and what is there, and items of keyed lists that their keys do not tell apart. A null is of any type.
pub fn mistyped(applied: &Value, types: &TypeInfo) -> Vec<String> {
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

/// A value as Go prints one of structured-merge-diff.
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
