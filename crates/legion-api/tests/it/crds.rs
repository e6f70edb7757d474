//! What the API server will accept as a CRD, and what it costs.

use legion_api::crd;
use serde_json::{Value, json};

/// Calls `visit` with every schema node below `schema` and its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, inner) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        walk(inner, &format!("{path}.{name}"), visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            walk(inner, &format!("{path}[]"), visit);
        }
    }
}

fn schemas() -> Vec<(String, Value)> {
    let schema = |crd: &Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    crd::all()
        .into_iter()
        .map(|crd| (crd.spec.names.kind.clone(), serde_json::to_value(crd).unwrap()))
        .map(|(kind, crd)| (kind, schema(&crd)))
        .collect()
}

#[test]
fn every_node_is_structural_and_described() {
    let mut faults = Vec::new();
    for (kind, schema) in schemas() {
        walk(&schema, &kind, &mut |path, node| {
            let typed = node.get("type").is_some()
                || node.get("x-kubernetes-int-or-string").is_some()
                || node.get("x-kubernetes-preserve-unknown-fields").is_some();
            if !typed {
                faults.push(format!("{path}: no type"));
            }
            if node.get("nullable").is_some() {
                faults.push(format!("{path}: nullable"));
            }
            if node
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"))
            {
                faults.push(format!("{path}: {}", node["format"]));
            }
            if ["oneOf", "anyOf", "allOf", "$ref"]
                .iter()
                .any(|key| node.get(*key).is_some())
                && node.get("x-kubernetes-int-or-string").is_none()
            {
                faults.push(format!("{path}: not structural"));
            }
            for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let described = property
                    .get("description")
                    .and_then(Value::as_str)
                    .is_some_and(|text| !text.is_empty());
                // At the root only spec and status are ours to describe.
                let standard = path == kind && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if !described && !standard {
                    faults.push(format!("{path}.{name}: no description"));
                }
            }
            if let Some(pattern) = node.get("pattern").and_then(Value::as_str)
                && let Err(error) = regex::Regex::new(pattern)
            {
                faults.push(format!("{path}: {error}"));
            }
        });
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_crd_stays_below_200_kib() {
    for crd in crd::all() {
        let size = serde_json::to_vec(&crd).unwrap().len();
        assert!(size < 200 * 1024, "{}: {size} bytes", crd.spec.names.kind);
    }
}

#[test]
fn status_never_looks_settled_before_it_was_seen_and_conditions_merge_by_type() {
    for (kind, schema) in schemas() {
        let status = &schema["properties"]["status"];
        assert_eq!(status["default"], json!({"observedGeneration": -1}), "{kind}");
        assert_eq!(
            status["properties"]["conditions"]["x-kubernetes-list-type"], "map",
            "{kind}"
        );
        assert_eq!(
            status["properties"]["conditions"]["x-kubernetes-list-map-keys"],
            json!(["type"]),
            "{kind}"
        );
    }
}

#[test]
fn names_columns_and_selectable_fields_are_as_documented() {
    let found: Vec<_> = crd::all()
        .into_iter()
        .map(|crd| {
            let version = &crd.spec.versions[0];
            let columns = version
                .additional_printer_columns
                .iter()
                .flatten()
                .filter(|c| c.priority.unwrap_or(0) == 0);
            (
                crd.spec.names.short_names.clone().unwrap_or_default().join(","),
                crd.spec.names.categories.clone().unwrap_or_default().join(","),
                columns.map(|c| c.name.to_uppercase()).collect::<Vec<_>>().join(" "),
                version
                    .selectable_fields
                    .iter()
                    .flatten()
                    .map(|f| f.json_path.clone())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        })
        .collect();
    let row = |a: &str, b: &str, c: &str, d: &str| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned());
    assert_eq!(
        found,
        [
            row("ti", "legion", "TYPE IMAGE FORMAT READY AGE", ".spec.type"),
            row("conn", "legion", "TYPE URI READY AGE", ".spec.type"),
            row(
                "mt",
                "legion",
                "SUCCEEDED REASON SCORE MODEL ATTEMPT DURATION AGE",
                ".spec.toolchain .spec.model.name .spec.source.configMap.name .spec.source.git.connection .spec.source.objectStore.connection .spec.output.connection"
            ),
        ]
    );
}

#[test]
fn what_the_schema_fills_in_is_what_the_types_fill_in() {
    let minimal = json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining", "metadata": {"name": "wine"},
        "spec": {"model": {"name": "wine", "version": "1"}, "toolchain": "mlflow", "source": {"configMap": {"name": "s"}}}
    });
    let by_schema = legion_api::validate::with_defaults(&minimal);
    let by_types: legion_api::ModelTraining = serde_json::from_value(minimal).unwrap();
    let of_schema: legion_api::ModelTraining = serde_json::from_value(by_schema.clone()).unwrap();
    assert_eq!(of_schema.spec, by_types.spec);
    assert_eq!(by_schema["spec"]["timeout"], "24h");
    assert_eq!(by_schema["spec"]["ttlAfterFinished"], "10m");
    assert_eq!(by_schema["spec"]["startTimeout"], "1h");
    assert_eq!(by_schema["spec"]["gracePeriod"], "1m");
}
