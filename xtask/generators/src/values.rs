//! `charts/*/values.yaml` and `docs/reference/chart-values.md`, from `charts/*/values.schema.json`.
//! Meaning, type and default of a value are written once.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, bail};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::{File, NOTE, cell, paragraph, wrap};

/// As much of a JSON Schema as the charts use.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schema {
    #[serde(default)]
    description: String,
    /// In the order in which they stand in the file.
    #[serde(default)]
    properties: IndexMap<String, Schema>,
    default: Option<Value>,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "$defs", default)]
    definitions: IndexMap<String, Schema>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "enum")]
    choices: Option<Vec<Value>>,
    pattern: Option<String>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    #[serde(default)]
    one_of: Vec<Schema>,
}

pub(super) fn files(root: &Path, charts: &[&str]) -> anyhow::Result<Vec<File>> {
    let mut reference = format!(
        "<!-- {NOTE} -->\n# Values of the charts\n\n{}\n",
        paragraph(
            "Helm refuses an unknown or invalid value, with its name. The most important ones are in \
             [the installation guide](../guides/install.md)."
        )
    );
    let mut files = Vec::new();
    for chart in charts {
        let path = format!("charts/{chart}/values.schema.json");
        let text = fs::read_to_string(root.join(&path)).with_context(|| path.clone())?;
        let schema: Schema = serde_json::from_str(&text).with_context(|| path.clone())?;
        let mut yaml = format!("# {NOTE} From values.schema.json.\n");
        let _ = write!(
            reference,
            "\n## {chart}\n\n{}\n\n| value | type | default | meaning |\n|---|---|---|---|\n",
            schema.description
        );
        for (name, property) in &schema.properties {
            // Helm's own, for charts with subcharts.
            if name != "global" {
                value(&mut yaml, &mut reference, &schema, property, name, name, 0).with_context(|| path.clone())?;
            }
        }
        files.push(File::new(format!("charts/{chart}/values.yaml"), yaml));
    }
    files.push(File::new("docs/reference/chart-values.md", reference));
    Ok(files)
}

fn value(
    yaml: &mut String,
    reference: &mut String,
    root: &Schema,
    schema: &Schema,
    name: &str,
    path: &str,
    depth: usize,
) -> anyhow::Result<()> {
    let target = match &schema.reference {
        Some(reference) => {
            let name = reference.strip_prefix("#/$defs/").unwrap_or_default();
            let found = root.definitions.get(name);
            found.with_context(|| format!("{path}: there is no {reference}"))?
        }
        None => schema,
    };
    if schema.description.is_empty() {
        bail!("{path} has no description");
    }
    let indent = "  ".repeat(depth);
    if depth == 0 {
        yaml.push('\n');
    }
    for line in wrap(&schema.description, 110 - indent.len()) {
        let _ = writeln!(yaml, "{indent}# {line}");
    }
    let default = schema.default.as_ref().or(target.default.as_ref());
    if let Some(default) = default {
        let text = serde_json::to_string(default)?;
        let _ = writeln!(yaml, "{indent}{name}: {text}");
        let _ = writeln!(
            reference,
            "| `{path}` | {} | `{}` | {} |",
            cell(&kind(target)),
            cell(&text),
            cell(&schema.description)
        );
        return Ok(());
    }
    if target.properties.is_empty() {
        bail!("{path} has neither a default nor properties");
    }
    let _ = writeln!(yaml, "{indent}{name}:");
    for (child, property) in &target.properties {
        let path = format!("{path}.{child}");
        value(yaml, reference, root, property, child, &path, depth + 1)?;
    }
    Ok(())
}

/// What a value may be, in words.
fn kind(schema: &Schema) -> String {
    if let Some(choices) = &schema.choices {
        let choices: Vec<String> = choices
            .iter()
            .filter_map(Value::as_str)
            .map(|choice| format!("`{choice}`"))
            .collect();
        return choices.join(", ");
    }
    if !schema.one_of.is_empty() {
        let each: Vec<String> = schema.one_of.iter().map(kind).collect();
        return each.join(" or ");
    }
    let kind = schema.kind.as_deref().unwrap_or("any");
    match (schema.minimum, schema.maximum, &schema.pattern) {
        (Some(low), Some(high), _) => format!("{kind}, {low} to {high}"),
        (Some(low), None, _) => format!("{kind}, at least {low}"),
        (_, _, Some(pattern)) => format!("{kind} `{pattern}`"),
        _ => kind.to_owned(),
    }
}
