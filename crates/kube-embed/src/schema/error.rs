//! Field errors with Kubernetes' messages.

use std::fmt;

use serde_json::{Value, json};

/// Machine-readable reason of a [`FieldError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldReason {
    /// A value that must be present is missing.
    Required,
    /// A malformed or out-of-range value.
    Invalid,
    /// A value of the wrong JSON type.
    TypeInvalid,
    /// A value outside a fixed list.
    NotSupported,
    /// A value that is well-formed but not allowed here.
    Forbidden,
    /// A reference to something that does not exist.
    NotFound,
    /// A value that must be unique but is not.
    Duplicate,
    /// A string that is too long.
    TooLong,
    /// A list or map with too many entries.
    TooMany,
    /// The server failed, not the user.
    Internal,
}

impl FieldReason {
    /// Returns the `reason` of a status cause.
    pub fn code(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// An error of one field. `Display` renders it as Kubernetes does: `spec.x: Invalid value: "y": must be ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path of the field, such as `spec.containers[0].name`. Empty for an error of the whole object.
    pub path: String,
    /// Machine-readable reason.
    pub reason: FieldReason,
    /// The invalid value. `None` if the rendering omits it.
    pub bad_value: Option<Value>,
    /// The problem and, if known, the fix.
    pub message: String,
}

impl FieldError {
    /// Creates an error with any reason.
    pub fn new(
        path: impl Into<String>,
        reason: FieldReason,
        bad_value: Option<Value>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            reason,
            bad_value,
            message: message.into(),
        }
    }

    /// Creates an error for a malformed value.
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, message: impl Into<String>) -> Self {
        Self::new(path, FieldReason::Invalid, Some(value.into()), message)
    }

    /// Creates an error for a value of the wrong type.
    pub fn type_invalid(path: impl Into<String>, value: impl Into<Value>, message: impl Into<String>) -> Self {
        Self::new(path, FieldReason::TypeInvalid, Some(value.into()), message)
    }

    /// Creates the error that is added if other errors prevent the evaluation of rules.
    pub fn not_all_checked() -> Self {
        Self::invalid(
            "",
            Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        )
    }

    /// Creates an error for a missing value.
    pub fn required(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(path, FieldReason::Required, None, message)
    }

    /// Creates an error for a value that is not allowed here.
    pub fn forbidden(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(path, FieldReason::Forbidden, None, message)
    }

    /// Creates an error for a repeated value.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(path, FieldReason::Duplicate, Some(value.into()), "")
    }

    /// Creates an error for a reference to a missing object.
    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(path, FieldReason::NotFound, Some(value.into()), "")
    }

    /// Creates an error for a value that is not one of `supported`.
    pub fn not_supported<S: AsRef<str>>(
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: impl IntoIterator<Item = S>,
    ) -> Self {
        let quoted: Vec<String> = supported.into_iter().map(|s| go_quote(s.as_ref())).collect();
        let message = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(path, FieldReason::NotSupported, Some(value.into()), message)
    }

    /// Creates an error for a string longer than `max` bytes.
    pub fn too_long(path: impl Into<String>, max: u64) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(
            path,
            FieldReason::TooLong,
            None,
            format!("may not be more than {max} {unit}"),
        )
    }

    /// Creates an error for a list or map with `actual` entries where at most `max` are allowed.
    pub fn too_many(path: impl Into<String>, actual: u64, max: u64) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(
            path,
            FieldReason::TooMany,
            Some(actual.into()),
            format!("must have at most {max} {unit}"),
        )
    }

    /// Returns the rendering without the path, as in a status cause.
    pub fn body(&self) -> String {
        let mut text = self.reason.words().to_owned();
        if let (true, Some(value)) = (self.reason.shows_value(), &self.bad_value) {
            text.push_str(": ");
            match value {
                Value::String(s) => text.push_str(&go_quote(s)),
                other => text.push_str(&other.to_string()),
            }
        }
        if !self.message.is_empty() {
            text.push_str(": ");
            text.push_str(&self.message);
        }
        text
    }

    /// Returns the `StatusCause` of this error.
    pub fn cause(&self) -> Value {
        json!({"reason": self.reason.code(), "message": self.body(), "field": self.shown_path()})
    }

    fn shown_path(&self) -> &str {
        // Upstream prints Go's nil path for errors without a single field.
        if self.path.is_empty() { "<nil>" } else { &self.path }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shown_path(), self.body())
    }
}

impl std::error::Error for FieldError {}

/// Joins errors as the API server does in the message of an `Invalid` status. A single error is bare. Several errors
/// are in brackets. Repeated renderings appear once.
pub(crate) fn aggregate(errors: &[FieldError]) -> String {
    let mut seen: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    match seen.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Quotes text like Go's `%q`, as far as Kubernetes messages need it.
pub(crate) fn go_quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_as_kubernetes_does() {
        let cases = [
            (
                FieldError::invalid("spec.x", "y", "must be z"),
                r#"spec.x: Invalid value: "y": must be z"#,
            ),
            (
                FieldError::invalid("spec.x", 3, "must be z"),
                "spec.x: Invalid value: 3: must be z",
            ),
            (
                FieldError::invalid("", Value::Null, "whole"),
                "<nil>: Invalid value: null: whole",
            ),
            (FieldError::required("spec.z", ""), "spec.z: Required value"),
            (
                FieldError::required("spec.z", "must be set"),
                "spec.z: Required value: must be set",
            ),
            (
                FieldError::not_supported("spec.e", "a", ["b", "c"]),
                r#"spec.e: Unsupported value: "a": supported values: "b", "c""#,
            ),
            (FieldError::too_long("m", 1), "m: Too long: may not be more than 1 byte"),
            (
                FieldError::too_many("m", 3, 2),
                "m: Too many: 3: must have at most 2 items",
            ),
            (
                FieldError::duplicate("l[1]", json!({"name": "a"})),
                r#"l[1]: Duplicate value: {"name":"a"}"#,
            ),
            (
                FieldError::forbidden("spec", "is immutable"),
                "spec: Forbidden: is immutable",
            ),
            (
                FieldError::new("spec", FieldReason::Invalid, None, "object rule"),
                "spec: Invalid value: object rule",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn aggregates_once_per_rendering() {
        let a = FieldError::required("a", "");
        let b = FieldError::required("b", "");
        assert_eq!(aggregate(std::slice::from_ref(&a)), "a: Required value");
        assert_eq!(aggregate(&[a.clone(), b, a]), "[a: Required value, b: Required value]");
    }

    #[test]
    fn cause_names_field_and_reason() {
        assert_eq!(
            FieldError::required("spec.z", "").cause(),
            json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.z"})
        );
    }

    #[test]
    fn quotes_like_go() {
        assert_eq!(go_quote("a\"b\\c\n\u{1}é"), r#""a\"b\\c\n\x01é""#);
    }
}
