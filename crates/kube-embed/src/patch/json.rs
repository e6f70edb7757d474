//! JSON patch (RFC 6902).

use json_patch::{PatchErrorKind, PatchOperation, TestOperation};
use serde_json::Value;

use super::PatchError;

/// Applies a JSON patch.
///
/// As the API server's library does, `test` takes a missing value for `null`: controllers use that to
/// say "there are no finalizers yet".
pub fn json(target: &Value, operations: &Value) -> Result<Value, PatchError> {
    let operations: Vec<PatchOperation> = serde_json::from_value(operations.clone())
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    let mut patched = target.clone();
    for operation in &operations {
        if let PatchOperation::Test(TestOperation {
            path,
            value: Value::Null,
        }) = operation
            && path.resolve(&patched).is_err()
        {
            continue;
        }
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation))
            .map_err(|e| describe(operation, &e.kind))?;
    }
    Ok(patched)
}

fn describe(operation: &PatchOperation, kind: &PatchErrorKind) -> PatchError {
    let (name, path) = match operation {
        PatchOperation::Add(o) => ("add", o.path.to_string()),
        PatchOperation::Remove(o) => ("remove", o.path.to_string()),
        PatchOperation::Replace(o) => ("replace", o.path.to_string()),
        PatchOperation::Move(o) => ("move", o.from.to_string()),
        PatchOperation::Copy(o) => ("copy", o.from.to_string()),
        PatchOperation::Test(o) => return PatchError::Unprocessable(format!("testing value {} failed", o.path)),
    };
    PatchError::Unprocessable(match kind {
        PatchErrorKind::InvalidPointer | PatchErrorKind::InvalidFromPointer => {
            format!("{name} operation does not apply: doc is missing path: {path}: missing value")
        }
        other => format!("{name} operation does not apply: {path}: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn applies_in_order() {
        let object = value!({"a": [1, 2], "b": {"c": 1}});
        let ops = value!([
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "remove", "path": "/a/0"},
            {"op": "move", "from": "/b/c", "path": "/d"},
            {"op": "copy", "from": "/d", "path": "/e~1f"},
            {"op": "test", "path": "/d", "value": 1},
            {"op": "replace", "path": "/b", "value": null},
        ]);
        assert_eq!(
            json(&object, &ops).unwrap(),
            value!({"a": [2, 3], "b": null, "d": 1, "e/f": 1})
        );
    }

    /// The first operation of kube's `finalizer()`.
    #[test]
    fn test_for_null_accepts_a_missing_value() {
        let object = value!({"metadata": {"name": "a"}});
        let ops = value!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a/b"]},
        ]);
        let object = json(&object, &ops).unwrap();
        assert_eq!(object["metadata"]["finalizers"], value!(["a/b"]));
        let error = json(&object, &ops).unwrap_err();
        assert_eq!(
            error,
            PatchError::Unprocessable("testing value /metadata/finalizers failed".into())
        );
    }

    #[test]
    fn a_failing_operation_is_named() {
        let object = value!({"a": 1});
        let ops = value!([{"op": "add", "path": "/b", "value": 2}, {"op": "remove", "path": "/missing"}]);
        let error = json(&object, &ops).unwrap_err();
        assert_eq!(error.status(), 422);
        assert_eq!(
            error.to_string(),
            "remove operation does not apply: doc is missing path: /missing: missing value"
        );
    }

    #[test]
    fn nonsense_is_malformed() {
        for ops in [
            value!({"op": "add"}),
            value!([{"op": "jump", "path": "/a"}]),
            value!([{"op": "add", "path": "/a"}]),
        ] {
            assert_eq!(json(&value!({}), &ops).unwrap_err().status(), 400, "{ops}");
        }
    }
}
