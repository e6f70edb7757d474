//! Checks that Kubernetes accepts a custom resource's schema: it is structural and within the supported subset of
//! OpenAPI v3. Messages and paths are those of upstream.

use serde_json::Value;

use super::error::FieldError;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Returns all errors of a schema, in upstream's order.
pub(crate) fn check(schema: &Value, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !schema.is_object() {
        return vec![FieldError::required(at, "schemas are required")];
    }
    structure(schema, at, Level::Root, &mut errors);
    completeness(schema, at, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors.dedup();
    errors
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn branches<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema
        .get(name)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn structure(schema: &Value, at: &str, level: Level, errors: &mut Vec<FieldError>) {
    supported_subset(schema, at, errors);
    let kind = text(schema, "type");
    match schema.get("items") {
        Some(items) if items.is_object() => structure(items, &format!("{at}.items"), Level::Item, errors),
        Some(_) => {
            errors.push(FieldError::forbidden(
                format!("{at}.items"),
                "items must be a schema object and not an array",
            ));
        }
        None if kind == "array" => errors.push(FieldError::required(format!("{at}.items"), "must be specified")),
        None => {}
    }
    for (name, child) in properties(schema) {
        structure(child, &format!("{at}.properties[{name}]"), Level::Field, errors);
    }
    if let Some(additional) = schema.get("additionalProperties") {
        let here = format!("{at}.additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(here.as_str(), "must not be used at the root"));
        }
        match additional {
            Value::Bool(false) => {
                errors.push(FieldError::forbidden(
                    here,
                    "additionalProperties cannot be set to false",
                ));
            }
            Value::Object(_) => structure(additional, &here, Level::Field, errors),
            _ => {}
        }
        if properties(schema).next().is_some() {
            errors.push(FieldError::forbidden(
                format!("{at}.additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            ));
        }
    }
    extensions(schema, at, level, errors);
    lists_and_maps(schema, at, errors);
    rules(schema, at, errors);
    value_validation(
        schema,
        at,
        int_or_string_any_of(schema),
        int_or_string_all_of(schema),
        errors,
    );
}

/// Parts of OpenAPI v3 that `apiextensions.k8s.io/v1` does not support.
fn supported_subset(schema: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    if kind == "null" {
        errors.push(FieldError::forbidden(
            format!("{at}.type"),
            "type cannot be set to null, use nullable as an alternative",
        ));
    }
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(format!("{at}.type"), kind, TYPES));
    }
    for name in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        if schema.get(name).is_some_and(|v| !v.is_null()) {
            errors.push(FieldError::forbidden(
                format!("{at}.{name}"),
                format!("{name} is not supported"),
            ));
        }
    }
    if flag(schema, "uniqueItems") {
        errors.push(FieldError::forbidden(
            format!("{at}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
}

fn extensions(schema: &Value, at: &str, level: Level, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    let (preserve, embedded, int_or_string) = (
        flag(schema, "x-kubernetes-preserve-unknown-fields"),
        flag(schema, "x-kubernetes-embedded-resource"),
        flag(schema, "x-kubernetes-int-or-string"),
    );
    if int_or_string {
        for (set, name) in [
            (preserve, "x-kubernetes-preserve-unknown-fields"),
            (embedded, "x-kubernetes-embedded-resource"),
        ] {
            if set {
                errors.push(FieldError::invalid(
                    format!("{at}.{name}"),
                    true,
                    "must be false if x-kubernetes-int-or-string is true",
                ));
            }
        }
    }
    if embedded && kind != "object" {
        let words = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(format!("{at}.type"), words)
        } else {
            FieldError::invalid(format!("{at}.type"), kind, words)
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let words = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(format!("{at}.type"), words));
    }
    if embedded && schema.get("additionalProperties").is_some() {
        errors.push(FieldError::forbidden(
            format!("{at}.additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(
            format!("{at}.type"),
            kind,
            "must be object at the root",
        ));
    }
    if level == Level::Root || embedded {
        for name in ["kind", "apiVersion"] {
            if let Some(field) = schema.get("properties").and_then(|p| p.get(name))
                && text(field, "type") != "string"
            {
                errors.push(FieldError::invalid(
                    format!("{at}.properties[{name}].type"),
                    text(field, "type"),
                    "must be string",
                ));
            }
        }
        if let Some(metadata) = schema.get("properties").and_then(|p| p.get("metadata")) {
            metadata_schema(metadata, &format!("{at}.properties[metadata]"), level, errors);
        }
    }
    if embedded && !preserve && properties(schema).next().is_none() {
        errors.push(FieldError::required(
            format!("{at}.properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

fn metadata_schema(metadata: &Value, at: &str, level: Level, errors: &mut Vec<FieldError>) {
    if text(metadata, "type") != "object" {
        errors.push(FieldError::invalid(
            format!("{at}.type"),
            text(metadata, "type"),
            "must be object",
        ));
    }
    let only_names = metadata.as_object().is_some_and(|m| {
        m.iter().all(|(key, value)| match key.as_str() {
            "type" | "description" | "title" => true,
            "properties" => value
                .as_object()
                .is_some_and(|p| p.keys().all(|k| k == "name" || k == "generateName")),
            _ => false,
        })
    });
    if level == Level::Root && !only_names {
        errors.push(FieldError::forbidden(
            at,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        ));
    }
}

fn lists_and_maps(schema: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    let of_type = |extension: &str, wanted: &str| {
        let words = format!("must be {wanted} if {extension} is specified");
        if kind.is_empty() {
            FieldError::required(format!("{at}.type"), words)
        } else {
            FieldError::invalid(format!("{at}.type"), kind, words)
        }
    };
    if let Some(map_type) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
        if kind != "object" {
            errors.push(of_type("x-kubernetes-map-type", "object"));
        }
        if !["atomic", "granular"].contains(&map_type) {
            errors.push(FieldError::not_supported(
                format!("{at}.x-kubernetes-map-type"),
                map_type,
                ["atomic", "granular"],
            ));
        }
    }
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys: Vec<&str> = branches(schema, "x-kubernetes-list-map-keys")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if list_type.is_some() && kind != "array" {
        errors.push(of_type("x-kubernetes-list-type", "array"));
    }
    match list_type {
        None | Some("atomic" | "set" | "map") => {}
        Some(other) => errors.push(FieldError::not_supported(
            format!("{at}.x-kubernetes-list-type"),
            other,
            ["atomic", "set", "map"],
        )),
    }
    if !keys.is_empty() && list_type != Some("map") {
        let words = "must be map if x-kubernetes-list-map-keys is non-empty";
        let here = format!("{at}.x-kubernetes-list-type");
        errors.push(match list_type {
            None => FieldError::required(here, words),
            Some(other) => FieldError::invalid(here, other, words),
        });
    }
    let items = schema.get("items").filter(|i| i.is_object());
    match (list_type, items) {
        (Some("set"), Some(items)) => set_items(items, at, errors),
        (Some("map"), _) => map_items(&keys, items, at, errors),
        _ => {}
    }
}

fn set_items(items: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let words = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let extension = match text(items, "type") {
        "array" => "x-kubernetes-list-type",
        "object" => "x-kubernetes-map-type",
        _ => "",
    };
    let declared = text(items, extension);
    // The defaults: lists are atomic and maps are granular.
    let atomic = declared == "atomic" || (declared.is_empty() && extension == "x-kubernetes-list-type");
    if !extension.is_empty() && !atomic {
        errors.push(FieldError::invalid(format!("{at}.items.{extension}"), declared, words));
    }
    if flag(items, "nullable") {
        errors.push(FieldError::forbidden(
            format!("{at}.items.nullable"),
            "cannot be nullable when x-kubernetes-list-type is set",
        ));
    }
}

fn map_items(keys: &[&str], items: Option<&Value>, at: &str, errors: &mut Vec<FieldError>) {
    if keys.is_empty() {
        errors.push(FieldError::required(
            format!("{at}.x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    let Some(items) = items else {
        errors.push(FieldError::required(
            format!("{at}.items"),
            "must have a schema if x-kubernetes-list-type is map",
        ));
        return;
    };
    if text(items, "type") != "object" {
        errors.push(FieldError::invalid(
            format!("{at}.items.type"),
            text(items, "type"),
            "must be object if parent array's x-kubernetes-list-type is map",
        ));
    }
    if flag(items, "nullable") {
        errors.push(FieldError::forbidden(
            format!("{at}.items.nullable"),
            "cannot be nullable when x-kubernetes-list-type is map",
        ));
    }
    let required: Vec<&str> = branches(items, "required").iter().filter_map(Value::as_str).collect();
    for (i, key) in keys.iter().enumerate() {
        let keys_at = format!("{at}.x-kubernetes-list-map-keys");
        if keys[..i].contains(key) {
            errors.push(FieldError::invalid(
                keys_at,
                keys.to_vec(),
                "must not contain duplicate entries",
            ));
            continue;
        }
        let Some(property) = items.get("properties").and_then(|p| p.get(*key)) else {
            errors.push(FieldError::invalid(
                keys_at,
                keys.to_vec(),
                "entries must all be names of item properties",
            ));
            continue;
        };
        let property_at = format!("{at}.items.properties[{key}]");
        if ["array", "object"].contains(&text(property, "type")) {
            errors.push(FieldError::invalid(
                format!("{property_at}.type"),
                text(property, "type"),
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            ));
        }
        if property.get("default").is_none_or(Value::is_null) && !required.contains(key) {
            errors.push(FieldError::required(
                format!("{property_at}.default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
        if flag(property, "nullable") {
            errors.push(FieldError::forbidden(
                format!("{property_at}.nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ));
        }
    }
}

fn rules(schema: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (i, rule) in branches(schema, "x-kubernetes-validations").iter().enumerate() {
        let here = format!("{at}.x-kubernetes-validations[{i}]");
        let expression = text(rule, "rule").trim();
        if expression.is_empty() {
            errors.push(FieldError::required(format!("{here}.rule"), "rule is not specified"));
        }
        if let Some(message) = rule.get("message").and_then(Value::as_str).filter(|m| !m.is_empty()) {
            if message.trim().is_empty() {
                errors.push(FieldError::invalid(
                    format!("{here}.message"),
                    message,
                    "must be non-empty if specified",
                ));
            } else if message.trim().contains('\n') {
                errors.push(FieldError::invalid(
                    format!("{here}.message"),
                    message,
                    "must not contain line breaks",
                ));
            }
        } else if expression.contains('\n') {
            errors.push(FieldError::required(
                format!("{here}.message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        let reasons = [
            "FieldValueForbidden",
            "FieldValueRequired",
            "FieldValueInvalid",
            "FieldValueDuplicate",
        ];
        if let Some(reason) = rule
            .get("reason")
            .and_then(Value::as_str)
            .filter(|r| !reasons.contains(r))
        {
            let mut sorted = reasons;
            sorted.sort_unstable();
            errors.push(FieldError::not_supported(format!("{here}.reason"), reason, sorted));
        }
        if let Some(path) = rule.get("fieldPath").and_then(Value::as_str)
            && !super::field_names::field_path_exists(schema, path)
        {
            errors.push(FieldError::invalid(
                format!("{here}.fieldPath"),
                path,
                "must be a valid path",
            ));
        }
    }
}

fn is_int_or_string(list: &[Value]) -> bool {
    list.len() == 2
        && list
            .iter()
            .zip(["integer", "string"])
            .all(|(branch, kind)| branch.as_object().is_some_and(|b| b.len() == 1) && text(branch, "type") == kind)
}

fn int_or_string_any_of(schema: &Value) -> bool {
    is_int_or_string(branches(schema, "anyOf"))
}

fn int_or_string_all_of(schema: &Value) -> bool {
    branches(schema, "allOf")
        .first()
        .is_some_and(|first| is_int_or_string(branches(first, "anyOf")))
}

fn value_validation(
    schema: &Value,
    at: &str,
    skip_any_of: bool,
    skip_first_all_of: bool,
    errors: &mut Vec<FieldError>,
) {
    if !skip_any_of {
        for (i, branch) in branches(schema, "anyOf").iter().enumerate() {
            nested(branch, &format!("{at}.anyOf[{i}]"), false, errors);
        }
    }
    for (i, branch) in branches(schema, "allOf").iter().enumerate() {
        nested(branch, &format!("{at}.allOf[{i}]"), skip_first_all_of && i == 0, errors);
    }
    for (i, branch) in branches(schema, "oneOf").iter().enumerate() {
        nested(branch, &format!("{at}.oneOf[{i}]"), false, errors);
    }
    if let Some(not) = schema.get("not") {
        nested(not, &format!("{at}.not"), false, errors);
    }
}

/// Checks that a schema below a logical junctor restricts only values. Structure must be outside of it.
fn nested(schema: &Value, at: &str, skip_any_of: bool, errors: &mut Vec<FieldError>) {
    value_validation(schema, at, skip_any_of, false, errors);
    if let Some(items) = schema.get("items") {
        nested(items, &format!("{at}.items"), false, errors);
    }
    for (name, child) in properties(schema) {
        nested(child, &format!("{at}.properties[{name}]"), false, errors);
    }
    let forbidden: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (name, words) in forbidden {
        let set = schema.get(name).is_some_and(|v| match v {
            Value::Null | Value::Bool(false) => false,
            Value::String(s) => !s.is_empty(),
            Value::Array(a) => !a.is_empty(),
            _ => true,
        });
        if set {
            errors.push(FieldError::forbidden(format!("{at}.{name}"), words));
        }
    }
    if schema.get("properties").and_then(|p| p.get("metadata")).is_some() {
        errors.push(FieldError::forbidden(
            format!("{at}.properties[metadata]"),
            "must not be specified in a nested context",
        ));
    }
}

/// Checks that fields and arrays that are restricted below a junctor are also specified outside of it.
fn completeness(schema: &Value, at: &str, errors: &mut Vec<FieldError>) {
    junctors(schema, schema, at, at, errors);
    for (name, child) in properties(schema) {
        completeness(child, &format!("{at}.properties[{name}]"), errors);
    }
    if let Some(items) = schema.get("items") {
        completeness(items, &format!("{at}.items"), errors);
    }
    if let Some(additional) = schema.get("additionalProperties").filter(|a| a.is_object()) {
        completeness(additional, &format!("{at}.additionalProperties"), errors);
    }
}

fn junctors(structure: &Value, restriction: &Value, at: &str, from: &str, errors: &mut Vec<FieldError>) {
    for name in ["allOf", "anyOf", "oneOf"] {
        for (i, branch) in branches(restriction, name).iter().enumerate() {
            specified(structure, branch, at, &format!("{from}.{name}[{i}]"), errors);
        }
    }
    if let Some(not) = restriction.get("not") {
        specified(structure, not, at, &format!("{from}.not"), errors);
    }
}

fn specified(structure: &Value, restriction: &Value, at: &str, from: &str, errors: &mut Vec<FieldError>) {
    for (name, child) in properties(restriction) {
        let (here, there) = (format!("{at}.properties[{name}]"), format!("{from}.properties[{name}]"));
        match structure.get("properties").and_then(|p| p.get(name)) {
            Some(outer) => specified(outer, child, &here, &there, errors),
            None => errors.push(FieldError::required(here, format!("because it is defined in {there}"))),
        }
    }
    if let Some(items) = restriction.get("items") {
        let (here, there) = (format!("{at}.items"), format!("{from}.items"));
        match structure.get("items") {
            Some(outer) => specified(outer, items, &here, &there, errors),
            None => errors.push(FieldError::required(here, format!("because it is defined in {there}"))),
        }
    }
    junctors(structure, restriction, at, from, errors);
}
