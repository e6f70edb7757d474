//! `legionctl model info`.

use std::{fs, io::Write};

use legion_server::model::Model;
use serde_json::{Value, json};

use super::place;
use crate::{
    args::{Format, Global},
    columns,
    exit::{CliError, Code, Result},
    gppi, output,
};

/// Prints what a model is, takes and returns. Nothing of it is loaded.
pub(super) async fn run(global: &Global, model: &str, format: Format, out: &mut dyn Write) -> Result<Code> {
    let place = place::find(global, model).await?;
    let found = Model::read(&place.directory).map_err(|error| CliError::new(Code::Invalid, error.to_string()))?;
    let descriptor: Value = fs::read_to_string(place.directory.join(gppi::DESCRIPTOR))
        .ok()
        .and_then(|text| serde_saphyr::from_str(&text).ok())
        .unwrap_or_default();
    let info = json!({
        "name": found.name,
        "version": found.version,
        "format": descriptor.get("format").cloned().unwrap_or_else(|| json!("mlflow")),
        "loader": found.loader.as_str(),
        "mlflowVersion": found.mlflow_version,
        "python": descriptor.pointer("/lock/python"),
        "signature": found.schema,
        "sample": found.sample.file.as_ref().map(|_| &found.sample),
        "lineage": descriptor.get("lineage"),
    });
    if matches!(format, Format::Json | Format::Yaml) {
        output::structured(out, format, &info)?;
        return Ok(Code::Ok);
    }
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let field = |name: &str, pointer: &str| {
        let value = info.pointer(pointer).map(text).unwrap_or_default();
        (!value.is_empty()).then(|| vec![format!("{name}:"), value])
    };
    let fields = [
        ("Name", "/name"),
        ("Version", "/version"),
        ("Format", "/format"),
        ("Loader", "/loader"),
        ("MLflow", "/mlflowVersion"),
        ("Python", "/python"),
        ("Training", "/lineage/training/name"),
        ("Source", "/lineage/source/uri"),
        ("Sample", "/sample/file"),
    ];
    let rows: Vec<Vec<String>> = fields
        .iter()
        .filter_map(|(name, pointer)| field(name, pointer))
        .collect();
    for line in columns::align(&rows) {
        output::line(out, format_args!("{line}"))?;
    }
    if found.schema.is_empty() {
        output::line(
            out,
            format_args!("\nThe model has no signature: it takes what its code takes."),
        )?;
    }
    for part in ["inputs", "outputs", "params"] {
        let Some(Value::Array(specs)) = found.schema.get(part) else {
            continue;
        };
        let title = format!("{}{}", part[..1].to_uppercase(), &part[1..]);
        output::line(out, format_args!("\n{title}:"))?;
        let rows: Vec<Vec<String>> = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| described(index, spec))
            .collect();
        for line in columns::align(&rows) {
            output::line(out, format_args!("  {line}"))?;
        }
    }
    Ok(Code::Ok)
}

/// Returns the name, the type and more about a part of a signature.
fn described(index: usize, spec: &Value) -> Vec<String> {
    let name = spec.get("name").and_then(Value::as_str);
    let name = name.map_or_else(|| format!("[{index}]"), str::to_owned);
    let kind = match spec.get("tensor-spec") {
        Some(tensor) => {
            let dtype = tensor.get("dtype").and_then(Value::as_str).unwrap_or_default();
            format!("tensor {dtype} {}", tensor.get("shape").unwrap_or(&Value::Null))
        }
        None => kind(spec),
    };
    let more = match (spec.get("default"), spec.get("required").and_then(Value::as_bool)) {
        (Some(default), _) => format!("default {default}"),
        (None, Some(false)) => "optional".to_owned(),
        (None, _) => String::new(),
    };
    vec![name, kind, more]
}

/// Returns the type of a column, such as `array of double`.
fn kind(spec: &Value) -> String {
    let name = spec.get("type").and_then(Value::as_str).unwrap_or("any").to_owned();
    match (spec.get("items"), spec.get("values"), spec.get("properties")) {
        (Some(items), ..) => format!("{name} of {}", kind(items)),
        (_, Some(values), _) => format!("{name} of {}", kind(values)),
        (.., Some(Value::Object(fields))) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, of)| format!("{name}: {}", kind(of)))
                .collect();
            format!("{name} {{{}}}", fields.join(", "))
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_model_is_described_without_loading_it() {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("wine");
        fs::create_dir(&model).unwrap();
        let mlmodel = r#"
flavors: {python_function: {loader_module: mlflow.sklearn}}
mlflow_version: 3.17.2
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}, {"type": "array", "items": {"type": "long"}, "name": "b", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]'
  params: '[{"name": "k", "type": "long", "default": 3, "shape": null}]'
"#;
        fs::write(model.join("MLmodel"), mlmodel).unwrap();
        let shown = async |format: Format| {
            let mut out = Vec::new();
            let path = model.to_str().unwrap();
            run(&Global::default(), path, format, &mut out).await.unwrap();
            String::from_utf8(out).unwrap()
        };
        let expected = "\
Name:    wine
Format:  mlflow
Loader:  mlflow-pyfunc
MLflow:  3.17.2

Inputs:
  a  double
  b  array of long  optional

Outputs:
  [0]  tensor float64 [-1]

Params:
  k  long  default 3
";
        assert_eq!(shown(Format::Table).await, expected);
        let json: Value = serde_json::from_str(&shown(Format::Json).await).unwrap();
        assert_eq!(json["signature"]["inputs"][0]["name"], "a");
    }
}
