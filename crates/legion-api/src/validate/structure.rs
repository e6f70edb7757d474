//! Structural validation: types, bounds, patterns, enums, required and unknown fields, list maps.

use std::collections::HashSet;

use regex::Regex;
use serde_json::{Number, Value};

use crate::{Problem, Reason};

/// Checks `value` against a structural schema and appends the problems, in Kubernetes' words.
pub(super) fn check(schema: &Value, value: &Value, problems: &mut Vec<Problem>) {
    let mut checker = Checker { problems };
    checker.value(schema, value, "", true);
}

struct Checker<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, path: &str, message: String) {
        self.problems.push(Problem::new(Reason::InvalidObject, path, message));
    }

    fn invalid(&mut self, path: &str, value: &Value, message: &str) {
        self.problem(path, format!("Invalid value: {value}: {message}"));
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str, root: bool) {
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            let list = allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
            self.problem(path, format!("Unsupported value: {value}: supported values: {list}"));
            return;
        }
        if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            match value {
                Value::String(text) => self.string(schema, value, text, path),
                Value::Number(number) if is_whole(number) => self.number(schema, value, path),
                _ => self.invalid(path, value, "must be an integer or a string"),
            }
            return;
        }
        match (schema.get("type").and_then(Value::as_str).unwrap_or_default(), value) {
            ("object", Value::Object(_)) => self.object(schema, value, path, root),
            ("array", Value::Array(_)) => self.array(schema, value, path),
            ("string", Value::String(text)) => self.string(schema, value, text, path),
            ("integer", Value::Number(number)) if is_whole(number) => self.number(schema, value, path),
            ("number", Value::Number(_)) => self.number(schema, value, path),
            ("boolean", Value::Bool(_)) | ("", _) => {}
            (expected, _) => self.invalid(path, value, &format!("must be of type {expected}")),
        }
    }

    fn object(&mut self, schema: &Value, value: &Value, path: &str, root: bool) {
        let Value::Object(fields) = value else { return };
        for required in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(required) {
                self.problem(&join(path, required), "Required value".to_owned());
            }
        }
        self.bounds(schema, fields.len(), "Properties", "properties", path, value);
        let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        for (name, field) in fields {
            let field_path = join(path, name);
            if root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            if let Some(inner) = schema.get("properties").and_then(|p| p.get(name)) {
                self.value(inner, field, &field_path, false);
            } else if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
                self.value(inner, field, &format!("{path}[{name}]"), false);
            } else if !open {
                let known = schema.get("properties").and_then(Value::as_object);
                let known = known
                    .map(|p| p.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
                    .unwrap_or_default();
                self.problems.push(
                    Problem::new(Reason::InvalidObject, field_path, "unknown field")
                        .with_remedy(format!("known here: {known}")),
                );
            }
        }
    }

    fn array(&mut self, schema: &Value, value: &Value, path: &str) {
        let Value::Array(items) = value else { return };
        self.bounds(schema, items.len(), "Items", "items", path, value);
        if let Some(inner) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.value(inner, item, &format!("{path}[{index}]"), false);
            }
        }
        let keys: Vec<&str> = schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let identity = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("map") => keys
                    .iter()
                    .map(|key| item.get(*key).unwrap_or(&Value::Null).to_string())
                    .collect::<Vec<_>>()
                    .join(","),
                Some("set") => item.to_string(),
                _ => break,
            };
            if !seen.insert(identity) {
                self.problem(&format!("{path}[{index}]"), format!("Duplicate value: {item}"));
            }
        }
    }

    fn string(&mut self, schema: &Value, value: &Value, text: &str, path: &str) {
        self.bounds(schema, text.chars().count(), "Length", "characters", path, value);
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            // The patterns are Legion's own. A test compiles every one of them.
            if Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text)) {
                self.invalid(path, value, &format!("must match {pattern}"));
            }
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &str) {
        let Some(number) = value.as_f64() else { return };
        if let Some(minimum) = schema
            .get("minimum")
            .and_then(Value::as_f64)
            .filter(|minimum| number < *minimum)
        {
            self.invalid(path, value, &format!("must be greater than or equal to {minimum}"));
        }
        if let Some(maximum) = schema
            .get("maximum")
            .and_then(Value::as_f64)
            .filter(|maximum| number > *maximum)
        {
            self.invalid(path, value, &format!("must be less than or equal to {maximum}"));
        }
    }

    fn bounds(&mut self, schema: &Value, size: usize, what: &str, words: &str, path: &str, value: &Value) {
        let bound = |side: &str| {
            schema
                .get(format!("{side}{what}"))
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok())
        };
        if bound("max").is_some_and(|max| size > max) {
            let max = bound("max").unwrap_or_default();
            self.problem(path, format!("Too long: {size} {words}, at most {max} are allowed"));
        }
        if bound("min").is_some_and(|min| size < min) {
            self.invalid(
                path,
                value,
                &format!("needs at least {} {words}", bound("min").unwrap_or_default()),
            );
        }
    }
}

/// Returns whether the API server accepts a number as an integer. It also accepts 2.0 and 2e9.
fn is_whole(number: &Number) -> bool {
    // Above this value a double cannot distinguish neighboring integers.
    let is_exact = |value: f64| value.fract() == 0.0 && value.abs() < 9.0e15;
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(is_exact)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
