//! Apply and update tracking behave as in structured-merge-diff's own tests.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::{CrdSchema, Gvk, builtin};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn types() -> TypeInfo {
    let item = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "value": {"type": "integer"}, "other": {"type": "string"}}});
    CrdSchema::compile(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"type": "string"}, "n": {"type": "integer"},
            "nested": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "atomicMap": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
            "keyed": {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "atomic": {"type": "array", "items": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }}))
    .unwrap()
    .types()
}

/// `null` means no spec at all. An empty spec would be a field of its own.
fn object(spec: Value) -> Value {
    let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec});
    if object["spec"].is_null() {
        object.as_object_mut().unwrap().remove("spec");
    }
    object
}

fn apply(live: Option<&Value>, spec: Value, manager: &str) -> Value {
    try_apply(live, spec, manager, false).unwrap_or_else(|e| panic!("{e:?}"))
}

fn try_apply(live: Option<&Value>, spec: Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    server_side_apply(live, &object(spec), &by(manager, force), &types(), at(0))
}

fn by(manager: &str, force: bool) -> Applier<'_> {
    Applier {
        manager,
        force,
        subresource: "",
        separate_status: true,
    }
}

fn update(old: Option<&Value>, spec: Value, manager: &str, second: i64) -> Value {
    let mut new = object(spec);
    if let Some(fields) = old.and_then(|o| o.pointer("/metadata/managedFields")) {
        new["metadata"]["managedFields"] = fields.clone();
    }
    track_update(old, &mut new, manager, "", &types(), at(second));
    new
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    entries
        .iter()
        .find(|e| e["manager"] == manager)
        .map(|e| e["fieldsV1"].clone())
        .unwrap_or_default()
}

#[test]
fn ownership_of_every_kind_of_field() {
    let live = apply(
        None,
        json!({
            "a": "1", "nested": {"x": "1"}, "map": {"k": "v"}, "atomicMap": {"k": "v"},
            "keyed": [{"name": "i", "value": 1}], "set": ["s"], "atomic": ["1"], "free": {"deep": {"er": 1}},
        }),
        "m",
    );
    assert_eq!(
        owned(&live, "m"),
        json!({"f:spec": {
            "f:a": {}, "f:nested": {"f:x": {}}, "f:map": {"f:k": {}}, "f:atomicMap": {}, "f:atomic": {},
            "f:keyed": {"k:{\"name\":\"i\"}": {".": {}, "f:name": {}, "f:value": {}}},
            "f:set": {"v:\"s\"": {}}, "f:free": {"f:deep": {".": {}, "f:er": {}}},
        }})
    );
    assert_eq!(
        live["metadata"]["managedFields"][0],
        json!({
            "manager": "m", "operation": "Apply", "apiVersion": "x/v1", "time": "2023-11-14T22:13:20Z",
            "fieldsType": "FieldsV1", "fieldsV1": owned(&live, "m"),
        })
    );
}

#[test]
fn an_update_owns_new_containers_too() {
    let live = update(None, json!({"map": {"k": "v"}, "keyed": [{"name": "i"}]}), "m", 0);
    assert_eq!(
        owned(&live, "m"),
        json!({"f:spec": {".": {}, "f:map": {".": {}, "f:k": {}}, "f:keyed": {".": {}, "k:{\"name\":\"i\"}": {".": {}, "f:name": {}}}}})
    );
}

/// (name, first applied by `one`, then by `two`, then `one` applies again, expected spec)
#[test]
fn removal() {
    let cases = [
        (
            "own fields go",
            json!({"a": "1", "b": "1"}),
            json!({"n": 1}),
            json!({"a": "1"}),
            json!({"a": "1", "n": 1}),
        ),
        (
            "co-owned fields stay",
            json!({"a": "1", "b": "1"}),
            json!({"b": "1"}),
            json!({"a": "1"}),
            json!({"a": "1", "b": "1"}),
        ),
        (
            "map keys",
            json!({"map": {"x": "1", "y": "1"}}),
            json!({"map": {"z": "1"}}),
            json!({"map": {"x": "1"}}),
            json!({"map": {"x": "1", "z": "1"}}),
        ),
        (
            "list items",
            json!({"keyed": [{"name": "i"}, {"name": "j"}]}),
            json!({"keyed": [{"name": "k"}]}),
            json!({"keyed": [{"name": "j"}]}),
            json!({"keyed": [{"name": "j"}, {"name": "k"}]}),
        ),
        (
            "items that others extended keep the other's part",
            json!({"keyed": [{"name": "i", "value": 1}]}),
            json!({"keyed": [{"name": "i", "other": "o"}]}),
            json!({}),
            json!({"keyed": [{"name": "i", "other": "o"}]}),
        ),
        (
            "set items",
            json!({"set": ["x", "y"]}),
            json!({"set": ["y", "z"]}),
            json!({"set": ["x"]}),
            json!({"set": ["x", "y", "z"]}),
        ),
        (
            "whole structs",
            json!({"nested": {"x": "1"}}),
            json!({"a": "1"}),
            json!({}),
            json!({"a": "1"}),
        ),
        (
            "structs with others' fields",
            json!({"nested": {"x": "1"}}),
            json!({"nested": {"y": "1"}}),
            json!({}),
            json!({"nested": {"y": "1"}}),
        ),
        (
            "atomic lists",
            json!({"atomic": ["1"]}),
            json!({"a": "1"}),
            json!({}),
            json!({"a": "1"}),
        ),
    ];
    for (name, first, second, third, expected) in cases {
        let live = apply(None, first, "one");
        let live = apply(Some(&live), second, "two");
        let live = apply(Some(&live), third, "one");
        assert_eq!(live["spec"], expected, "{name}");
    }
}

#[test]
fn what_an_updater_wrote_is_not_removed() {
    let live = apply(None, json!({"a": "1", "b": "1"}), "one");
    let live = update(Some(&live), json!({"a": "1", "b": "2", "n": 3}), "editor", 5);
    assert_eq!(owned(&live, "editor"), json!({"f:spec": {"f:b": {}, "f:n": {}}}));
    assert_eq!(owned(&live, "one"), json!({"f:spec": {"f:a": {}}}));
    assert_eq!(apply(Some(&live), json!({}), "one")["spec"], json!({"b": "2", "n": 3}));
}

#[test]
fn conflicts_name_managers_and_fields() {
    let live = apply(None, json!({"a": "1", "keyed": [{"name": "i", "value": 1}]}), "one");
    let error = try_apply(Some(&live), json!({"a": "2"}), "two", false).unwrap_err();
    let ApplyError::Conflict(conflicts) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        conflicts.message,
        r#"Apply failed with 1 conflict: conflict with "one": .spec.a"#
    );
    assert_eq!(
        conflicts.causes,
        [Cause {
            reason: "FieldManagerConflict".into(),
            message: r#"conflict with "one""#.into(),
            field: ".spec.a".into()
        }]
    );
    let live = update(
        Some(&live),
        json!({"a": "3", "keyed": [{"name": "i", "value": 1}]}),
        "editor",
        1,
    );
    let error = try_apply(
        Some(&live),
        json!({"a": "2", "keyed": [{"name": "i", "value": 2}]}),
        "two",
        false,
    )
    .unwrap_err();
    let ApplyError::Conflict(conflicts) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        conflicts.message,
        "Apply failed with 2 conflicts: conflicts with \"editor\" using x/v1:\n- .spec.a\nconflicts with \"one\":\n- .spec.keyed[name=\"i\"].value"
    );
}

#[test]
fn force_takes_ownership() {
    let live = apply(None, json!({"a": "1", "b": "1"}), "one");
    let live = try_apply(Some(&live), json!({"a": "2"}), "two", true).unwrap();
    assert_eq!(live["spec"], json!({"a": "2", "b": "1"}));
    assert_eq!(owned(&live, "one"), json!({"f:spec": {"f:b": {}}}));
    assert_eq!(owned(&live, "two"), json!({"f:spec": {"f:a": {}}}));
}

#[test]
fn equal_values_are_shared_without_conflict() {
    let live = apply(None, json!({"a": "1"}), "one");
    let live = apply(Some(&live), json!({"a": "1"}), "two");
    assert_eq!(owned(&live, "one"), owned(&live, "two"));
    let live = apply(Some(&live), Value::Null, "one");
    assert_eq!(live["spec"], json!({"a": "1"}));
    assert_eq!(owned(&live, "one"), Value::Null);
}

#[test]
fn applying_again_changes_nothing_not_even_the_time() {
    let live = apply(None, json!({"a": "1", "set": ["x"]}), "one");
    let again = server_side_apply(
        Some(&live),
        &object(json!({"a": "1", "set": ["x"]})),
        &by("one", false),
        &types(),
        at(99),
    );
    assert_eq!(again.unwrap(), live);
    let changed = server_side_apply(
        Some(&live),
        &object(json!({"a": "2"})),
        &by("one", false),
        &types(),
        at(99),
    )
    .unwrap();
    assert_eq!(changed["metadata"]["managedFields"][0]["time"], "2023-11-14T22:14:59Z");
}

#[test]
fn fields_that_a_write_does_not_set_have_no_owner() {
    let mut live = object(json!({"a": "1"}));
    live["status"] = json!({"phase": "old"});
    let mut applied = object(json!({"a": "1"}));
    applied["metadata"]["labels"] = json!({"l": "1"});
    applied["status"] = json!({"phase": "new"});

    let main = server_side_apply(Some(&live), &applied, &by("m", true), &types(), at(1)).unwrap();
    assert_eq!(main["status"]["phase"], "old");
    assert_eq!(
        owned(&main, "m"),
        json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:spec": {"f:a": {}}})
    );
    let to_status = Applier {
        subresource: "status",
        ..by("m", true)
    };
    let status = server_side_apply(Some(&live), &applied, &to_status, &types(), at(1)).unwrap();
    assert_eq!(owned(&status, "m"), json!({"f:status": {"f:phase": {}}}));
    applied.as_object_mut().unwrap().remove("status");
    let nothing = server_side_apply(Some(&live), &applied, &to_status, &types(), at(1)).unwrap();
    assert_eq!(owned(&nothing, "m"), Value::Null);
}

/// Kubernetes sets the time before it sets such fields back.
#[test]
fn another_value_in_a_field_that_a_write_does_not_set_gives_a_time() {
    let live = apply(None, json!({"a": "1"}), "one");
    let time = |applied: &Value| {
        let merged = server_side_apply(Some(&live), applied, &by("two", false), &types(), at(5)).unwrap();
        let entries = merged["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().find(|entry| entry["manager"] == "two").unwrap()["time"].clone()
    };
    let mut applied = object(json!({"a": "1"}));
    assert_eq!(time(&applied), Value::Null);
    applied["status"] = json!({"phase": "new"});
    assert_eq!(time(&applied), "2023-11-14T22:13:25Z");
}

#[test]
fn list_order_follows_the_applied_one_and_keeps_foreign_items() {
    let names = |object: &Value| -> Vec<String> {
        object["spec"]["keyed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = |names: &[&str]| json!({"keyed": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b"], &["x", "b"], &["a", "x", "b"]),
        (&["a", "b"], &["b", "x"], &["a", "b", "x"]),
        (&["a"], &["x", "y"], &["a", "x", "y"]),
        (&[], &["x", "y"], &["x", "y"]),
        (&["a", "b", "c", "d"], &["d", "c", "b", "a"], &["d", "c", "b", "a"]),
    ];
    for (live, applied, expected) in cases {
        let live = apply(None, list(live), "one");
        assert_eq!(
            names(&apply(Some(&live), list(applied), "two")),
            *expected,
            "{applied:?}"
        );
    }
}

#[test]
fn malformed_lists_are_refused() {
    let message = |spec: Value| match try_apply(None, spec, "m", false).unwrap_err() {
        ApplyError::Malformed(message) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        message(json!({"keyed": [{"name": "i"}, {"name": "i"}]})),
        ".spec.keyed: duplicate entries for key [name=\"i\"]"
    );
    assert_eq!(
        message(json!({"keyed": [{"value": 1}]})),
        ".spec.keyed: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)"
    );
}

/// This also applies to fields that the request must not write and that are therefore not merged.
#[test]
fn malformed_lists_are_found_before_anything_is_merged() {
    let types = builtin::types(Gvk::new("", "v1", "Pod")).unwrap();
    let twice = json!({"spec": {"containers": [{"name": "c"}, {"name": "c"}]}});
    let found = [".spec.containers: duplicate entries for key [name=\"c\"]"];
    assert_eq!(mistyped(&twice, &types), found);
    assert!(mistyped(&json!({"spec": {"containers": [{"name": "c"}]}}), &types).is_empty());
}

#[test]
fn keys_with_defaults_may_be_left_out() {
    let types = builtin::types(Gvk::new("", "v1", "Pod")).unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "ports": [{"containerPort": 80}]}]}});
    let live = server_side_apply(None, &pod, &by("m", false), &types, at(0)).unwrap();
    let ports = owned(&live, "m")["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:ports"].clone();
    assert_eq!(
        ports,
        json!({"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}})
    );
    let with = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]}]}});
    let live = server_side_apply(Some(&live), &with, &by("m", false), &types, at(0)).unwrap();
    assert_eq!(live["spec"]["containers"][0]["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn subresources_have_entries_of_their_own() {
    let live = apply(None, json!({"a": "1"}), "m");
    let mut new = live.clone();
    new["status"] = json!({"phase": "Done"});
    track_update(Some(&live), &mut new, "m", "status", &types(), at(1));
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {".": {}, "f:phase": {}}}));
    // Applying the main resource again does not remove the status.
    assert_eq!(
        apply(Some(&new), json!({"a": "2"}), "m")["status"],
        json!({"phase": "Done"})
    );
}

#[test]
fn an_update_without_a_change_keeps_the_entries() {
    let live = update(None, json!({"a": "1"}), "m", 0);
    assert_eq!(update(Some(&live), json!({"a": "1"}), "other", 50), live);
    let touched = update(Some(&live), json!({"a": "2"}), "other", 50);
    assert_eq!(owned(&touched, "other"), json!({"f:spec": {"f:a": {}}}));
    assert_eq!(owned(&touched, "m"), json!({"f:spec": {}}));
}

#[test]
fn managed_fields_can_be_cleared_and_survive_clients_that_drop_them() {
    let live = apply(None, json!({"a": "1"}), "m");
    let mut cleared = live.clone();
    cleared["metadata"]["managedFields"] = json!([{}]);
    track_update(Some(&live), &mut cleared, "e", "", &types(), at(1));
    assert_eq!(cleared["metadata"].get("managedFields"), None);
    let mut dropped = object(json!({"a": "1"}));
    track_update(Some(&live), &mut dropped, "e", "", &types(), at(1));
    assert_eq!(dropped, live);
    // The first apply to an untracked object assigns existing fields to no particular manager.
    let applied = apply(Some(&cleared), json!({"a": "1", "b": "2"}), "m");
    assert_eq!(
        owned(&applied, "before-first-apply"),
        json!({"f:spec": {".": {}, "f:a": {}}})
    );
}

#[test]
fn kubectl_migrates_from_client_side_apply() {
    let last = object(json!({"a": "1", "b": "1"})).to_string();
    let mut live = object(json!({"a": "1", "b": "1"}));
    live["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    track_update(None, &mut live, "kubectl-client-side-apply", "", &types(), at(0));
    let mut applied = object(json!({"a": "2", "b": "1"}));
    applied["metadata"]["annotations"] = json!({});
    let migrate = |manager| server_side_apply(Some(&live), &applied, &by(manager, false), &types(), at(1));
    assert!(matches!(migrate("someone"), Err(ApplyError::Conflict(_))));
    let merged = migrate("kubectl").unwrap();
    assert_eq!(merged["spec"]["a"], "2");
    let remembered = merged["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert!(remembered.contains(r#""a":"2""#) && remembered.ends_with('\n'));
}

#[test]
fn the_number_of_updaters_is_bounded() {
    let mut live = update(None, json!({"map": {"k": "v"}}), "creator", 0);
    for i in 0..30 {
        let mut spec = live["spec"].clone();
        spec["map"][format!("k{i}")] = json!("v");
        live = update(Some(&live), spec, &format!("writer-{i}"), i);
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|e| e["manager"] == "ancient-changes"));
    assert!(entries.iter().any(|e| e["manager"] == "writer-29"));
}

fn spec() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["1", "2"]).prop_map(Value::from);
    let item = (prop::sample::select(vec!["i", "j", "k"]), prop::option::of(0..2i64)).prop_map(|(name, value)| {
        let mut item = json!({ "name": name });
        if let Some(value) = value {
            item["value"] = Value::from(value);
        }
        item
    });
    let keyed = prop::collection::vec(item, 0..4).prop_map(|mut list: Vec<Value>| {
        let mut seen = Vec::new();
        list.retain(|i| {
            let fresh = !seen.contains(&i["name"]);
            seen.push(i["name"].clone());
            fresh
        });
        Value::from(list)
    });
    let set = prop::collection::btree_set(prop::sample::select(vec!["x", "y", "z"]), 0..3)
        .prop_map(|s| Value::from(s.into_iter().collect::<Vec<_>>()));
    let map = prop::collection::btree_map(prop::sample::select(vec!["p", "q"]), text(), 0..3)
        .prop_map(|m| m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Value>());
    (
        prop::option::of(text()),
        prop::option::of(keyed),
        prop::option::of(set),
        prop::option::of(map.clone()),
        prop::option::of(map),
    )
        .prop_map(|(a, keyed, set, map, atomic)| {
            let fields = [
                ("a", a),
                ("keyed", keyed),
                ("set", set),
                ("map", map),
                ("atomicMap", atomic),
            ];
            fields
                .into_iter()
                .filter_map(|(k, v)| v.map(|v| (k.to_owned(), v)))
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn apply_is_idempotent(first in spec(), second in spec()) {
        let live = apply(None, first, "one");
        let merged = try_apply(Some(&live), second.clone(), "two", true).unwrap();
        let again = server_side_apply(Some(&merged), &object(second), &by("two", false), &types(), at(77)).unwrap();
        prop_assert_eq!(again, merged);
    }

    /// After a manager gives up all fields, the fields of the other manager remain.
    #[test]
    fn giving_up_removes_exactly_what_one_alone_owned(one in spec(), two in spec()) {
        let alone = apply(None, two.clone(), "two");
        let live = apply(None, one, "one");
        let both = try_apply(Some(&live), two, "two", true).unwrap();
        let left = apply(Some(&both), Value::Null, "one");
        let fields = |object: &Value| walk::fields_of(&object["spec"], types().root().child("spec").map(AsRef::as_ref));
        prop_assert_eq!(fields(&left), fields(&alone));
        prop_assert_eq!(owned(&left, "one"), Value::Null);
    }

    #[test]
    fn missing_fields_have_no_owner(one in spec(), two in spec(), three in spec()) {
        let live = apply(None, one, "one");
        let live = update(Some(&live), two, "editor", 1);
        let live = try_apply(Some(&live), three, "one", true).unwrap();
        let bare = { let mut bare = live.clone(); managed::strip(&mut bare); bare };
        let there = walk::compare(&json!({}), &bare, Some(types().root())).added;
        for entry in managed::decode(&live) {
            let dangling = entry.fields.difference(&there);
            prop_assert!(dangling.is_empty(), "{} owns {:?}", entry.manager, dangling.paths());
        }
    }
}
