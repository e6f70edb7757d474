//! Behavior of compiled custom resource schemas, compared with the API server's for the same input.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CrdSchema, FieldError};

fn spec_schema(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn compile(spec: Value) -> CrdSchema {
    CrdSchema::compile(&spec_schema(spec)).unwrap_or_else(|e| panic!("{}", rendered(&e).join("\n")))
}

fn rendered(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn refusals(schema: &CrdSchema, spec: Value) -> Vec<String> {
    rendered(&schema.validate(&json!({ "spec": spec }), None))
}

#[test]
fn non_structural_schemas_are_refused_with_upstream_words() {
    let at = "spec.validation.openAPIV3Schema";
    let cases = [
        (json!({}), "type: Required value: must not be empty at the root"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            r#"type: Invalid value: "array": must be object at the root"#,
        ),
        (
            spec_schema(json!({})),
            "properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            spec_schema(json!({"type": "array"})),
            "properties[spec].items: Required value: must be specified",
        ),
        (
            spec_schema(json!({"type": "array", "items": {}})),
            "properties[spec].items.type: Required value: must not be empty for specified array items",
        ),
        (
            spec_schema(json!({"type": "thing"})),
            r#"properties[spec].type: Unsupported value: "thing": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (
            spec_schema(
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            ),
            "properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            spec_schema(json!({"type": "object", "oneOf": [{"properties": {"b": {"minimum": 1}}}]})),
            "properties[spec].properties[b]: Required value: because it is defined in spec.validation.openAPIV3Schema.properties[spec].oneOf[0].properties[b]",
        ),
        (
            spec_schema(
                json!({"type": "object", "properties": {"b": {"type": "integer"}}, "oneOf": [{"properties": {"b": {"type": "integer"}}}]}),
            ),
            "properties[spec].oneOf[0].properties[b].type: Forbidden: must be empty to be structural",
        ),
        (
            spec_schema(
                json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            ),
            "properties[spec].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            spec_schema(
                json!({"type": "string", "x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            ),
            "properties[spec].x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (
            spec_schema(json!({"type": "string", "pattern": "("})),
            "properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't",
        ),
        (
            spec_schema(json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}})),
            "properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true",
        ),
        (
            spec_schema(json!({"type": "object", "$ref": "#/x"})),
            "properties[spec].$ref: Forbidden: $ref is not supported",
        ),
        (
            spec_schema(json!({"type": "integer", "default": "x"})),
            "properties[spec].default: Invalid value: \"string\":",
        ),
        (
            spec_schema(json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.a =="}]})),
            "properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.a ==\"}: compilation failed:",
        ),
        (
            spec_schema(
                json!({"type": "object", "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".nope"}]}),
            ),
            "properties[spec].x-kubernetes-validations[0].fieldPath: Invalid value: \".nope\": must be a valid path",
        ),
    ];
    for (schema, expected) in cases {
        let found = rendered(&CrdSchema::compile(&schema).expect_err(expected));
        assert!(
            found.iter().any(|f| f.starts_with(&format!("{at}.{expected}"))),
            "{expected}: {found:#?}"
        );
    }
}

#[test]
fn structural_schemas_compile() {
    let int_or_string = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    for spec in [
        int_or_string,
        json!({"x-kubernetes-int-or-string": true, "pattern": "^1$", "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"minimum": 0}]}),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"required": ["a"]}]}),
        json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
    ] {
        CrdSchema::compile(&spec_schema(spec)).unwrap();
    }
}

#[test]
fn pruning() {
    let schema = compile(json!({"type": "object", "properties": {
        "known": {"type": "string"},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"strict": {"type": "object", "properties": {}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }}));
    let mut object = json!({
        "apiVersion": "x/v1", "kind": "X", "extra": 1,
        "metadata": {"name": "a", "labels": {"any": "thing"}, "typo": true},
        "spec": {
            "known": "x", "unknown": 1,
            "map": {"k": {"a": 1, "b": 2}},
            "free": {"anything": {"goes": 1}, "strict": {"gone": 1}},
            "list": [{"a": 1}, {"b": 2}],
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"gone": 1}, "odd": 1},
        },
    });
    let unknown = schema.prune(&mut object);
    assert_eq!(
        unknown,
        [
            "extra",
            "metadata.typo",
            "spec.free.strict.gone",
            "spec.list[1].b",
            "spec.map.k.b",
            "spec.template.odd",
            "spec.template.spec.gone",
            "spec.unknown"
        ]
    );
    assert_eq!(
        object,
        json!({
            "apiVersion": "x/v1", "kind": "X",
            "metadata": {"name": "a", "labels": {"any": "thing"}},
            "spec": {
                "known": "x", "map": {"k": {"a": 1}},
                "free": {"anything": {"goes": 1}, "strict": {}},
                "list": [{"a": 1}, {}],
                "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
            },
        })
    );
}

#[test]
fn defaulting() {
    let schema = compile(json!({"type": "object", "properties": {
        "a": {"type": "string", "default": "A"},
        "nullable": {"type": "string", "nullable": true, "default": "N"},
        "plain": {"type": "string"},
        "nested": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}},
        "whole": {"type": "object", "default": {}, "properties": {"c": {"type": "integer", "default": 2}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "integer", "default": 3}}}},
        "map": {"type": "object", "additionalProperties": {"type": "string", "default": "M"}},
    }}));
    let cases = [
        (
            "absent parents are not created",
            json!({}),
            json!({"a": "A", "nullable": "N", "whole": {"c": 2}}),
        ),
        (
            "null: default, keep or drop",
            json!({"a": null, "nullable": null, "plain": null, "nested": {}, "map": {"k": null}}),
            json!({"a": "A", "nullable": null, "nested": {"b": 1}, "whole": {"c": 2}, "map": {"k": "M"}}),
        ),
        (
            "values stay, items are filled",
            json!({"a": "x", "nullable": "y", "whole": {"c": 9}, "list": [{}, {"d": 7}]}),
            json!({"a": "x", "nullable": "y", "whole": {"c": 9}, "list": [{"d": 3}, {"d": 7}]}),
        ),
    ];
    for (name, spec, expected) in cases {
        let mut object = json!({ "spec": spec });
        schema.default(&mut object);
        assert_eq!(object["spec"], expected, "{name}");
    }
}

fn every_keyword() -> CrdSchema {
    compile(json!({"type": "object", "required": ["must"], "properties": {
        "must": {"type": "string"},
        "count": {"type": "integer", "minimum": 1, "maximum": 10, "format": "int32"},
        "ratio": {"type": "number", "exclusiveMinimum": true, "minimum": 0, "multipleOf": 0.5},
        "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
        "mode": {"type": "string", "enum": ["b", "c"]},
        "when": {"type": "string", "format": "date-time"},
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "minItems": 1, "maxItems": 3},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
        "either": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}}, "oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
        "nullable": {"type": "string", "nullable": true},
    }}))
}

fn assert_refused<const N: usize>(cases: [(Value, &str); N]) {
    let schema = every_keyword();
    for (spec, expected) in cases {
        let found = refusals(&schema, spec.clone());
        assert_eq!(found.first().map(String::as_str), Some(expected), "{spec}: {found:#?}");
    }
}

#[test]
fn values_within_every_keyword_are_accepted() {
    let good = json!({
        "must": "", "count": 10, "ratio": 1.5, "name": "abcd", "mode": "c", "when": "2026-01-01T00:00:00Z", "port": "http",
        "tags": ["a", "b"], "keyed": [{"k": "1"}, {"k": "2"}], "map": {"a": 1}, "either": {"y": "1"}, "nullable": null,
    });
    assert_eq!(refusals(&every_keyword(), good), Vec::<String>::new());
}

#[test]
fn required_values_numbers_and_strings_are_validated() {
    assert_refused([
        (json!({}), r#"spec.must: Required value"#),
        (
            json!({"must": 1}),
            r#"spec.must: Invalid value: "integer": spec.must in body must be of type string: "integer""#,
        ),
        (
            json!({"must": null}),
            r#"spec.must: Invalid value: "null": spec.must in body must be of type string: "null""#,
        ),
        (
            json!({"must": "", "count": 0}),
            "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
        ),
        (
            json!({"must": "", "count": 11}),
            "spec.count: Invalid value: 11: spec.count in body should be less than or equal to 10",
        ),
        (
            json!({"must": "", "count": 1.5}),
            r#"spec.count: Invalid value: "number": spec.count in body must be of type integer: "number""#,
        ),
        (
            json!({"must": "", "ratio": 0}),
            "spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0",
        ),
        (
            json!({"must": "", "ratio": 0.7}),
            "spec.ratio: Invalid value: 0.7: spec.ratio in body should be a multiple of 0.5",
        ),
        (
            json!({"must": "", "name": "a"}),
            r#"spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long"#,
        ),
        (
            json!({"must": "", "name": "abcde"}),
            "spec.name: Too long: may not be more than 4 bytes",
        ),
        (
            json!({"must": "", "name": "A1"}),
            r#"spec.name: Invalid value: "A1": spec.name in body should match '^[a-z]+$'"#,
        ),
        (
            json!({"must": "", "mode": "a"}),
            r#"spec.mode: Unsupported value: "a": supported values: "b", "c""#,
        ),
    ]);
}

#[test]
fn formats_lists_maps_and_alternatives_are_validated() {
    assert_refused([
        (
            json!({"must": "", "when": "now"}),
            r#"spec.when: Invalid value: "now": spec.when in body must be of type date-time: "now""#,
        ),
        (
            json!({"must": "", "port": true}),
            r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"must": "", "tags": []}),
            "spec.tags: Invalid value: 0: spec.tags in body should have at least 1 items",
        ),
        (
            json!({"must": "", "tags": ["1", "2", "3", "4"]}),
            "spec.tags: Too many: 4: must have at most 3 items",
        ),
        (
            json!({"must": "", "tags": ["a", "a"]}),
            r#"spec.tags[1]: Duplicate value: "a""#,
        ),
        (
            json!({"must": "", "keyed": [{"k": "a"}, {"k": "a"}]}),
            r#"spec.keyed[1]: Duplicate value: {"k":"a"}"#,
        ),
        (
            json!({"must": "", "map": {"a": "x"}}),
            r#"spec.map.a: Invalid value: "string": spec.map.a in body must be of type integer: "string""#,
        ),
        (
            json!({"must": "", "map": {"a": 1, "b": 2, "c": 3}}),
            "spec.map: Too many: 3: must have at most 2 items",
        ),
        (
            json!({"must": "", "either": {}}),
            r#"<nil>: Invalid value: "": "spec.either" must validate one and only one schema (oneOf). Found none valid"#,
        ),
        (
            json!({"must": "", "either": {"x": "", "y": ""}}),
            r#"<nil>: Invalid value: "": "spec.either" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
    ]);
}

#[test]
fn unchanged_parts_of_an_update_are_not_validated_again() {
    let schema = compile(json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 2, "x-kubernetes-validations": [{"rule": "self != 'xx'"}]},
        "other": {"type": "string"},
    }}));
    let old = json!({"spec": {"name": "too long", "other": "a"}});
    let new = json!({"spec": {"name": "too long", "other": "b"}});
    assert!(schema.validate(&new, Some(&old)).is_empty());
    assert_eq!(schema.validate(&new, None).len(), 2);
    let changed = json!({"spec": {"name": "also too long", "other": "a"}});
    assert!(!schema.validate(&changed, Some(&old)).is_empty());
    let (old, new) = (
        json!({"spec": {"name": "xx", "other": "a"}}),
        json!({"spec": {"name": "xx", "other": "b"}}),
    );
    assert!(schema.validate(&new, Some(&old)).is_empty());
    assert_eq!(
        rendered(&schema.validate(&new, None)),
        [r#"spec.name: Invalid value: "xx": failed rule: self != 'xx'"#]
    );
}

#[test]
fn rules() {
    let schema = compile(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min) + ' exceeds max ' + string(self.max)", "fieldPath": ".min"},
            {"rule": "!has(self.mode) || self.mode != 'off' || !has(self.name)", "message": "name makes no sense when off", "reason": "FieldValueForbidden"},
            {"rule": "self.__dash__ok == '' ", "message": "unreachable"},
        ],
        "properties": {
            "min": {"type": "integer", "default": 0}, "max": {"type": "integer", "default": 10},
            "mode": {"type": "string"}, "-ok": {"type": "string", "default": ""},
            "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "name is immutable"}]},
            "ratio": {"type": "number", "x-kubernetes-validations": [{"rule": "self * 2.0 > 0.0"}]},
            "until": {"type": "string", "format": "date-time", "x-kubernetes-validations": [{"rule": "self.getFullYear() > 2000"}]},
            "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "v must not shrink"}]}}}},
            "once": {"type": "string", "x-kubernetes-validations": [{"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": true, "message": "must start as first"}]},
        },
    }));
    let check = |new: Value, old: Option<Value>| {
        let wrap = |spec: Value| {
            let mut object = json!({ "spec": spec });
            schema.default(&mut object);
            object
        };
        rendered(&schema.validate(&wrap(new), old.map(wrap).as_ref()))
    };
    assert_eq!(check(json!({}), None), Vec::<String>::new());
    assert_eq!(
        check(json!({"min": 11}), None),
        ["spec.min: Invalid value: min 11 exceeds max 10"]
    );
    assert_eq!(
        check(json!({"mode": "off", "name": "x"}), None),
        ["spec: Forbidden: name makes no sense when off"]
    );
    assert_eq!(check(json!({"name": "x"}), Some(json!({}))), Vec::<String>::new());
    assert_eq!(
        check(json!({"name": "y"}), Some(json!({"name": "x"}))),
        [r#"spec.name: Invalid value: "y": name is immutable"#]
    );
    assert_eq!(
        check(json!({"ratio": 1}), None),
        Vec::<String>::new(),
        "a whole number is still a double"
    );
    assert_eq!(check(json!({"until": "1999-01-01T00:00:00Z"}), None).len(), 1);
    // Items are correlated by key, not by position.
    let old = json!({"items": [{"k": "a", "v": 5}, {"k": "b", "v": 1}]});
    let new = json!({"items": [{"k": "b", "v": 2}, {"k": "a", "v": 5}, {"k": "c", "v": 0}]});
    assert_eq!(check(new, Some(old.clone())), Vec::<String>::new());
    let shrunk = json!({"items": [{"k": "b", "v": 0}, {"k": "a", "v": 5}]});
    assert_eq!(
        check(shrunk, Some(old)),
        ["spec.items[0].v: Invalid value: 0: v must not shrink"]
    );
    assert_eq!(check(json!({"once": "second"}), None).len(), 1);
    assert_eq!(
        check(json!({"once": "second"}), Some(json!({"once": "first"}))),
        Vec::<String>::new()
    );
}

#[test]
fn rules_must_name_what_the_schema_has() {
    let spec = |rule: &str| {
        json!({"type": "object", "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "string"}, "x-y": {"type": "string"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "integer"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }, "x-kubernetes-validations": [{"rule": rule}]})
    };
    for good in [
        "self.a.b == 'x' && has(self.a.x__dash__y)",
        "self.list.all(i, i.k != '' && self.list.exists(j, j.k == i.k))",
        "self.map.all(k, k.startsWith('a') && self.map[k].v > 0)",
        "self.map.some.v > 0 || self.free.anything.goes",
        "self.list[0].k == string(1) && [1, 2].sum() == 3",
        "self.list.map(i, i.k).size() > 0 && self == oldSelf && {'k': self.a.b}.k == ''",
        "quantity('1Gi').isGreaterThan(quantity('1Mi'))",
    ] {
        compile(spec(good));
    }
    for (bad, expected) in [
        ("slf.a", "undeclared reference to 'slf' (in container '')"),
        ("self.a.c == ''", "undefined field 'c'"),
        ("!has(self.b)", "undefined field 'b'"),
        ("self.list.all(i, i.v == 1)", "undefined field 'v'"),
        (
            "self.list.all(i, j.k == '')",
            "undeclared reference to 'j' (in container '')",
        ),
        ("self.map['x'].w > 0", "undefined field 'w'"),
    ] {
        let found = rendered(&CrdSchema::compile(&spec_schema(spec(bad))).expect_err(bad));
        assert!(
            found[0].ends_with(&format!("compilation failed: {expected}")),
            "{bad}: {found:?}"
        );
    }
    let metadata = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name != '' && self.metadata.labels.size() > 0"}]});
    let found = rendered(&CrdSchema::compile(&metadata).unwrap_err());
    assert!(found[0].ends_with("undefined field 'labels'"), "{found:?}");
}

/// Prints the validation time of an object of usual size on this machine. It checks no limit.
#[test]
#[ignore = "prints a figure: cargo test --release -p kube-embed --lib -- --ignored --nocapture cost_of_validation"]
fn cost_of_validation() {
    let item = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9-]+$"}, "value": {"type": "string", "maxLength": 200},
    }, "x-kubernetes-validations": [{"rule": "self.name != self.value"}]});
    let schema = compile(json!({"type": "object", "properties": {
        "items": {"type": "array", "maxItems": 100, "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    }, "x-kubernetes-validations": [{"rule": "self.items.all(i, i.name.size() > 2)"}]}));
    let items: Vec<Value> = (0..48)
        .map(|i| json!({"name": format!("item-{i}"), "value": "v".repeat(90)}))
        .collect();
    let object = json!({"spec": {"items": items}});
    let size = object.to_string().len();
    let started = std::time::Instant::now();
    for _ in 0..200 {
        assert!(
            schema
                .validate(&object, Some(&json!({"spec": {"items": []}})))
                .is_empty()
        );
    }
    println!(
        "{size} bytes, 49 rule evaluations: {:?} per validation",
        started.elapsed() / 200
    );
}

#[test]
fn a_rule_that_goes_wrong_refuses_the_object() {
    let schema = compile(json!({
        "type": "object", "properties": {"a": {"type": "string"}, "secret": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        "x-kubernetes-validations": [{"rule": "self.a == 'x'"}],
    }));
    assert_eq!(
        refusals(&schema, json!({})),
        [r#"spec: Invalid value: "object": no such key: a evaluating rule: self.a == 'x'"#]
    );
}

#[test]
fn rules_wait_until_the_structure_is_right() {
    let schema = compile(json!({
        "type": "object", "required": ["a"], "properties": {"a": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.a == 'x'"}],
    }));
    assert_eq!(
        refusals(&schema, json!({})),
        [
            "spec.a: Required value",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn metadata_name_can_be_restricted() {
    let schema = CrdSchema::compile(&json!({"type": "object", "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}},
        "spec": {"type": "object"},
    }, "x-kubernetes-validations": [{"rule": "self.metadata.name != 'bad'"}]}))
    .unwrap();
    assert!(schema.validate(&json!({"metadata": {"name": "abc"}}), None).is_empty());
    assert_eq!(
        rendered(&schema.validate(&json!({"metadata": {"name": "abcd"}}), None))[0],
        "metadata.name: Too long: may not be more than 3 bytes"
    );
    assert_eq!(schema.validate(&json!({"metadata": {"name": "bad"}}), None).len(), 1);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(vec!["a", "b", "map", "list", "free"]), inner, 0..4)
                .prop_map(|m| m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

fn recursive_schema() -> CrdSchema {
    let leaf = json!({"type": "object", "properties": {
        "a": {"type": "string", "default": "A"}, "b": {"type": "integer", "nullable": true},
        "map": {"type": "object", "additionalProperties": {"type": "string", "default": "M"}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}},
        "free": {"x-kubernetes-preserve-unknown-fields": true},
    }});
    compile(
        json!({"type": "object", "properties": {"a": leaf, "list": {"type": "array", "items": leaf}, "b": {"type": "object", "default": {}, "properties": {"a": leaf}}}}),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pruning_twice_finds_nothing_more(spec in value()) {
        let schema = recursive_schema();
        let mut object = json!({ "spec": spec });
        schema.prune(&mut object);
        let once = object.clone();
        prop_assert_eq!(schema.prune(&mut object), Vec::<String>::new());
        prop_assert_eq!(object, once);
    }

    #[test]
    fn defaulting_twice_changes_nothing_more(spec in value()) {
        let schema = recursive_schema();
        let mut object = json!({ "spec": spec });
        schema.default(&mut object);
        let once = object.clone();
        schema.default(&mut object);
        prop_assert_eq!(object, once);
    }

    /// For any input, validation returns without a panic, and an unchanged update passes.
    #[test]
    fn validation_is_total(spec in value()) {
        let schema = recursive_schema();
        let object = json!({ "spec": spec });
        schema.validate(&object, None);
        prop_assert!(schema.validate(&object, Some(&object)).is_empty());
    }
}
