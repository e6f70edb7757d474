//! `x-kubernetes-validations`: rules in Kubernetes' dialect of CEL.
//!
//! Expressions are parsed once per schema by the `cel` crate with Kubernetes' extension functions
//! from `kube-cel`. When a custom resource is defined, rules are type-checked against the schema (`scope`); there is no
//! cost budget; a rule that goes wrong at run time refuses the object, as upstream does.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{Key, Map as CelMap, OptionalValue};
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{Context, ExecutionError, Value as Cel};
use serde_json::Value;

use super::error::{FieldError, FieldReason};
use super::formats::{Format, date_time, go_duration};
use super::node::{Additional, JsonType, Node};
use super::path::Path;
use super::scope;
use super::types::Type;
use super::validate::Correlation;

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    source: String,
    expression: Expression,
    message: Option<String>,
    message_expression: Option<Expression>,
    reason: FieldReason,
    field_path: Option<String>,
    optional_old_self: bool,
    uses_old_self: bool,
}

impl Rule {
    /// Parses a rule of a schema node and checks its names; `at` is the path of the rule for errors.
    pub(crate) fn compile(raw: &Value, node: &Node, at: &str) -> Result<Self, FieldError> {
        let text = |name: &str| raw.get(name).and_then(Value::as_str).filter(|s| !s.trim().is_empty());
        let optional_old_self = raw.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
        let refused = |field: &str, why: String| FieldError::invalid(format!("{at}.{field}"), raw.clone(), why);
        let checked = |source: &str, gives: &'static str| {
            let expression = parse(source).map_err(|e| format!("compilation failed: {e}"))?;
            let found =
                scope::check(&expression, node, optional_old_self).map_err(|e| format!("compilation failed: {e}"))?;
            if found.join(&Type::Simple(gives)).is_some() {
                Ok(expression)
            } else {
                Err(format!("must evaluate to a {gives}"))
            }
        };
        let source = text("rule").unwrap_or("true").trim().to_owned();
        let expression = checked(&source, "bool").map_err(|e| {
            let subject = if e.starts_with("must") { "cel expression " } else { "" };
            refused("rule", format!("{subject}{e}"))
        })?;
        if raw
            .get("messageExpression")
            .and_then(Value::as_str)
            .is_some_and(|m| !m.is_empty() && m.trim().is_empty())
        {
            let rule = "messageExpression must be non-empty if specified";
            return Err(FieldError::required(format!("{at}.messageExpression"), rule));
        }
        let message_expression = text("messageExpression")
            .map(|m| checked(m, "string").map_err(|e| refused("messageExpression", format!("messageExpression {e}"))))
            .transpose()?;
        let uses_old_self = expression.references().has_variable("oldSelf");
        if raw.get("optionalOldSelf").is_some_and(Value::is_boolean) && !uses_old_self {
            return Err(FieldError::invalid(
                format!("{at}.optionalOldSelf"),
                optional_old_self,
                "may not be set if oldSelf is not used in rule",
            ));
        }
        Ok(Self {
            message: text("message").map(|m| m.trim().to_owned()),
            message_expression,
            reason: match text("reason") {
                Some("FieldValueForbidden") => FieldReason::Forbidden,
                Some("FieldValueRequired") => FieldReason::Required,
                Some("FieldValueDuplicate") => FieldReason::Duplicate,
                _ => FieldReason::Invalid,
            },
            field_path: text("fieldPath").and_then(normal_field_path),
            optional_old_self,
            uses_old_self,
            expression,
            source,
        })
    }
}

fn parse(source: &str) -> Result<Expression, String> {
    Parser::new()
        .enable_optional_syntax(true)
        .parse(source)
        .map_err(|e| e.to_string().trim().replace('\n', " "))
}

thread_local! {
    /// Registering the functions costs more than evaluating a rule, hence once per thread.
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
            // Ratcheting: what did not change is not held against an update.
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
                // Upstream falls back to the static message for an unusable dynamic one.
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
            // A `number` is a double even when it is written without a fraction.
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
            // Keys of maps are data; names of fields are escaped, and unknown fields are invisible.
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
        // CEL's own conversion, so that a field and a literal in a rule mean the same.
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

const RESERVED: [&str; 18] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// A field's name as a CEL identifier.
pub(super) fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// `.a.b` and `.a['b']` as the text that follows a path.
fn normal_field_path(path: &str) -> Option<String> {
    let mut out = String::new();
    for segment in field_path_segments(path)? {
        out.push('.');
        out.push_str(&segment);
    }
    Some(out)
}

/// Whether a rule's `fieldPath` names a field of the schema.
pub(crate) fn field_path_exists(schema: &Value, path: &str) -> bool {
    let Some(segments) = field_path_segments(path) else {
        return false;
    };
    let mut current = schema;
    for segment in segments {
        current = match current.get("properties") {
            Some(properties) => match properties.get(&segment) {
                Some(next) => next,
                None => return false,
            },
            None => match current.get("additionalProperties").filter(|a| a.is_object()) {
                Some(next) => next,
                None => return false,
            },
        };
    }
    true
}

fn field_path_segments(path: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    let mut rest = path.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']")?;
            segments.push(after[..end].replace("\\'", "'"));
            rest = &after[end + 2..];
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return None;
            }
            segments.push(after[..end].to_owned());
            rest = &after[end..];
        }
    }
    (!segments.is_empty()).then_some(segments)
}
