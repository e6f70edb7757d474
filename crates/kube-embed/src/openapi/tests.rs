//! The documents contain what kubectl reads. The tests look it up as kubectl does.

use serde_json::{Value, json};

use super::*;
use crate::resource::{ResourceInfo, built_ins};

fn documents() -> Vec<(String, String, Value)> {
    let resources = built_ins();
    let mut versions: Vec<(String, String)> = resources.iter().map(|r| (r.group.clone(), r.version.clone())).collect();
    versions.sort();
    versions.dedup();
    versions
        .into_iter()
        .map(|(group, version)| {
            let described: Vec<Described<'_>> = resources
                .iter()
                .filter(|r| r.group == group && r.version == version)
                .map(|resource| Described { resource, schema: None })
                .collect();
            let document = v3_document(&group, &version, &described);
            (group, version, document)
        })
        .collect()
}

fn core() -> Value {
    documents().into_iter().find(|(group, ..)| group.is_empty()).unwrap().2
}

fn widgets() -> Value {
    let resource = ResourceInfo {
        group: "example.com".into(),
        version: "v1alpha1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        custom: true,
        ..built_ins().into_iter().find(|r| r.kind == "Pod").unwrap()
    };
    let schema = json!({"type": "object", "description": "A widget.", "properties": {
        "spec": {"type": "object", "description": "What is wanted.", "properties": {"size": {"type": "integer"}}},
    }});
    v3_document(
        "example.com",
        "v1alpha1",
        &[Described {
            resource: &resource,
            schema: Some(&schema),
        }],
    )
}

fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|v| references(v, out));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves() {
    let all = documents().into_iter().map(|(.., d)| d).chain([widgets()]);
    for document in all {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            // Names contain dots and no slashes, so the reference is already a JSON pointer.
            assert!(
                document.pointer(reference.trim_start_matches('#')).is_some(),
                "{reference}"
            );
        }
    }
}

/// `kubectl apply` reads a kind's PATCH operation, its query parameters and its formats.
#[test]
fn patch_operations_list_parameters_and_formats() {
    let patch = |document: &Value, path: &str| document["paths"][path]["patch"].clone();
    let pod = patch(&core(), "/api/v1/namespaces/{namespace}/pods/{name}");
    let widget = patch(
        &widgets(),
        "/apis/example.com/v1alpha1/namespaces/{namespace}/widgets/{name}",
    );
    for (operation, gvk) in [
        (&pod, json!({"group": "", "version": "v1", "kind": "Pod"})),
        (
            &widget,
            json!({"group": "example.com", "version": "v1alpha1", "kind": "Widget"}),
        ),
    ] {
        assert_eq!(operation["x-kubernetes-group-version-kind"], gvk);
        let names: Vec<&str> = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(
            operation["requestBody"]["content"]
                .get("application/apply-patch+yaml")
                .is_some()
        );
    }
    let strategic = "application/strategic-merge-patch+json";
    assert!(pod["requestBody"]["content"].get(strategic).is_some());
    assert!(widget["requestBody"]["content"].get(strategic).is_none());
}

/// Client-side apply computes its patch from these.
#[test]
fn merge_keys_are_published() {
    let document = core();
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
    assert_eq!(port["default"], "TCP");
    assert_eq!(
        schemas["io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"]["x-kubernetes-map-type"],
        "atomic"
    );
    assert!(schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]["oneOf"].is_array());
}

/// `kubectl explain` finds the kind by a path's operation and the schema by the kind.
#[test]
fn explain_finds_descriptions() {
    for (document, path, name) in [
        (core(), "/api/v1/namespaces/{namespace}/pods", "io.k8s.api.core.v1.Pod"),
        (
            widgets(),
            "/apis/example.com/v1alpha1/namespaces/{namespace}/widgets",
            "com.example.v1alpha1.Widget",
        ),
    ] {
        let kind = document["paths"][path]["get"]["x-kubernetes-group-version-kind"].clone();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let (found, schema) = schemas
            .iter()
            .find(|(_, s)| {
                s["x-kubernetes-group-version-kind"]
                    .as_array()
                    .is_some_and(|k| k.contains(&kind))
            })
            .unwrap();
        assert_eq!(found, name);
        assert!(schema["description"].as_str().is_some_and(|d| !d.is_empty()));
        assert!(schema["properties"]["apiVersion"]["description"].is_string());
    }
}

#[test]
fn root_lists_documents_with_their_hashes() {
    let root = v3_root(&[("api/v1".into(), "abc".into())]);
    assert_eq!(
        root,
        json!({"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=abc"}}})
    );
}
