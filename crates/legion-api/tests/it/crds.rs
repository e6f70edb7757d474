//! The CRDs: what the API server accepts, and their size and cost.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use legion_api::crd;
use serde_json::{Value, json};

/// Calls `visit` with every schema node below `schema` and its path.
pub(crate) fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
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

pub(crate) fn schemas() -> Vec<(String, Value)> {
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
                // At the root Legion describes spec and status only.
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
fn a_new_status_is_not_settled_and_conditions_merge_by_type() {
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
            row(
                "conn",
                "legion",
                "TYPE URI READY AGE",
                ".spec.type .spec.secretRef.name"
            ),
            row(
                "mt",
                "legion",
                "SUCCEEDED REASON SCORE MODEL ATTEMPT DURATION AGE",
                ".spec.toolchain .spec.model.name .spec.source.configMap.name .spec.source.git.connection .spec.source.objectStore.connection .spec.source.volume.claimName .spec.output.connection"
            ),
        ]
    );
}

#[test]
fn wide_columns_are_as_documented() {
    let wide = |crd: &CustomResourceDefinition| {
        let columns = crd.spec.versions[0].additional_printer_columns.iter().flatten();
        let wide = columns.filter(|column| column.priority.is_some_and(|priority| priority > 0));
        wide.map(|column| column.name.to_uppercase())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let found: Vec<String> = crd::all().iter().map(wide).collect();
    assert_eq!(found, ["REASON", "REASON", "VERSION TOOLCHAIN RUN MESSAGE"]);
}

/// Returns the schema node of a simple JSON path. A filter on a list selects one of its items.
fn at_path<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut node = schema;
    for part in path
        .split('.')
        .filter(|part| !part.is_empty() && !part.starts_with("type=="))
    {
        let name = part.split('[').next().unwrap_or(part);
        node = node.get("properties")?.get(name)?;
        if part.contains('[') {
            node = node.get("items")?;
        }
    }
    Some(node)
}

#[test]
fn columns_and_selectable_fields_have_existing_fields() {
    let mut faults = Vec::new();
    for ((kind, schema), crd) in schemas().into_iter().zip(crd::all()) {
        let version = &crd.spec.versions[0];
        for column in version.additional_printer_columns.iter().flatten() {
            // `.status.conditions[?(@.type=="Ready")].status`: the dot inside the filter does not separate.
            let path = column.json_path.replace("[?(@.", "[.").replace(")]", "");
            let node = at_path(&schema, &path);
            let is_age = column.json_path == ".metadata.creationTimestamp" && column.type_ == "date";
            if !is_age && node.is_none_or(|node| node["type"] != column.type_.as_str()) {
                faults.push(format!(
                    "{kind}: column {} shows {}: {node:?}",
                    column.name, column.json_path
                ));
            }
            if column.description.is_none() && !is_age {
                faults.push(format!("{kind}: column {} has no description", column.name));
            }
        }
        let selectable: Vec<&str> = version
            .selectable_fields
            .iter()
            .flatten()
            .map(|field| field.json_path.as_str())
            .collect();
        // The API server refuses more than eight.
        if selectable.len() > 8 {
            faults.push(format!("{kind}: {} selectable fields", selectable.len()));
        }
        for path in selectable {
            let kind_of_field = at_path(&schema, path).map(|node| node["type"].clone());
            if kind_of_field != Some(json!("string")) {
                faults.push(format!("{kind}: {path} is {kind_of_field:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_default_and_every_list_that_merges_is_as_documented() {
    let (mut defaults, mut lists) = (Vec::new(), Vec::new());
    for (kind, schema) in schemas() {
        walk(&schema, &kind, &mut |path, node| {
            // Defaults of the status are for objects of older versions.
            if let Some(default) = node.get("default").filter(|_| !path.contains(".status.")) {
                defaults.push(format!("{path} = {default}"));
            }
            if node["x-kubernetes-list-type"] == "map" && path.matches('.').count() == 2 {
                lists.push(format!("{path} {}", node["x-kubernetes-list-map-keys"]));
            }
        });
    }
    defaults.sort();
    lists.sort();
    assert_eq!(
        defaults,
        [
            r#"Connection.status = {"observedGeneration":-1}"#,
            r#"ModelTraining.spec.entrypoint = "main""#,
            r#"ModelTraining.spec.gracePeriod = "1m""#,
            r#"ModelTraining.spec.output.pathTemplate = "{namespace}/{training}/{runId}""#,
            "ModelTraining.spec.retries = 0",
            "ModelTraining.spec.source.git.submodules = false",
            r#"ModelTraining.spec.startTimeout = "1h""#,
            "ModelTraining.spec.suspend = false",
            r#"ModelTraining.spec.timeout = "24h""#,
            r#"ModelTraining.spec.ttlAfterFinished = "10m""#,
            r#"ModelTraining.status = {"observedGeneration":-1}"#,
            "ToolchainIntegration.spec.acceptsArgs = false",
            "ToolchainIntegration.spec.securityContext.readOnlyRootFilesystem = false",
            r#"ToolchainIntegration.status = {"observedGeneration":-1}"#,
        ]
    );
    assert_eq!(
        lists,
        [
            r#"Connection.status.conditions ["type"]"#,
            r#"ModelTraining.spec.data ["name"]"#,
            r#"ModelTraining.spec.env ["name"]"#,
            r#"ModelTraining.spec.imagePullSecrets ["name"]"#,
            r#"ModelTraining.status.conditions ["type"]"#,
            r#"ToolchainIntegration.spec.env ["name"]"#,
            r#"ToolchainIntegration.status.conditions ["type"]"#,
        ]
    );
}

#[test]
fn schema_and_types_have_the_same_defaults() {
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
