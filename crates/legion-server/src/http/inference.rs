//! Open Inference Protocol v2 in JSON.
//!
//! Source: the protocol's `rest_predict_v2`.

use bytes::Bytes;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    input::{Input, InvalidInput, mlflow},
    model::Model,
    output::{Array, Kind, Output},
    signature::{ColumnType, DataType, Schema, Signature},
};

/// A request.
#[derive(Deserialize)]
struct Infer {
    id: Option<String>,
    inputs: Vec<TensorData>,
}

#[derive(Deserialize)]
struct TensorData {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Value,
}

/// The name of an output that has none in the signature.
const OUTPUT: &str = "predict";

/// Data types of the protocol.
const DATATYPES: [&str; 13] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
];

/// Decodes a request. Returns its id, too.
///
/// # Errors
/// When it is no request of the protocol, or no model with this signature would take it.
pub(super) fn decode(body: &Bytes, signature: Option<&Signature>) -> Result<(Option<String>, Input), InvalidInput> {
    let infer: Infer =
        serde_json::from_slice(body).map_err(|error| InvalidInput::new("body", format!("is no request: {error}")))?;
    if infer.inputs.is_empty() {
        return Err(InvalidInput::new("inputs", "there is no tensor"));
    }
    let mut tensors = Vec::with_capacity(infer.inputs.len());
    for (index, tensor) in infer.inputs.iter().enumerate() {
        tensors.push((tensor, flat(index, tensor)?));
    }
    let body = match signature.and_then(|signature| signature.inputs.as_ref()) {
        Some(Schema::Columns(_)) => columns(&tensors)?,
        _ => arrays(&tensors),
    };
    let input =
        mlflow::decode(&Bytes::from(body.to_string()), signature).map_err(|invalid| rename(&invalid, &tensors))?;
    Ok((infer.id, input))
}

/// Returns the values of a tensor in one list. Their number is that of the shape.
fn flat(index: usize, tensor: &TensorData) -> Result<Vec<Value>, InvalidInput> {
    let field = |name: &str| format!("inputs[{index}].{name}");
    if !DATATYPES.contains(&tensor.datatype.as_str()) {
        let problem = format!("{:?} is none of {}", tensor.datatype, DATATYPES.join(", "));
        return Err(InvalidInput::new(field("datatype"), problem));
    }
    let count = tensor
        .shape
        .iter()
        .try_fold(1_usize, |product, length| product.checked_mul(*length));
    let count = count.ok_or_else(|| InvalidInput::new(field("shape"), "it is too large"))?;
    let mut values = Vec::new();
    if !flatten(&tensor.data, &mut values) {
        return Err(InvalidInput::new(field("data"), "it is not a list"));
    }
    if values.len() != count {
        let problem = format!(
            "it has {} values, and the shape {:?} has {count}",
            values.len(),
            tensor.shape
        );
        return Err(InvalidInput::new(field("data"), problem));
    }
    Ok(values)
}

fn flatten(value: &Value, values: &mut Vec<Value>) -> bool {
    let Value::Array(list) = value else {
        return false;
    };
    for item in list {
        if !flatten(item, values) {
            values.push(item.clone());
        }
    }
    true
}

/// A table: each tensor is a column.
fn columns(tensors: &[(&TensorData, Vec<Value>)]) -> Result<Value, InvalidInput> {
    let rows = tensors[0].1.len();
    for (index, (tensor, values)) in tensors.iter().enumerate() {
        let is_column = matches!(tensor.shape.as_slice(), [_] | [_, 1]);
        if !is_column {
            let problem = format!(
                "the model takes columns: the shape {:?} is not [rows] or [rows, 1]",
                tensor.shape
            );
            return Err(InvalidInput::new(format!("inputs[{index}].shape"), problem));
        }
        if values.len() != rows {
            let problem = format!("it has {} rows, and inputs[0] has {rows}", values.len());
            return Err(InvalidInput::new(format!("inputs[{index}].shape"), problem));
        }
    }
    let names: Vec<&str> = tensors.iter().map(|(tensor, _)| tensor.name.as_str()).collect();
    let data: Vec<Vec<&Value>> = (0..rows)
        .map(|row| tensors.iter().map(|(_, values)| &values[row]).collect())
        .collect();
    Ok(json!({"dataframe_split": {"columns": names, "data": data}}))
}

/// Arrays with their shapes, by name.
fn arrays(tensors: &[(&TensorData, Vec<Value>)]) -> Value {
    if let [(tensor, values)] = tensors {
        return json!({"inputs": nested(&tensor.shape, values)});
    }
    let named: Map<String, Value> = tensors
        .iter()
        .map(|(tensor, values)| (tensor.name.clone(), nested(&tensor.shape, values)))
        .collect();
    json!({"inputs": named})
}

fn nested(shape: &[usize], values: &[Value]) -> Value {
    let Some((length, rest)) = shape.split_first() else {
        return values.first().cloned().unwrap_or_default();
    };
    let size = values.len().checked_div(*length).unwrap_or_default();
    let parts = (0..*length).map(|index| nested(rest, &values[index * size..(index + 1) * size]));
    Value::Array(parts.collect())
}

/// Names the tensor in the place of the table that was made of it.
fn rename(invalid: &InvalidInput, tensors: &[(&TensorData, Vec<Value>)]) -> InvalidInput {
    let cell = invalid.field.strip_prefix("dataframe_split.data[").and_then(|rest| {
        let (row, column) = rest.strip_suffix(']')?.split_once("][")?;
        Some((row.parse::<usize>().ok()?, column.parse::<usize>().ok()?))
    });
    match cell {
        Some((row, column)) if column < tensors.len() => {
            InvalidInput::new(format!("inputs[{column}].data[{row}]"), invalid.problem.clone())
        }
        _ => InvalidInput::new("inputs", invalid.problem.clone()),
    }
}

/// Returns the answer to a request.
pub(super) fn encode(model: &Model, id: Option<String>, output: Output) -> Value {
    let mut answer = json!({"model_name": model.name, "outputs": outputs(model, output)});
    if let Some(id) = id {
        answer["id"] = json!(id);
    }
    if !model.version.is_empty() {
        answer["model_version"] = json!(model.version);
    }
    answer
}

fn outputs(model: &Model, output: Output) -> Vec<Value> {
    let name = output_name(model);
    match output {
        Output::Array(array) => vec![tensor(&name, &array)],
        Output::Json(text) => {
            // A table: one tensor for each of its columns, in their order.
            if let Ok(rows) = serde_json::from_slice::<Vec<IndexMap<String, Value>>>(&text)
                && let Some(first) = rows.first()
            {
                let column = |name: &String| -> Vec<Value> {
                    let cell = |row: &IndexMap<String, Value>| row.get(name).cloned().unwrap_or_default();
                    rows.iter().map(cell).collect()
                };
                return first.keys().map(|name| scalars(name, &column(name))).collect();
            }
            match serde_json::from_slice(&text).unwrap_or_default() {
                Value::Array(values) => vec![scalars(&name, &values)],
                value => vec![bytes(&name, &[value])],
            }
        }
    }
}

/// Returns the name of the model's only output.
fn output_name(model: &Model) -> String {
    let schema = model
        .signature
        .as_ref()
        .and_then(|signature| signature.outputs.as_ref());
    let name = match schema {
        Some(Schema::Columns(columns)) if columns.len() == 1 => columns[0].name.clone(),
        Some(Schema::Tensors(tensors)) if tensors.len() == 1 => tensors[0].name.clone(),
        _ => None,
    };
    name.unwrap_or_else(|| OUTPUT.to_owned())
}

fn tensor(name: &str, array: &Array) -> Value {
    let mut data = Vec::new();
    // All dimensions in one list.
    let flat = Array {
        shape: vec![array.shape.iter().product()],
        ..array.clone()
    };
    flat.json(&mut data);
    let data: Value = serde_json::from_slice(&data).unwrap_or_default();
    json!({"name": name, "shape": array.shape, "datatype": datatype(array.kind), "data": data})
}

fn datatype(kind: Kind) -> String {
    match kind {
        Kind::Bool => "BOOL".to_owned(),
        Kind::Signed(size) => format!("INT{}", size * 8),
        Kind::Unsigned(size) => format!("UINT{}", size * 8),
        Kind::Float(size) => format!("FP{}", size * 8),
    }
}

/// Returns a tensor of JSON scalars.
fn scalars(name: &str, values: &[Value]) -> Value {
    let all = |of: fn(&Value) -> bool| !values.is_empty() && values.iter().all(of);
    let datatype = if all(Value::is_boolean) {
        "BOOL"
    } else if all(Value::is_i64) {
        "INT64"
    } else if all(|value| value.is_number() || value.is_null()) {
        "FP64"
    } else {
        return bytes(name, values);
    };
    json!({"name": name, "shape": [values.len()], "datatype": datatype, "data": values})
}

/// Returns a tensor of texts. What is no text is its JSON.
fn bytes(name: &str, values: &[Value]) -> Value {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let texts: Vec<String> = values.iter().map(text).collect();
    json!({"name": name, "shape": [texts.len()], "datatype": "BYTES", "data": texts})
}

/// Returns the description of a model.
pub(super) fn metadata(model: &Model) -> Value {
    let schema = |unnamed: &str, of: fn(&Signature) -> Option<&Schema>| {
        let schema = model.signature.as_ref().and_then(of);
        schema.map(|schema| describe(schema, unnamed)).unwrap_or_default()
    };
    let versions: Vec<&str> = Some(model.version.as_str())
        .into_iter()
        .filter(|v| !v.is_empty())
        .collect();
    json!({
        "name": model.name,
        "versions": versions,
        "platform": "mlflow",
        "inputs": schema("input", |signature| signature.inputs.as_ref()),
        "outputs": schema(OUTPUT, |signature| signature.outputs.as_ref()),
    })
}

/// Describes the tensors of a schema. `unnamed` is the name of one without a name.
fn describe(schema: &Schema, unnamed: &str) -> Vec<Value> {
    match schema {
        Schema::Columns(columns) => columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let datatype = match &column.kind {
                    ColumnType::Scalar(DataType::Boolean) => "BOOL",
                    ColumnType::Scalar(DataType::Integer) => "INT32",
                    ColumnType::Scalar(DataType::Long) => "INT64",
                    ColumnType::Scalar(DataType::Float) => "FP32",
                    ColumnType::Scalar(DataType::Double) => "FP64",
                    _ => "BYTES",
                };
                let name = column.name.clone().unwrap_or_else(|| index.to_string());
                json!({"name": name, "datatype": datatype, "shape": [-1]})
            })
            .collect(),
        Schema::Tensors(tensors) => tensors
            .iter()
            .map(|tensor| {
                let upper = tensor.dtype.to_uppercase().replace("FLOAT", "FP");
                let datatype = if DATATYPES.contains(&upper.as_str()) {
                    upper
                } else {
                    "BYTES".to_owned()
                };
                let name = tensor.name.clone().unwrap_or_else(|| unnamed.to_owned());
                json!({"name": name, "datatype": datatype, "shape": tensor.shape})
            })
            .collect(),
    }
}
