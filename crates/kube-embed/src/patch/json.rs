//! JSON patch (RFC 6902).

use json_patch::jsonptr::Pointer;
use json_patch::{AddOperation, PatchOperation, TestOperation};
use serde_json::Value;

use super::PatchError;

/// Applies a JSON patch.
///
/// Two rules follow the API server's library. `test` treats a missing value as `null`, which controllers use for
/// "there are no finalizers yet". `replace` adds a field that an object does not have.
pub(crate) fn json(target: &Value, operations: &Value) -> Result<Value, PatchError> {
    let Value::Array(list) = operations else {
        return Err(PatchError::Malformed(
            "error decoding patch: it must be a list of operations".into(),
        ));
    };
    let operations: Vec<PatchOperation> = list
        .iter()
        .map(|operation| serde_json::from_value(operation.clone()).map_err(|_| PatchError::Unprocessable))
        .collect::<Result<_, _>>()?;
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
        let adding = match operation {
            PatchOperation::Replace(replace) if is_field(&patched, &replace.path) => {
                Some(PatchOperation::Add(AddOperation {
                    path: replace.path.clone(),
                    value: replace.value.clone(),
                }))
            }
            _ => None,
        };
        let operation = adding.as_ref().unwrap_or(operation);
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation))
            .map_err(|_| PatchError::Unprocessable)?;
    }
    Ok(patched)
}

/// Returns whether a path refers to a field of an existing object. The field itself may be missing.
fn is_field(document: &Value, path: &Pointer) -> bool {
    path.parent()
        .and_then(|parent| parent.resolve(document).ok())
        .is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

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
        assert_eq!(error, PatchError::Unprocessable);
    }

    #[test]
    fn an_operation_that_does_not_apply_is_refused() {
        let object = value!({"a": 1, "l": []});
        for ops in [
            value!([{"op": "add", "path": "/b", "value": 2}, {"op": "remove", "path": "/missing"}]),
            value!([{"op": "replace", "path": "/l/0", "value": 2}]),
            value!([{"op": "jump", "path": "/a"}]),
            value!([{"op": "add", "path": "/a"}]),
        ] {
            assert_eq!(json(&object, &ops).unwrap_err(), PatchError::Unprocessable, "{ops}");
        }
    }

    #[test]
    fn replace_adds_a_field() {
        let ops = value!([{"op": "replace", "path": "/b", "value": 2}]);
        assert_eq!(json(&value!({"a": 1}), &ops).unwrap(), value!({"a": 1, "b": 2}));
    }

    #[test]
    fn what_is_no_list_is_malformed() {
        let error = json(&value!({}), &value!({"op": "add"})).unwrap_err();
        assert!(matches!(error, PatchError::Malformed(_)), "{error}");
    }
}
