//! Evaluation of `x-kubernetes-validations`, rules in Kubernetes' dialect of CEL.
//!
//! The `cel` crate parses each expression once per schema. `kube-cel` adds Kubernetes' extension functions. Rules are
//! type-checked against the schema when a custom resource is defined (see `scope`). There is no cost budget. A rule
//! that fails at run time refuses the object, as it does upstream.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{Key, Map as CelMap, OptionalValue};
use kube_cel::cel::{Context, ExecutionError, Value as Cel};
use serde_json::Value;

use super::correlation::Correlation;
use super::error::FieldError;
use super::field_names::escape;
use super::formats::{Format, date_time, go_duration};
use super::node::{Additional, JsonType, Node};
use super::path::Path;
use super::rule::{Rule, parse};

thread_local! {
    /// Registering the functions costs more than evaluating a rule, so it is done once per thread.
    static FUNCTIONS: Context<'static> = Context::default().with_all();
}

/// Evaluates all rules of a schema.
pub(crate) fn validate(value: &Value, old: Option<&Value>, root: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if root.has_rules {
        FUNCTIONS.with(|functions| walk(value, old, root, &Path::ROOT, functions, &mut errors));
    }
    errors
}

fn walk(
    value: &Value,
    old: Option<&Value>,
    node: &Node,
    at: &Path<'_>,
    functions: &Context<'_>,
    errors: &mut Vec<FieldError>,
) {
    if !node.has_rules || value.is_null() {
        return;
    }
    let old = old.filter(|o| !o.is_null());
    if !node.rules.is_empty() {
        evaluate(value, old, node, at, functions, errors);
    }
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                let before = old.and_then(|o| o.get(key));
                if let Some(property) = node.properties.get(key) {
                    walk(child, before, property, &at.field(key), functions, errors);
                } else if let Additional::Schema(schema) = &node.additional {
                    walk(child, before, schema, &at.key(key), functions, errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &node.items else { return };
            let correlation = Correlation::new(old, node);
            for (i, item) in items.iter().enumerate() {
                walk(
                    item,
                    correlation.find_keyed(item),
                    schema,
                    &at.index(i),
                    functions,
                    errors,
                );
            }
        }
        _ => {}
    }
}

fn evaluate(
    value: &Value,
    old: Option<&Value>,
    node: &Node,
    at: &Path<'_>,
    functions: &Context<'_>,
    errors: &mut Vec<FieldError>,
) {
    let this = to_cel(value, Some(node), functions);
    let before = old.map(|o| to_cel(o, Some(node), functions));
    let unchanged = old == Some(value);
    for rule in &node.rules {
        if rule.uses_old_self && before.is_none() && !rule.optional_old_self {
            continue;
        }
        let mut context = functions.new_inner_scope();
        context.add_variable_from_value("self", this.clone());
        if rule.optional_old_self {
            let optional = before.clone().map_or_else(OptionalValue::none, OptionalValue::of);
            context.add_variable_from_value("oldSelf", Cel::Opaque(Arc::new(optional)));
        } else if let Some(before) = &before {
            context.add_variable_from_value("oldSelf", before.clone());
        }
        match Cel::resolve(&rule.expression, &context) {
            Ok(Cel::Bool(true)) => {}
            // Ratcheting: an update is not refused because of a value that it does not change.
            Ok(Cel::Bool(false)) if unchanged && !rule.uses_old_self => {}
            Ok(Cel::Bool(false)) => errors.push(failure(rule, value, node, at, &context)),
            Ok(other) => errors.push(broken(
                node,
                at,
                format!(
                    "rule evaluated to a {} instead of a bool: {}",
                    other.type_of(),
                    rule.source
                ),
            )),
            Err(error) => errors.push(broken(node, at, evaluation_message(&error, &rule.source))),
        }
    }
}

fn failure(rule: &Rule, value: &Value, node: &Node, at: &Path<'_>, context: &Context<'_>) -> FieldError {
    let dynamic = rule.message_expression.as_ref().and_then(|expression| {
        match Cel::resolve(expression, context) {
            Ok(Cel::String(text)) => {
                let text = text.trim();
                // Upstream falls back to the static message if the dynamic one is unusable.
                (!text.is_empty() && !text.contains('\n') && text.len() <= 5 * 1024).then(|| text.to_owned())
            }
            _ => None,
        }
    });
    let message = dynamic
        .or_else(|| rule.message.clone())
        .unwrap_or_else(|| format!("failed rule: {}", rule.source));
    let path = match &rule.field_path {
        Some(below) if at.is_root() => below.trim_start_matches('.').to_owned(),
        Some(below) => format!("{at}{below}"),
        None => at.to_string(),
    };
    let shown = match node.kind {
        Some(JsonType::Object | JsonType::Array) => None,
        _ => Some(value.clone()),
    };
    FieldError::new(path, rule.reason, shown, message)
}

fn broken(node: &Node, at: &Path<'_>, message: String) -> FieldError {
    FieldError::invalid(at, node.kind.map_or("", JsonType::name), message)
}

fn evaluation_message(error: &ExecutionError, rule: &str) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key} evaluating rule: {rule}"),
        ExecutionError::NoSuchOverload => format!(
            "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
        ),
        ExecutionError::UndeclaredReference(name) => {
            format!("undeclared reference to '{name}' evaluating rule: {rule}")
        }
        ExecutionError::IndexOutOfBounds(_) => format!("index out of bounds evaluating rule: {rule}"),
        ExecutionError::DivisionByZero(_) => format!("division by zero evaluating rule: {rule}"),
        ExecutionError::RemainderByZero(_) => format!("modulus by zero evaluating rule: {rule}"),
        ExecutionError::Overflow(..) => format!("integer overflow evaluating rule: {rule}"),
        other => format!("{other} evaluating rule: {rule}"),
    }
}

fn to_cel(value: &Value, node: Option<&Node>, functions: &Context<'_>) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => {
            // A `number` is a double, even if it is written without a fraction.
            let double = node.is_some_and(|s| s.kind == Some(JsonType::Number));
            match n.as_i64() {
                Some(i) if !double => Cel::Int(i),
                _ if !double && node.is_some_and(|s| s.kind == Some(JsonType::Integer)) => {
                    Cel::Int(n.as_f64().unwrap_or_default() as i64)
                }
                _ => Cel::Float(n.as_f64().unwrap_or(f64::NAN)),
            }
        }
        Value::String(s) => string_to_cel(s, node, functions),
        Value::Array(items) => {
            let schema = node.and_then(|n| n.items.as_deref());
            Cel::List(Arc::new(
                items.iter().map(|item| to_cel(item, schema, functions)).collect(),
            ))
        }
        Value::Object(map) => {
            // Keys of maps are data. Field names are escaped, and unknown fields are invisible.
            let is_map = node.is_some_and(|n| !matches!(n.additional, Additional::Absent));
            let mut out = HashMap::with_capacity(map.len());
            for (key, child) in map {
                let schema = node.and_then(|n| n.child(key)).map(AsRef::as_ref);
                let hidden = match node {
                    Some(n) if n.object_meta => key != "name" && key != "generateName",
                    Some(n) if !is_map && !n.properties.is_empty() => schema.is_none(),
                    _ => false,
                };
                if hidden || (child.is_null() && schema.is_some_and(|s| !s.nullable)) {
                    continue;
                }
                let name = if is_map { key.clone() } else { escape(key) };
                out.insert(Key::String(Arc::new(name)), to_cel(child, schema, functions));
            }
            Cel::Map(CelMap { map: Arc::new(out) })
        }
    }
}

fn string_to_cel(s: &str, node: Option<&Node>, functions: &Context<'_>) -> Cel {
    let text = || Cel::String(Arc::new(s.to_owned()));
    let format = node.filter(|n| !n.int_or_string).and_then(|n| n.checks.format);
    let convert = |function: &str| {
        // CEL's own conversion is used, so a field and a literal in a rule have the same meaning.
        let mut context = functions.new_inner_scope();
        context.add_variable_from_value("text", text());
        parse(&format!("{function}(text)"))
            .ok()
            .and_then(|e| Cel::resolve(&e, &context).ok())
            .unwrap_or_else(text)
    };
    match format {
        Some(Format::DateTime) if date_time(s) => convert("timestamp"),
        Some(Format::Date) => convert_date(s, &convert, &text, functions),
        Some(Format::Duration) if go_duration(s) => convert("duration"),
        Some(Format::Byte) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD
                .decode(s)
                .map_or_else(|_| text(), |b| Cel::Bytes(Arc::new(b)))
        }
        _ => text(),
    }
}

fn convert_date(s: &str, convert: &dyn Fn(&str) -> Cel, text: &dyn Fn() -> Cel, functions: &Context<'_>) -> Cel {
    if s.len() != 10 {
        return convert("timestamp");
    }
    let mut context = functions.new_inner_scope();
    context.add_variable_from_value("day", Cel::String(Arc::new(format!("{s}T00:00:00Z"))));
    parse("timestamp(day)")
        .ok()
        .and_then(|e| Cel::resolve(&e, &context).ok())
        .unwrap_or_else(text)
}
