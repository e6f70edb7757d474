//! Built-in kinds: unknown fields, defaults, and validation with the API server's messages.

mod defaults;
pub(crate) mod definitions;
mod metadata;
mod pod;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
mod validation;

use serde_json::Value;

use self::definitions::find;
pub(crate) use self::metadata::{label_key, label_value, validate_object_meta};
use super::error::FieldError;
use super::typeinfo::TypeInfo;

/// Group, version and kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gvk<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Kind in CamelCase.
    pub kind: &'a str,
}

impl<'a> Gvk<'a> {
    /// Creates a value from its three parts.
    pub(crate) fn new(group: &'a str, version: &'a str, kind: &'a str) -> Self {
        Self { group, version, kind }
    }
}

/// Returns whether a kind is built in.
pub(crate) fn knows(gvk: Gvk<'_>) -> bool {
    find(gvk.group, gvk.version, gvk.kind).is_some()
}

/// Returns the merge information of a built-in kind, or `None` for any other kind.
pub(crate) fn types(gvk: Gvk<'_>) -> Option<TypeInfo> {
    find(gvk.group, gvk.version, gvk.kind).map(|b| TypeInfo::new(b.node.clone()))
}

/// Removes unknown fields and returns their paths. Objects of an unknown kind are unchanged.
pub(crate) fn prune(gvk: Gvk<'_>, object: &mut Value) -> Vec<String> {
    find(gvk.group, gvk.version, gvk.kind)
        .map(|b| super::prune::prune(object, &b.node))
        .unwrap_or_default()
}

/// Removes nulls and fills in the defaults of a built-in kind.
pub(crate) fn default(gvk: Gvk<'_>, object: &mut Value) {
    let Some(builtin) = find(gvk.group, gvk.version, gvk.kind) else {
        return;
    };
    defaults::normalise(gvk, object);
    super::default::default(object, &builtin.node);
    defaults::derive(gvk, object);
}

/// Returns decoding errors: values of the wrong JSON type. The API server answers these with 400.
pub(crate) fn check_types(gvk: Gvk<'_>, object: &Value) -> Vec<FieldError> {
    let Some(builtin) = find(gvk.group, gvk.version, gvk.kind) else {
        return Vec::new();
    };
    let mut errors = super::validate::validate(object, None, &builtin.node);
    // The published schemas mark fields as required that the decoder accepts as missing. `validate` checks the fields
    // that are really required and has its own messages for them.
    errors.retain(|e| e.reason == super::FieldReason::TypeInvalid);
    errors
}

/// Validates an object on creation (`old` is `None`) or update. Generated names must be set before.
pub(crate) fn validate(gvk: Gvk<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = check_types(gvk, new);
    if errors.is_empty() {
        errors.extend(validation::validate(gvk, new, old));
    }
    errors
}
