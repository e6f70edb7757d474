//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

/// Applies a merge patch: objects merge, `null` removes, and every other value replaces.
pub(crate) fn merge(target: &Value, patch: &Value) -> Value {
    let mut merged = target.clone();
    merge_into(&mut merged, patch);
    merged
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(_) => merge_into(map.entry(key.clone()).or_insert(Value::Null), value),
            other => {
                map.insert(key.clone(), other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7386, appendix A.
    #[test]
    fn rfc_examples() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(merge(&target, &patch), expected, "{patch}");
        }
    }

    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..3i64).prop_map(Value::from),
            "[ab]?".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..3).prop_map(|m| m.into_iter().collect::<Value>()),
            ]
        })
    }

    fn has_null_field(value: &Value) -> bool {
        value
            .as_object()
            .is_some_and(|map| map.values().any(|v| v.is_null() || has_null_field(v)))
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(target in value(), patch in value()) {
            let once = merge(&target, &patch);
            prop_assert_eq!(merge(&once, &patch), once);
        }

        #[test]
        fn an_empty_patch_changes_no_object(target in value()) {
            prop_assume!(target.is_object());
            prop_assert_eq!(merge(&target, &json!({})), target);
        }

        #[test]
        fn a_patch_onto_nothing_is_itself_without_nulls(patch in value()) {
            let made = merge(&Value::Null, &patch);
            prop_assert!(!has_null_field(&made));
            if !has_null_field(&patch) {
                prop_assert_eq!(made, patch);
            }
        }
    }
}
