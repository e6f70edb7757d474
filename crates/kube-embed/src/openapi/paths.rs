//! The operations of a resource.

use serde_json::{Map, Value, json};

use super::Described;
use crate::resource::{ResourceInfo, Subresource};

const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

const DRY_RUN: (&str, &str, &str) = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
);
const FIELD_MANAGER: (&str, &str, &str) = (
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes.",
);
const FIELD_VALIDATION: (&str, &str, &str) = (
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle unknown or duplicate fields: Ignore, Warn or Strict.",
);
const FORCE: (&str, &str, &str) = (
    "force",
    "boolean",
    "Force re-acquires conflicting fields owned by other people. Only for apply requests.",
);

/// Adds all paths of a resource. `schema` is the name of its kind's schema.
pub(super) fn add(paths: &mut Map<String, Value>, described: &Described<'_>, schema: &str) {
    let resource = described.resource;
    let prefix = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let everywhere = format!("{prefix}/{}", resource.plural);
    let collection = if resource.namespaced {
        paths.insert(
            everywhere,
            json!({"get": operation(resource, "list", "list", schema, &[])}),
        );
        format!("{prefix}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        everywhere
    };
    paths.insert(
        collection.clone(),
        json!({
            "parameters": path_parameters(resource, false),
            "get": operation(resource, "list", "list", schema, &[]),
            "post": with_body(
                operation(resource, "create", "post", schema, &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION]), &[JSON], schema),
            "delete": operation(resource, "delete collection of", "deletecollection", schema, &[DRY_RUN]),
        }),
    );
    let item = format!("{collection}/{{name}}");
    let mut operations = item_operations(described, schema);
    operations["delete"] = operation(resource, "delete", "delete", schema, &[DRY_RUN]);
    paths.insert(item.clone(), operations);
    if resource.has(Subresource::Status) {
        paths.insert(format!("{item}/status"), item_operations(described, schema));
    }
}

fn item_operations(described: &Described<'_>, schema: &str) -> Value {
    let resource = described.resource;
    let write = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
    let patch = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
    // Custom resources have no merge strategies. Clients detect that from this list.
    let formats: &[&str] = match described.schema {
        None => &[APPLY, JSON_PATCH, MERGE_PATCH, STRATEGIC],
        Some(_) => &[APPLY, JSON_PATCH, MERGE_PATCH],
    };
    json!({
        "parameters": path_parameters(resource, true),
        "get": operation(resource, "read", "get", schema, &[]),
        "put": with_body(operation(resource, "replace", "put", schema, &write), &[JSON], schema),
        "patch": with_body(
            operation(resource, "partially update", "patch", schema, &patch), formats, super::schemas::PATCH),
    })
}

fn operation(
    resource: &ResourceInfo,
    description: &str,
    action: &str,
    schema: &str,
    parameters: &[(&str, &str, &str)],
) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|(name, kind, text)| json!({"name": name, "in": "query", "description": text, "schema": {"type": kind, "uniqueItems": true}}))
        .collect();
    let returned = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
    // Lists have no schema of their own, because no client needs it.
    let responses = if action == "list" || action == "deletecollection" {
        json!({"200": {"description": "OK"}})
    } else {
        json!({"200": {"description": "OK", "content": {JSON: returned}}})
    };
    json!({
        "description": format!("{description} the specified {}", resource.kind),
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
    })
}

fn with_body(mut operation: Value, formats: &[&str], schema: &str) -> Value {
    let content: Map<String, Value> = formats
        .iter()
        .map(|format| {
            (
                (*format).to_owned(),
                json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}}),
            )
        })
        .collect();
    operation["requestBody"] = json!({"content": content, "required": true});
    operation
}

fn path_parameters(resource: &ResourceInfo, item: bool) -> Value {
    let mut out = Vec::new();
    let mut add = |name: &str, text: String| {
        out.push(json!({
            "name": name, "in": "path", "required": true, "description": text,
            "schema": {"type": "string", "uniqueItems": true},
        }));
    };
    if item {
        add("name", format!("name of the {}", resource.kind));
    }
    if resource.namespaced {
        add(
            "namespace",
            "object name and auth scope, such as for teams and projects".to_owned(),
        );
    }
    out.into()
}
