//! Validates the rendered charts with the real kubeconform. The schemas come from the pinned Kubernetes, from our CRDs
//! and from the CRDs of the Prometheus operator. Validation is strict: an unknown field is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use legion_tests::{local::repository, tool};
use serde_json::{Map, Value, json};

use crate::helm::{objects, template};

/// The CRDs of the Prometheus operator whose objects the chart renders.
pub(crate) fn prometheus_crds() -> anyhow::Result<Vec<PathBuf>> {
    let module = tool::module("crds", "github.com/prometheus-operator/prometheus-operator")?;
    let file = |kind: &str| {
        module.join(format!(
            "example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
        ))
    };
    Ok(["servicemonitors", "prometheusrules"].map(file).to_vec())
}

#[test]
fn rendered_objects_are_valid_against_their_schemas() -> anyhow::Result<()> {
    let schemas = tempfile::tempdir()?;
    let kubernetes = tool::module("tools", "k8s.io/kubernetes")?.join("api/openapi-spec/swagger.json");
    let swagger: Value = serde_json::from_str(&fs::read_to_string(&kubernetes)?)?;
    let mut manifests = BTreeMap::from([
        ("crds", template("legion-crds", None)?),
        ("default", template("legion", None)?),
    ]);
    for values in ["list", "own", "openshift", "everything"] {
        manifests.insert(values, template("legion", Some(values))?);
    }
    let wanted = kinds(manifests.values())?;
    write_builtin(schemas.path(), &swagger, &wanted)?;
    let mut crds = prometheus_crds()?;
    for entry in fs::read_dir(repository().join("crds"))? {
        crds.push(entry?.path());
    }
    for crd in crds {
        write_custom(schemas.path(), &objects(&fs::read_to_string(&crd)?)?)?;
    }
    // Otherwise a wrong file name would only show as an error of kubeconform.
    for (group, version, kind) in &wanted {
        let file = schemas.path().join(file_name(group, version, kind));
        ensure!(file.is_file(), "no schema of {group}/{version} {kind}");
    }
    let kubeconform = tool::path("kubeconform")?;
    let location = format!(
        "{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        schemas.path().display()
    );
    let check = |manifest: &str| {
        let arguments = ["-strict", "-summary", "-output", "json", "-schema-location", &location];
        tool::run(Command::new(&kubeconform).args(arguments), manifest)
    };
    for (name, manifest) in &manifests {
        let said = check(manifest)?;
        assert!(said.ok, "{name}: {}", said.all);
        let summary: Value = serde_json::from_str(&said.out)?;
        let valid = summary["summary"]["valid"].as_u64().unwrap_or_default();
        assert_eq!(valid, u64::try_from(objects(manifest)?.len())?, "{name}: {}", said.all);
    }
    // The purpose of the suite: an unknown field is found.
    for (from, to) in [
        ("enableServiceLinks:", "enableServiceLink:"),
        ("acceptsArgs: true", "acceptsArgs: maybe"),
        ("periodSeconds: 10", "periodSeconds: ten"),
    ] {
        let wrong = manifests["default"].replacen(from, to, 1);
        let said = check(&wrong)?;
        assert!(wrong != manifests["default"] && !said.ok, "{to} is accepted");
    }
    Ok(())
}

type Kind = (String, String, String);

fn kinds<'a>(manifests: impl Iterator<Item = &'a String>) -> anyhow::Result<BTreeSet<Kind>> {
    let mut found = BTreeSet::new();
    for manifest in manifests {
        for object in objects(manifest)? {
            let version = object["apiVersion"].as_str().context("apiVersion")?;
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let kind = object["kind"].as_str().context("kind")?;
            found.insert((group.to_owned(), version.to_owned(), kind.to_owned()));
        }
    }
    Ok(found)
}

/// Returns the name in the form of kubeconform's location template: of the group, only the first label.
fn file_name(group: &str, version: &str, kind: &str) -> String {
    let group = group.split('.').next().filter(|group| !group.is_empty());
    let parts: Vec<&str> = [Some(kind), group, Some(version)].into_iter().flatten().collect();
    format!("{}.json", parts.join("-").to_lowercase())
}

/// Writes the schemas of Kubernetes' own kinds, each with the definitions that it reaches.
fn write_builtin(directory: &Path, swagger: &Value, wanted: &BTreeSet<Kind>) -> anyhow::Result<()> {
    let definitions = swagger["definitions"].as_object().context("definitions")?;
    for (name, definition) in definitions {
        for kind in definition["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let text = |field: &str| kind[field].as_str().unwrap_or_default().to_owned();
            let kind = (text("group"), text("version"), text("kind"));
            if !wanted.contains(&kind) {
                continue;
            }
            let mut reached = Map::new();
            let mut open = vec![name.clone()];
            while let Some(name) = open.pop() {
                if reached.contains_key(&name) {
                    continue;
                }
                let mut definition = definitions.get(&name).cloned().context("a definition")?;
                if name == "io.k8s.apimachinery.pkg.api.resource.Quantity"
                    || name == "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
                {
                    definition = json!({"type": ["string", "number"]});
                }
                strict(&mut definition, &mut open);
                reached.insert(name, definition);
            }
            let schema = json!({"$ref": format!("#/definitions/{name}"), "definitions": reached});
            fs::write(directory.join(file_name(&kind.0, &kind.1, &kind.2)), schema.to_string())?;
        }
    }
    Ok(())
}

/// Writes the schemas of custom kinds.
fn write_custom(directory: &Path, crds: &[Value]) -> anyhow::Result<()> {
    for crd in crds {
        let spec = &crd["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for version in spec["versions"].as_array().into_iter().flatten() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            strict(&mut schema, &mut Vec::new());
            schema["properties"]["apiVersion"] = json!({"type": "string"});
            schema["properties"]["kind"] = json!({"type": "string"});
            schema["properties"]["metadata"] = json!({"type": "object"});
            let name = file_name(
                &text(&spec["group"]),
                &text(&version["name"]),
                &text(&spec["names"]["kind"]),
            );
            fs::write(directory.join(name), schema.to_string())?;
        }
    }
    Ok(())
}

/// Forbids unknown fields in a schema, and collects its references.
fn strict(schema: &mut Value, references: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                references.extend(reference.strip_prefix("#/definitions/").map(str::to_owned));
            }
            if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                fields.insert("type".to_owned(), json!(["integer", "string"]));
            }
            // Kubernetes' formats are not those of JSON Schema.
            if fields.get("format").is_some_and(Value::is_string) {
                fields.remove("format");
            }
            let is_open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            // A property may be named "properties". Only the keyword of a schema holds schemas.
            let has_fields =
                fields.get("properties").is_some_and(Value::is_object) && fields.get("type") == Some(&json!("object"));
            if has_fields && !is_open && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            for value in fields.values_mut() {
                strict(value, references);
            }
        }
        Value::Array(items) => {
            for item in items {
                strict(item, references);
            }
        }
        _ => {}
    }
}
