//! `docs/reference/<kind>.md`: every field of a kind, from its CRD.

use std::fmt::Write as _;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value;

use super::{File, NOTE, cell, paragraph, wrap};

/// Fields whose types are Kubernetes' own: named, not unfolded.
const FOREIGN: [(&str, &str); 5] = [
    ("env", "EnvVar"),
    ("affinity", "Affinity"),
    ("tolerations", "Toleration"),
    ("imagePullSecrets", "LocalObjectReference"),
    ("conditions", "Condition"),
];

pub(super) fn files() -> anyhow::Result<Vec<File>> {
    legion_api::crd::all().iter().map(page).collect()
}

fn page(crd: &CustomResourceDefinition) -> anyhow::Result<File> {
    let names = &crd.spec.names;
    let kind = &names.kind;
    let version = crd
        .spec
        .versions
        .first()
        .with_context(|| format!("{kind} has no version"))?;
    let schema = version
        .schema
        .as_ref()
        .and_then(|schema| schema.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema)?;
    let names = format!(
        "`apiVersion: {}/{}`, `kind: {kind}`, {}, `kubectl get {}`{}.",
        crd.spec.group,
        version.name,
        crd.spec.scope.to_lowercase(),
        names.plural,
        names
            .short_names
            .iter()
            .flatten()
            .map(|name| format!(", `kubectl get {name}`"))
            .collect::<String>(),
    );
    let mut text = format!(
        "<!-- {NOTE} -->\n# {kind}\n\n{}\n\n{}\n",
        paragraph(schema["description"].as_str().unwrap_or_default()),
        paragraph(&names)
    );
    columns(&mut text, version);
    for (part, about) in [
        ("spec", "Written only by users. No controller changes it."),
        ("status", "Written only by the operator."),
    ] {
        let _ = write!(
            text,
            "\n## {part}\n\n{about}\n\n| field | type | default | meaning |\n|---|---|---|---|\n"
        );
        rows(&mut text, part, &schema["properties"][part]);
    }
    rules(&mut text, &schema);
    Ok(File::new(format!("docs/reference/{}.md", kind.to_lowercase()), text))
}

fn columns(text: &mut String, version: &CustomResourceDefinitionVersion) {
    let Some(columns) = &version.additional_printer_columns else {
        return;
    };
    text.push_str("\n## Columns\n\n| column | shows | with |\n|---|---|---|\n");
    for column in columns {
        let wide = if column.priority.unwrap_or_default() > 0 {
            "`-o wide`"
        } else {
            "always"
        };
        let about = column
            .description
            .clone()
            .unwrap_or_else(|| format!("`{}`", column.json_path.trim_start_matches('.')));
        let _ = writeln!(text, "| {} | {} | {wide} |", column.name.to_uppercase(), cell(&about));
    }
    let selectable: Vec<String> = version
        .selectable_fields
        .iter()
        .flatten()
        .map(|field| format!("`{}`", field.json_path.trim_start_matches('.')))
        .collect();
    if !selectable.is_empty() {
        let selectors = format!("Field selectors: {}.", selectable.join(", "));
        let _ = write!(text, "\n{}\n", paragraph(&selectors));
    }
}

fn rows(text: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|required| required == name))
    };
    for (name, property) in properties {
        let path = format!("{path}.{name}");
        let foreign = FOREIGN.iter().find(|(field, _)| field == name).map(|(_, kind)| *kind);
        let default = match &property["default"] {
            Value::Null if required(name) => "required".to_owned(),
            Value::Null => String::new(),
            value => format!("`{value}`"),
        };
        let _ = writeln!(
            text,
            "| `{path}` | {} | {} | {} |",
            type_of(property, foreign),
            cell(&default),
            cell(&meaning(property)),
        );
        if foreign.is_some() {
            continue;
        }
        rows(text, &path, property);
        if property["items"].is_object() {
            rows(text, &format!("{path}[]"), &property["items"]);
        }
    }
}

fn meaning(property: &Value) -> String {
    let mut text = property["description"].as_str().unwrap_or_default().to_owned();
    for rule in property["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if let Some(message) = rule["message"].as_str() {
            let _ = write!(text, " Rule: {message}.");
        }
    }
    text
}

fn type_of(property: &Value, foreign: Option<&str>) -> String {
    let kind = property["type"].as_str();
    if let Some(values) = property["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter_map(Value::as_str)
            .map(|value| format!("`{value}`"))
            .collect();
        return values.join(" \\| ");
    }
    if property["x-kubernetes-int-or-string"] == true {
        return "int or string".to_owned();
    }
    match (kind, foreign) {
        (Some("array"), Some(foreign)) => format!("list of {foreign} (Kubernetes)"),
        (Some("array"), None) => format!("list of {}", type_of(&property["items"], None)),
        (_, Some(foreign)) => format!("{foreign} (Kubernetes)"),
        (Some("object"), None) if property["additionalProperties"].is_object() => {
            format!("map to {}", type_of(&property["additionalProperties"], None))
        }
        (Some("object"), None) if property["x-kubernetes-preserve-unknown-fields"] == true => "any object".to_owned(),
        (Some(kind), None) => kind.to_owned(),
        (None, None) => "any".to_owned(),
    }
}

/// Lists the rules of the whole object or spec. They belong to no field of the table.
fn rules(text: &mut String, schema: &Value) {
    let messages: Vec<&str> = [schema, &schema["properties"]["spec"]]
        .into_iter()
        .flat_map(|schema| schema["x-kubernetes-validations"].as_array().into_iter().flatten())
        .filter_map(|rule| rule["message"].as_str())
        .collect();
    if messages.is_empty() {
        return;
    }
    text.push_str("\n## Rules over several fields\n\n");
    for message in messages {
        let _ = writeln!(text, "- {}", wrap(message, 118).join("\n  "));
    }
}
