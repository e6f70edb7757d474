//! Compiled CEL rules as plain data, and the parser of their expressions.

use kube_cel::cel::parser::{Expression, Parser};

use super::error::FieldReason;

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(super) source: String,
    pub(super) expression: Expression,
    pub(super) message: Option<String>,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: FieldReason,
    pub(super) field_path: Option<String>,
    pub(super) optional_old_self: bool,
    pub(super) uses_old_self: bool,
}

/// Parses an expression. The error is a single line.
pub(super) fn parse(source: &str) -> Result<Expression, String> {
    Parser::new()
        .enable_optional_syntax(true)
        .parse(source)
        .map_err(|e| e.to_string().trim().replace('\n', " "))
}
