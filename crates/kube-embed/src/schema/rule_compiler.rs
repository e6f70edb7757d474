//! Compiles the rules of `x-kubernetes-validations`.

use serde_json::Value;

use super::error::{FieldError, FieldReason};
use super::field_names::normal_field_path;
use super::node::Node;
use super::rule::{self, Rule};
use super::scope;
use super::types::Type;

/// Parses a rule of a schema node and checks its types. Errors are reported below the path `at`.
pub(super) fn compile(raw: &Value, node: &Node, at: &str) -> Result<Rule, FieldError> {
    let text = |name: &str| raw.get(name).and_then(Value::as_str).filter(|s| !s.trim().is_empty());
    let optional_old_self = raw.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
    let refused = |field: &str, why: String| FieldError::invalid(format!("{at}.{field}"), raw.clone(), why);
    let checked = |source: &str, gives: &'static str| {
        let expression = rule::parse(source).map_err(|e| format!("compilation failed: {e}"))?;
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
    Ok(Rule {
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
