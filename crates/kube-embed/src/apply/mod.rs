//! Server-side apply and managedFields.

use jiff::Timestamp;
use serde_json::Value;

use crate::status::Cause;

pub use crate::schema::TypeInfo;

/// Fields that the applied object sets and other managers own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    /// The message of the Status.
    pub message: String,
    /// One cause for each field.
    pub causes: Vec<Cause>,
}

/// Merges `applied` into `live` for `manager`.
pub fn server_side_apply(
    live: Option<&Value>,
    applied: &Value,
    _manager: &str,
    _force: bool,
    _subresource: &str,
    _types: &TypeInfo,
    _now: Timestamp,
) -> Result<Value, Conflicts> {
    let mut out = live.cloned().unwrap_or(Value::Null);
    json_patch::merge(&mut out, applied);
    Ok(out)
}

/// Which verb changed an object, as `managedFields[].operation` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

/// Records in `new.metadata.managedFields` what a create, update or patch changed.
pub fn track_update(
    _old: Option<&Value>,
    _new: &mut Value,
    _manager: &str,
    _subresource: &str,
    _types: &TypeInfo,
    _now: Timestamp,
) {
}
