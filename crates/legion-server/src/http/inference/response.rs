//! Encodes answers.

use bytes::Bytes;
use http::StatusCode;
use indexmap::IndexMap;
use serde_json::{Value, json};

use super::{
    super::answer::{self, Answer},
    OUTPUT, binary,
    request::{JSON_LENGTH, Wishes},
};
use crate::{
    input::InvalidInput,
    model::Model,
    output::{Array, Kind, Output},
    signature::Schema,
};

/// Returns the answer to a request.
///
/// # Errors
/// When the client wants an output that the model does not have.
pub(crate) fn encode(model: &Model, wishes: Wishes, output: Output) -> Result<Answer, InvalidInput> {
    let all = outputs(model, output);
    let wanted = if wishes.outputs.is_empty() {
        all.into_iter().map(|tensor| (tensor, wishes.is_binary)).collect()
    } else {
        chosen(all, wishes.outputs)?
    };
    let mut binary = Vec::new();
    let mut tensors = Vec::with_capacity(wanted.len());
    for (mut tensor, is_binary) in wanted {
        let bytes = is_binary.then(|| tensor.bytes()).flatten();
        if let Some(bytes) = bytes {
            tensor.json["parameters"] = json!({"binary_data_size": bytes.len()});
            if let Some(fields) = tensor.json.as_object_mut() {
                fields.remove("data");
            }
            binary.extend_from_slice(&bytes);
        }
        tensors.push(tensor.json);
    }
    let mut answer = json!({"model_name": model.name, "outputs": tensors});
    if let Some(id) = wishes.id {
        answer["id"] = json!(id);
    }
    if !model.version.is_empty() {
        answer["model_version"] = json!(model.version);
    }
    if binary.is_empty() {
        return Ok(answer::json(StatusCode::OK, &answer));
    }
    let mut body = answer.to_string().into_bytes();
    let length = body.len();
    body.extend_from_slice(&binary);
    let mut answer = answer::with(StatusCode::OK, "application/octet-stream", body);
    answer.headers_mut().insert(JSON_LENGTH, length.into());
    Ok(answer)
}

/// Chooses the outputs that the client wants, in its order.
fn chosen(all: Vec<OutputTensor>, wanted: Vec<(String, bool)>) -> Result<Vec<(OutputTensor, bool)>, InvalidInput> {
    let mut chosen = Vec::with_capacity(wanted.len());
    for (index, (name, is_binary)) in wanted.into_iter().enumerate() {
        let found = all.iter().find(|tensor| tensor.json["name"] == name.as_str());
        let Some(tensor) = found else {
            let names: Vec<&Value> = all.iter().map(|tensor| &tensor.json["name"]).collect();
            let problem = format!("{name:?} is no output, only {}", json!(names));
            return Err(InvalidInput::new(format!("outputs[{index}].name"), problem));
        };
        chosen.push((tensor.clone(), is_binary));
    }
    Ok(chosen)
}

/// An output in JSON, and its numbers as NumPy has them if it is an array.
#[derive(Clone)]
struct OutputTensor {
    json: Value,
    numbers: Option<Bytes>,
}

impl OutputTensor {
    fn of(json: Value) -> Self {
        Self { json, numbers: None }
    }

    /// Returns the tensor in binary, or nothing for one that has missing values.
    fn bytes(&self) -> Option<Bytes> {
        if let Some(numbers) = &self.numbers {
            return Some(numbers.clone());
        }
        let values = self.json["data"].as_array()?;
        binary::bytes(self.json["datatype"].as_str()?, values).map(Bytes::from)
    }
}

fn outputs(model: &Model, output: Output) -> Vec<OutputTensor> {
    let name = output_name(model);
    match output {
        Output::Array(array) => vec![OutputTensor {
            json: tensor(&name, &array),
            numbers: Some(array.bytes),
        }],
        Output::Json(text) => {
            // A table: one tensor for each of its columns, in their order.
            if let Ok(rows) = serde_json::from_slice::<Vec<IndexMap<String, Value>>>(&text)
                && let Some(first) = rows.first()
            {
                let column = |name: &String| -> Vec<Value> {
                    let cell = |row: &IndexMap<String, Value>| row.get(name).cloned().unwrap_or_default();
                    rows.iter().map(cell).collect()
                };
                return first
                    .keys()
                    .map(|name| OutputTensor::of(scalars(name, &column(name))))
                    .collect();
            }
            match serde_json::from_slice(&text).unwrap_or_default() {
                Value::Array(values) => vec![OutputTensor::of(scalars(&name, &values))],
                value => vec![OutputTensor::of(texts(&name, &[value]))],
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
        return texts(name, values);
    };
    json!({"name": name, "shape": [values.len()], "datatype": datatype, "data": values})
}

/// Returns a tensor of texts. What is no text is its JSON.
fn texts(name: &str, values: &[Value]) -> Value {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let texts: Vec<String> = values.iter().map(text).collect();
    json!({"name": name, "shape": [texts.len()], "datatype": "BYTES", "data": texts})
}
