//! The CRDs as they are installed: the derived CRDs, refined for the API server.
//!
//! A derived CRD has `nullable` on every optional field, and server-side apply would then own nulls. It also has
//! formats that Kubernetes does not know, atomic condition lists and long texts of embedded Kubernetes types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::{CustomResourceExt as _, Resource as _};
use serde_json::{Map, Value, json};

use crate::{Connection, ModelTraining, ToolchainIntegration, names::TRAINING_NAME_MAX};

/// Returns every CRD of the platform, in the order of their installation.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [ToolchainIntegration::crd(), Connection::crd(), ModelTraining::crd()]
        .into_iter()
        .map(refine)
        .collect()
}

/// Returns the CRD of one of Legion's kinds.
#[must_use]
pub fn of_kind(kind: &str) -> Option<CustomResourceDefinition> {
    all().into_iter().find(|crd| crd.spec.names.kind == kind)
}

fn refine(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    // A derived CRD always serializes, and a refined schema is still a schema. A test builds every CRD and covers both
    // directions.
    let crd_kind = crd.spec.names.kind.clone();
    let mut value = serde_json::to_value(crd).expect("a CRD serializes");
    let schema = &mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(schema, false);
    if let Some(root) = schema.as_object_mut() {
        root.insert("required".into(), json!(["spec"]));
    }
    if crd_kind == ModelTraining::kind(&()) {
        // The rule is at the root, because only there it sees the name. It has no field path: the path must be in the
        // schema, and the schema does not list metadata's fields.
        schema["x-kubernetes-validations"] = json!([{
            "rule": format!(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= {TRAINING_NAME_MAX}"
            ),
            "message": format!(
                "metadata.name becomes part of pod names: lowercase letters, digits and '-', starting with a letter, at most {TRAINING_NAME_MAX} characters"
            ),
        }]);
    }
    let status = &mut schema["properties"]["status"];
    status["description"] = json!("The observed state. Only the operator writes it.");
    // Tools that compare generations must see that the operator has not reconciled a new resource yet.
    status["default"] = json!({ "observedGeneration": -1 });
    status["properties"]["conditions"]["x-kubernetes-list-type"] = json!("map");
    status["properties"]["conditions"]["x-kubernetes-list-map-keys"] = json!(["type"]);
    own_as_wholes(status);
    let spec = &mut schema["properties"]["spec"];
    spec["description"] = json!("The desired state. Only users write it.");
    serde_json::from_value(value).expect("a refined CRD is a CRD")
}

/// Makes the parts of a status atomic, so that the API server tracks their owner as a whole and not by field. The
/// operator writes all of them. This removes two fifths of the managed fields of a finished training. Managed fields
/// cost the API server time at every write, and every client at every list.
fn own_as_wholes(status: &mut Value) {
    let parts = status["properties"].as_object_mut().into_iter().flatten();
    for (_, part) in parts.filter(|(_, part)| part["type"] == "object") {
        part["x-kubernetes-map-type"] = json!("atomic");
    }
}

/// Removes `nullable` and unknown formats from a schema. Descriptions of foreign types are cut to their first sentence.
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
            // The field is Legion's own, even when its type is not.
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

/// Returns a description on one line. A foreign description is cut to its first sentence.
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

/// The quantities that pods accept, except negative ones. Without this pattern a wrong quantity would be refused only
/// when the pod is created.
const QUANTITY: &str = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// Adds bounds that embedded Kubernetes types lack. CEL's cost estimate needs them, and so do users of quantities.
fn bound_foreign(object: &mut Map<String, Value>) {
    // Only quantities are both numbers and strings in these CRDs.
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
