//! The schemas of a document.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::Described;
use crate::schema::builtin::definitions::{BUILTINS, find};
use crate::schema::builtin::tables;

/// Name of the schema of patch bodies.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The built-in definitions with all information that clients need for merging.
static PUBLISHED: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut published = BUILTINS.definitions.clone();
    for (name, schema) in &mut published {
        publish(name, schema);
    }
    for builtin in &BUILTINS.kinds {
        if let Some(schema) = published.get_mut(&builtin.definition) {
            schema["x-kubernetes-group-version-kind"] = gvk(builtin.group, builtin.version, builtin.kind);
        }
    }
    published.insert(
        PATCH.to_owned(),
        json!({
            "type": "object",
            "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
        }),
    );
    published
});

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!([{ "group": group, "version": version, "kind": kind }])
}

fn publish(name: &str, schema: &mut Value) {
    // Two kinds of values have two JSON types. Plain OpenAPI expresses this with `oneOf`.
    if schema.get("x-kubernetes-int-or-string").is_some() {
        let description = schema["description"].take();
        *schema = match name.rsplit('.').next() {
            Some("Quantity") => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            _ => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        };
        schema["description"] = description;
        return;
    }
    if tables::is_atomic(name) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, property) in properties {
        for (extension, value) in tables::extensions(name, field) {
            property[extension] = value;
        }
        if let Some(default) = tables::default_of(name, field) {
            property["default"] = default;
        }
    }
}

/// The schemas that a document needs: those of its kinds and all schemas that they refer to.
#[derive(Default)]
pub(super) struct Components {
    schemas: Map<String, Value>,
}

impl Components {
    /// Adds the schema of a kind and returns its name.
    pub(super) fn add_kind(&mut self, described: &Described<'_>) -> String {
        self.add_definition(PATCH);
        let resource = described.resource;
        if let Some(builtin) = find(&resource.group, &resource.version, &resource.kind) {
            self.add_definition(&builtin.definition);
            return builtin.definition.clone();
        }
        self.add_definition(OBJECT_META);
        let mut reversed: Vec<&str> = resource.group.split('.').rev().collect();
        reversed.extend([resource.version.as_str(), resource.kind.as_str()]);
        let name = reversed.join(".");
        let mut schema = described
            .schema
            .cloned()
            .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        schema["x-kubernetes-group-version-kind"] = gvk(&resource.group, &resource.version, &resource.kind);
        let properties = &mut schema["properties"];
        if !properties.is_object() {
            *properties = json!({});
        }
        let text = |name: &str| json!({"type": "string", "description": described_field(name)});
        properties["apiVersion"] = text("apiVersion");
        properties["kind"] = text("kind");
        properties["metadata"] = json!({
            "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}],
            "description": described_field("metadata"),
        });
        self.schemas.insert(name.clone(), schema);
        name
    }

    fn add_definition(&mut self, name: &str) {
        if self.schemas.contains_key(name) {
            return;
        }
        let Some(schema) = PUBLISHED.get(name) else { return };
        self.schemas.insert(name.to_owned(), schema.clone());
        let mut references = Vec::new();
        collect_references(schema, &mut references);
        for reference in references {
            self.add_definition(reference);
        }
    }

    pub(super) fn into_schemas(self) -> Map<String, Value> {
        self.schemas
    }
}

/// Returns the description of a field that all objects have.
fn described_field(name: &str) -> Value {
    PUBLISHED
        .get("io.k8s.api.core.v1.Pod")
        .and_then(|pod| pod.pointer(&format!("/properties/{name}/description")))
        .cloned()
        .unwrap_or_default()
}

fn collect_references<'a>(schema: &'a Value, out: &mut Vec<&'a str>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().filter(|_| key == "$ref") {
                    Some(reference) => out.push(reference.rsplit('/').next().unwrap_or(reference)),
                    None => collect_references(value, out),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| collect_references(item, out)),
        _ => {}
    }
}
