//! The CRDs as they are installed: what the derive gives, made fit for the API server.
//!
//! The derive alone would leave `nullable` on every optional field (server-side apply then owns nulls), formats that
//! Kubernetes does not know, atomic condition lists and pages of text from embedded Kubernetes types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::{CustomResourceExt as _, Resource as _};
use serde_json::{Map, Value, json};

use crate::{Connection, ModelTraining, ToolchainIntegration, names::TRAINING_NAME_MAX};

/// Every CRD of the platform, in the order in which they are installed.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [ToolchainIntegration::crd(), Connection::crd(), ModelTraining::crd()]
        .into_iter()
        .map(refine)
        .collect()
}

/// The CRD of a kind, if it is one of ours.
#[must_use]
pub fn of_kind(kind: &str) -> Option<CustomResourceDefinition> {
    all().into_iter().find(|crd| crd.spec.names.kind == kind)
}

fn refine(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    // Generated types always serialise, and the refined schema is still one: both directions are covered by a test that
    // builds every CRD.
    let crd_kind = crd.spec.names.kind.clone();
    let mut value = serde_json::to_value(crd).expect("a CRD serialises");
    let schema = &mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(schema, false);
    if let Some(root) = schema.as_object_mut() {
        root.insert("required".into(), json!(["spec"]));
    }
    if crd_kind == ModelTraining::kind(&()) {
        // At the root, because only there does a rule see the name; without a field path, because the schema does not
        // list metadata's fields, and a field path must be in the schema.
        schema["x-kubernetes-validations"] = json!([{
            "rule": format!(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= {TRAINING_NAME_MAX}"
            ),
            "message": format!(
                "metadata.name becomes part of pod names: lower-case letters, digits and '-', beginning with a letter, at most {TRAINING_NAME_MAX} characters"
            ),
        }]);
    }
    let status = &mut schema["properties"]["status"];
    status["description"] = json!("What the operator says about it. Written by the operator only.");
    // A resource that nobody has looked at yet must not look settled to tools that compare generations.
    status["default"] = json!({ "observedGeneration": -1 });
    status["properties"]["conditions"]["x-kubernetes-list-type"] = json!("map");
    status["properties"]["conditions"]["x-kubernetes-list-map-keys"] = json!(["type"]);
    own_as_wholes(status);
    let spec = &mut schema["properties"]["spec"];
    spec["description"] = json!("What is asked for. Written by users only.");
    serde_json::from_value(value).expect("a refined CRD is a CRD")
}

/// Has the API server track who wrote what of a status by its parts and not by their fields: one writer writes them all. Two
/// fifths of what it notes about the operator in a finished training go away, which cost it time at every write, and everybody
/// else at every list.
fn own_as_wholes(status: &mut Value) {
    let parts = status["properties"].as_object_mut().into_iter().flatten();
    for (_, part) in parts.filter(|(_, part)| part["type"] == "object") {
        part["x-kubernetes-map-type"] = json!("atomic");
    }
}

/// Walks a schema: no `nullable`, no formats that Kubernetes does not know, first paragraphs only below types that are
/// not ours.
fn tidy(schema: &mut Value, foreign: bool) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("nullable");
    if let Some(format) = object.get("format").and_then(Value::as_str)
        && !matches!(format, "int32" | "int64" | "date-time" | "byte" | "double" | "float")
    {
        object.remove("format");
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = brief(text, foreign);
    }
    bound_foreign(object);
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, property) in properties {
            let foreign = foreign
                || matches!(
                    name.as_str(),
                    "env" | "affinity" | "tolerations" | "conditions" | "imagePullSecrets"
                );
            let ours = property.get("description").cloned();
            tidy(property, foreign);
            // The field itself is ours even where its type is not.
            if let (Some(Value::String(text)), Some(property)) = (ours, property.as_object_mut()) {
                property.insert("description".into(), Value::String(brief(&text, foreign)));
            }
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            tidy(inner, foreign);
        }
    }
}

/// A description on one line: all of ours, the first sentence of somebody else's.
fn brief(text: &str, foreign: bool) -> String {
    let line = text
        .split("\n\n")
        .next()
        .unwrap_or(text)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    match line.find(". ") {
        Some(end) if foreign => line[..=end].to_owned(),
        _ => line,
    }
}

/// What pods accept as a quantity, but for negative ones. Said here too, or a wrong one would be refused only when the pod
/// is created.
const QUANTITY: &str = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// Bounds that embedded Kubernetes types lack: CEL's cost estimate needs them, and users of quantities.
fn bound_foreign(object: &mut Map<String, Value>) {
    // Nothing else in these CRDs is a number or a text.
    if object.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        object.insert("pattern".into(), json!(QUANTITY));
        object.insert("minimum".into(), json!(0));
        if object
            .get("description")
            .and_then(Value::as_str)
            .is_some_and(|text| text.starts_with("Quantity is"))
        {
            object.insert("description".into(), json!("A quantity, such as 500m, 2 or 1.5Gi."));
        }
    }
    let is_env_var = object
        .get("properties")
        .is_some_and(|p| p.get("valueFrom").is_some() && p.get("name").is_some());
    if is_env_var {
        object["properties"]["name"]["maxLength"] = json!(256);
        object["properties"]["name"]["minLength"] = json!(1);
    }
}
