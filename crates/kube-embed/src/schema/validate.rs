//! Structural validation: types, value restrictions, and the uniqueness of keyed lists.
//!
//! Messages and the order of checks are those of kube-openapi's validator, which the API server uses.

use serde_json::Value;

use super::correlation::Correlation;
use super::error::FieldError;
use super::formats::Format;
use super::node::{Additional, JsonType, ListKind, Node};
use super::path::Path;

/// Validates a value. With `old`, unchanged parts are not validated again (ratcheting). An object that was stored
/// under an older schema can still be edited in other places.
pub(crate) fn validate(value: &Value, old: Option<&Value>, root: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(value, old, root, &Path::ROOT, true, &mut errors);
    errors
}

/// Returns the duplicates in list-sets and list-maps.
pub(crate) fn keyed_lists(value: &Value, root: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    lists(value, root, &Path::ROOT, &mut errors);
    errors
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value
        .as_f64()
        .is_some_and(|f| f.is_finite() && f.fract() == 0.0 && f.abs() < 9.0e15)
}

fn has_type(value: &Value, kind: JsonType) -> bool {
    match kind {
        JsonType::Object => value.is_object(),
        JsonType::Array => value.is_array(),
        JsonType::String => value.is_string(),
        JsonType::Boolean => value.is_boolean(),
        JsonType::Number => value.is_number(),
        JsonType::Integer => value.is_i64() || value.is_u64() || is_whole(value),
    }
}

/// `structural` is false below logical junctors. Their schemas restrict values without defining types.
fn walk(
    value: &Value,
    old: Option<&Value>,
    node: &Node,
    at: &Path<'_>,
    structural: bool,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) && !at.is_root() {
        return;
    }
    if !type_matches(value, node, at, errors) {
        return;
    }
    if value.is_null() {
        enumeration(value, node, at, errors);
        return;
    }
    junctors(value, old, node, at, structural, errors);
    match value {
        Value::String(s) => string(s, node, at, errors),
        Value::Number(_) => number(value, node, at, errors),
        Value::Array(items) => array(items, old, node, at, structural, errors),
        _ => {}
    }
    enumeration(value, node, at, errors);
    if let Value::Object(map) = value {
        object(map, old, node, at, structural, errors);
    }
}

fn type_matches(value: &Value, node: &Node, at: &Path<'_>, errors: &mut Vec<FieldError>) -> bool {
    let wanted = if node.int_or_string {
        if value.is_string() || has_type(value, JsonType::Integer) {
            return true;
        }
        "integer,string"
    } else {
        let Some(kind) = node.kind else { return true };
        if has_type(value, kind) {
            return true;
        }
        kind.name()
    };
    if value.is_null() && node.nullable {
        return true;
    }
    let got = json_type(value);
    errors.push(FieldError::type_invalid(
        at,
        got,
        format!("{at} in body must be of type {wanted}: \"{got}\""),
    ));
    false
}

fn enumeration(value: &Value, node: &Node, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(allowed) = &node.checks.enumeration else {
        return;
    };
    let equal = |a: &Value| a == value || (a.is_number() && value.is_number() && a.as_f64() == value.as_f64());
    if !allowed.iter().any(equal) {
        let words: Vec<String> = allowed
            .iter()
            .map(|v| match v {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            })
            .collect();
        errors.push(FieldError::not_supported(at, value.clone(), words));
    }
}

fn string(s: &str, node: &Node, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let checks = &node.checks;
    let length = || s.chars().count() as u64;
    if let Some(max) = checks.max_length.filter(|max| length() > *max) {
        errors.push(FieldError::too_long(at, max));
    } else if let Some(min) = checks.min_length.filter(|min| length() < *min) {
        errors.push(FieldError::invalid(
            at,
            s,
            format!("{at} in body should be at least {min} chars long"),
        ));
    } else if let Some(pattern) = checks.pattern.as_ref().filter(|p| !p.regex.is_match(s)) {
        errors.push(FieldError::invalid(
            at,
            s,
            format!("{at} in body should match '{}'", pattern.source),
        ));
    }
    if let Some(format) = checks.format.filter(|f| !f.accepts(s)) {
        let message = format!(
            "{at} in body must be of type {}: {}",
            format.name(),
            super::error::go_quote(s)
        );
        errors.push(FieldError::type_invalid(at, s, message));
    }
}

fn number(value: &Value, node: &Node, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let checks = &node.checks;
    let Some(number) = value.as_f64() else { return };
    let out_of_range = match (node.kind, checks.format) {
        (Some(JsonType::Integer), Some(Format::Int32)) => i32::try_from(number as i64).is_err(),
        (Some(JsonType::Integer), _) => value.as_u64().is_some_and(|u| i64::try_from(u).is_err()),
        (Some(JsonType::Number), Some(Format::Float)) => number.abs() > f64::from(f32::MAX),
        _ => false,
    };
    if out_of_range {
        let kind = node.kind.map_or("number", JsonType::name);
        let format = match checks.format {
            Some(format) => format!("with format {}", format.name()),
            None => "(default format)".to_owned(),
        };
        errors.push(FieldError::invalid(
            "",
            "",
            format!("Checked value must be of type {kind} {format} in {at}"),
        ));
    }
    if let Some(factor) = checks.multiple_of {
        let quotient = if factor < 1.0 {
            1.0 / factor * number
        } else {
            number / factor
        };
        if factor <= 0.0 {
            let message = format!("factor MultipleOf declared for {at} must be positive: {factor}");
            errors.push(FieldError::invalid(at, factor, message));
        } else if (quotient - quotient.round()).abs() > 1e-9 {
            errors.push(FieldError::invalid(
                at,
                value.clone(),
                format!("{at} in body should be a multiple of {factor}"),
            ));
        }
    }
    if let Some(min) = checks.minimum {
        let (fails, words) = if checks.exclusive_minimum {
            (number <= min, "should be greater than")
        } else {
            (number < min, "should be greater than or equal to")
        };
        if fails {
            errors.push(FieldError::invalid(
                at,
                value.clone(),
                format!("{at} in body {words} {min}"),
            ));
        }
    }
    if let Some(max) = checks.maximum {
        let (fails, words) = if checks.exclusive_maximum {
            (number >= max, "should be less than")
        } else {
            (number > max, "should be less than or equal to")
        };
        if fails {
            errors.push(FieldError::invalid(
                at,
                value.clone(),
                format!("{at} in body {words} {max}"),
            ));
        }
    }
}

fn array(
    items: &[Value],
    old: Option<&Value>,
    node: &Node,
    at: &Path<'_>,
    structural: bool,
    errors: &mut Vec<FieldError>,
) {
    if let Some(schema) = &node.items {
        let correlation = Correlation::new(old, node);
        for (i, item) in items.iter().enumerate() {
            walk(
                item,
                correlation.find(i, item),
                schema,
                &at.index(i),
                structural,
                errors,
            );
        }
    }
    let (size, checks) = (items.len() as u64, &node.checks);
    if let Some(min) = checks.min_items.filter(|min| size < *min) {
        errors.push(FieldError::invalid(
            at,
            size,
            format!("{at} in body should have at least {min} items"),
        ));
    }
    if let Some(max) = checks.max_items.filter(|max| size > *max) {
        errors.push(FieldError::too_many(at, size, max));
    }
    if checks.unique_items && items.iter().enumerate().any(|(i, item)| items[..i].contains(item)) {
        errors.push(FieldError::invalid(
            at,
            "",
            format!("{at} in body shouldn't contain duplicates"),
        ));
    }
}

fn object(
    map: &serde_json::Map<String, Value>,
    old: Option<&Value>,
    node: &Node,
    at: &Path<'_>,
    structural: bool,
    errors: &mut Vec<FieldError>,
) {
    let (size, checks) = (map.len() as u64, &node.checks);
    if let Some(min) = checks.min_properties.filter(|min| size < *min) {
        errors.push(FieldError::invalid(
            at,
            size,
            format!("{at} in body should have at least {min} properties"),
        ));
    }
    if let Some(max) = checks.max_properties.filter(|max| size > *max) {
        errors.push(FieldError::too_many(at, size, max));
    }
    for (key, child) in map {
        let schema = match (node.properties.get(key), &node.additional) {
            (Some(property), _) => property,
            (None, Additional::Schema(schema)) => schema,
            _ => continue,
        };
        walk(
            child,
            old.and_then(|o| o.get(key)),
            schema,
            &at.field(key),
            structural,
            errors,
        );
    }
    for name in checks.required.iter().filter(|name| !map.contains_key(*name)) {
        errors.push(FieldError::required(at.field(name), ""));
    }
}

fn junctors(
    value: &Value,
    old: Option<&Value>,
    node: &Node,
    at: &Path<'_>,
    structural: bool,
    errors: &mut Vec<FieldError>,
) {
    let checks = &node.checks;
    if checks.all_of.is_empty() && checks.any_of.is_empty() && checks.one_of.is_empty() && checks.not.is_none() {
        return;
    }
    let attempt = |branch: &Node| {
        let mut found = Vec::new();
        walk(value, old.filter(|o| *o != value), branch, at, false, &mut found);
        found
    };
    // Upstream reports a failed junctor for the whole object, then the errors of the closest branch.
    let mut whole = |message: String| errors.push(FieldError::invalid("", "", message));
    // The `anyOf` of an int-or-string can be ignored, because its type was already checked.
    if !(checks.any_of.is_empty() || (structural && node.int_or_string && names_its_types(&checks.any_of))) {
        let failures: Vec<_> = checks.any_of.iter().map(|b| attempt(b)).collect();
        if !failures.iter().any(Vec::is_empty) {
            whole(format!("\"{at}\" must validate at least one schema (anyOf)"));
            errors.extend(closest(failures));
        }
    }
    let mut whole = |message: String| errors.push(FieldError::invalid("", "", message));
    if !checks.one_of.is_empty() {
        let failures: Vec<_> = checks.one_of.iter().map(|b| attempt(b)).collect();
        match failures.iter().filter(|f| f.is_empty()).count() {
            1 => {}
            0 => {
                whole(format!(
                    "\"{at}\" must validate one and only one schema (oneOf). Found none valid"
                ));
                errors.extend(closest(failures));
            }
            n => whole(format!(
                "\"{at}\" must validate one and only one schema (oneOf). Found {n} valid alternatives"
            )),
        }
    }
    if !checks.all_of.is_empty() {
        let failures: Vec<_> = checks.all_of.iter().map(|b| attempt(b)).collect();
        let failed = failures.iter().filter(|f| !f.is_empty()).count();
        if failed > 0 {
            let none = if failed == failures.len() {
                ". None validated"
            } else {
                ""
            };
            errors.extend(failures.into_iter().flatten());
            errors.push(FieldError::invalid(
                "",
                "",
                format!("\"{at}\" must validate all the schemas (allOf){none}"),
            ));
        }
    }
    if let Some(not) = &checks.not
        && attempt(not).is_empty()
    {
        errors.push(FieldError::invalid(
            "",
            "",
            format!("\"{at}\" must not validate the schema (not)"),
        ));
    }
}

fn names_its_types(any_of: &[std::sync::Arc<Node>]) -> bool {
    any_of
        .iter()
        .all(|n| matches!(n.kind, Some(JsonType::Integer | JsonType::String)))
}

fn closest(failures: Vec<Vec<FieldError>>) -> Vec<FieldError> {
    failures.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

fn lists(value: &Value, node: &Node, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !node.has_keyed_lists {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                if let Some(property) = node.properties.get(key) {
                    lists(child, property, &at.field(key), errors);
                } else if let Additional::Schema(schema) = &node.additional {
                    lists(child, schema, &at.key(key), errors);
                }
            }
        }
        Value::Array(items) => {
            match &node.list {
                ListKind::Atomic => {}
                ListKind::Set => duplicates(items, at, errors),
                ListKind::Map(keys) => duplicate_keys(items, keys, at, errors),
            }
            if let Some(schema) = &node.items {
                for (i, item) in items.iter().enumerate() {
                    lists(item, schema, &at.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

fn duplicates(items: &[Value], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, item) in items.iter().enumerate() {
        // The second of several equal items is reported, not the third.
        if items[..i].iter().filter(|other| *other == item).count() == 1 {
            errors.push(FieldError::duplicate(at.index(i), item.clone()));
        }
    }
}

fn duplicate_keys(items: &[Value], keys: &[String], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(i) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        errors.push(FieldError::invalid(
            at.index(i),
            items[i].clone(),
            "must be an object for an array of list-type map",
        ));
        return;
    }
    let identities: Vec<Value> = items
        .iter()
        .map(|item| {
            keys.iter()
                .filter_map(|key| item.get(key).map(|v| (key.clone(), v.clone())))
                .collect::<Value>()
        })
        .collect();
    duplicates(&identities, at, errors);
}
