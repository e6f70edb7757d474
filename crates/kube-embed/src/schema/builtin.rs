//! The useful subset of the rules for built-in kinds.

use serde_json::Value;

use super::{FieldError, Gvk};

/// Removes unknown fields and returns their paths.
pub fn prune(_gvk: Gvk<'_>, _object: &mut Value) -> Vec<String> {
    Vec::new()
}

/// Fills in defaults.
pub fn default(_gvk: Gvk<'_>, _object: &mut Value) {}

/// Checks an object; with `old`, immutability too.
pub fn validate(_gvk: Gvk<'_>, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
