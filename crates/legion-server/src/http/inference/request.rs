//! Decodes requests.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{DATATYPES, binary};
use crate::{
    input::{Input, InvalidInput, Stop, is_object, mlflow, tensor},
    output::{Array, Kind},
    signature::{Column, ColumnType, Schema, Signature},
};

/// Most dimensions of a tensor. NumPy has the same limit.
const MAX_DIMENSIONS: usize = 64;
/// Most lists in a tensor without values: its shape alone says how many there are.
const MAX_EMPTY: usize = 1 << 16;

/// The length of the JSON at the beginning of a body. The rest of the body is binary tensors.
pub(crate) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A request.
#[derive(Deserialize)]
struct Infer {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: Vec<TensorData>,
    #[serde(default)]
    outputs: Vec<Wanted>,
}

/// The parameters that this server knows. Others are ignored.
#[derive(Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
}

#[derive(Deserialize)]
struct TensorData {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Option<Value>,
}

/// An output that the client wants.
#[derive(Deserialize)]
struct Wanted {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// How the client wants the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// It is in the answer, too.
    pub(crate) id: Option<String>,
    /// Names of the outputs, and whether each is binary. Empty: all.
    pub(crate) outputs: Vec<(String, bool)>,
    /// Whether outputs are binary that are not named.
    pub(crate) is_binary: bool,
}

/// Decodes a request, and how its answer must be. `json` and `binary` are its [`parts`].
///
/// # Errors
/// When it is no request of the protocol, or no model with this signature would take it.
pub(crate) fn decode(
    json: &[u8],
    mut binary: Bytes,
    signature: Option<&Signature>,
) -> Result<(Wishes, Input), InvalidInput> {
    if !is_object(json) {
        return Err(InvalidInput::new("body", "is no request: it is no object"));
    }
    let infer: Infer = serde_json::from_slice(json).map_err(|error| explain(json, &error))?;
    if infer.inputs.is_empty() {
        return Err(InvalidInput::new("inputs", "there is no tensor"));
    }
    if let Some(input) = binary_arrays(&infer, &binary, signature)? {
        return Ok((wishes(infer), input));
    }
    let mut tensors = Vec::with_capacity(infer.inputs.len());
    for (index, tensor) in infer.inputs.iter().enumerate() {
        if let Some(first) = infer.inputs[..index].iter().position(|other| other.name == tensor.name) {
            let problem = format!("inputs[{first}] has the name {:?}, too", tensor.name);
            return Err(InvalidInput::new(format!("inputs[{index}].name"), problem));
        }
        tensors.push((tensor, flat(index, tensor, &mut binary)?));
    }
    if !binary.is_empty() {
        let problem = format!("{} bytes at its end belong to no tensor", binary.len());
        return Err(InvalidInput::new("body", problem));
    }
    let body = match signature.and_then(|signature| signature.inputs.as_ref()) {
        Some(Schema::Columns(of)) => match tensors.as_slice() {
            [(tensor, values)] if is_matrix(tensor, of) => matrix(tensor, values, of),
            tensors => columns(tensors)?,
        },
        _ => arrays(&tensors),
    };
    let input =
        mlflow::decode(&Bytes::from(body.to_string()), signature).map_err(|invalid| rename(&invalid, &tensors))?;
    Ok((wishes(infer), input))
}

/// Returns how the client wants the answer.
fn wishes(infer: Infer) -> Wishes {
    let outputs = infer.outputs.into_iter();
    Wishes {
        id: infer.id,
        is_binary: infer.parameters.binary_data_output.unwrap_or_default(),
        outputs: outputs
            .map(|wanted| (wanted.name, wanted.parameters.binary_data.unwrap_or_default()))
            .collect(),
    }
}

/// Returns the arrays of a request without copying a number, if all are binary and have the types of the signature.
fn binary_arrays(infer: &Infer, binary: &Bytes, signature: Option<&Signature>) -> Result<Option<Input>, InvalidInput> {
    let Some(Schema::Tensors(specs)) = signature.and_then(|signature| signature.inputs.as_ref()) else {
        return Ok(None);
    };
    let mut rest = binary.clone();
    let mut found = Vec::with_capacity(infer.inputs.len());
    for (index, tensor) in infer.inputs.iter().enumerate() {
        let size = tensor.parameters.binary_data_size.filter(|size| *size <= rest.len());
        let kind = match tensor.datatype.as_str() {
            "FP64" => Kind::Float(8),
            "FP32" => Kind::Float(4),
            "INT64" => Kind::Signed(8),
            "INT32" => Kind::Signed(4),
            _ => return Ok(None),
        };
        let (Some(size), None) = (size, &tensor.data) else {
            return Ok(None);
        };
        let Some(array) = Array::new(kind, tensor.shape.clone(), rest.split_to(size)) else {
            return Ok(None);
        };
        found.push((index, tensor.name.as_str(), array));
    }
    if !rest.is_empty() || found.len() != specs.len() {
        return Ok(None);
    }
    let mut arrays = Vec::with_capacity(specs.len());
    for spec in specs {
        // The only tensor of a model may have no name. Then that of the request does not matter.
        let named = found
            .iter()
            .find(|(_, name, _)| spec.name.as_deref().is_none_or(|own| own == *name));
        let Some((index, _, array)) = named.filter(|(_, _, array)| tensor::has_type(array, spec)) else {
            return Ok(None);
        };
        match tensor::check_shape(&array.shape, spec, &format!("inputs[{index}].shape")) {
            Ok(()) if array.rows() > 0 => arrays.push(array.clone()),
            Ok(()) | Err(Stop::Unsure) => return Ok(None),
            Err(Stop::Invalid(invalid)) => return Err(invalid),
        }
    }
    Ok(Some(mlflow::tensor_input(arrays, specs, None)))
}

/// Divides a body into its JSON and its binary tensors.
pub(crate) fn parts(headers: &HeaderMap, body: &Bytes) -> Result<(Bytes, Bytes), InvalidInput> {
    let Some(value) = headers.get(JSON_LENGTH) else {
        return Ok((body.clone(), Bytes::new()));
    };
    let length = value.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    match length.filter(|length| *length <= body.len()) {
        Some(length) => Ok((body.slice(..length), body.slice(length..))),
        None => {
            let problem = format!("{value:?} is no length within the {} bytes of the body", body.len());
            Err(InvalidInput::new(JSON_LENGTH.as_str(), problem))
        }
    }
}

/// Names the field of a request that cannot be read. A request that can be read has not the cost of this.
fn explain(json: &[u8], error: &serde_json::Error) -> InvalidInput {
    let request: Value = serde_json::from_slice(json).unwrap_or_default();
    let inputs = request["inputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = inputs.iter().enumerate().find_map(|(index, tensor)| {
        let (field, problem) = misfit(tensor)?;
        Some(InvalidInput::new(format!("inputs[{index}]{field}"), problem))
    });
    found.unwrap_or_else(|| InvalidInput::new("body", format!("is no request: {error}")))
}

/// Returns the first field of a tensor that is none of the protocol, and why.
fn misfit(tensor: &Value) -> Option<(String, String)> {
    let misfit = |field: &str, problem: &str| Some((field.to_owned(), problem.to_owned()));
    if !tensor.is_object() {
        return misfit("", "it is no object");
    }
    for name in ["name", "datatype"] {
        if !tensor[name].is_string() {
            return misfit(&format!(".{name}"), "it must be a text");
        }
    }
    let Some(shape) = tensor["shape"].as_array() else {
        return misfit(".shape", "it must be a list of lengths");
    };
    let is_length = |value: &Value| value.as_u64().is_some_and(|length| usize::try_from(length).is_ok());
    if let Some(index) = shape.iter().position(|length| !is_length(length)) {
        return misfit(&format!(".shape[{index}]"), &format!("{} is no length", shape[index]));
    }
    let size = &tensor["parameters"]["binary_data_size"];
    if !size.is_null() && !is_length(size) {
        return misfit(".parameters.binary_data_size", &format!("{size} is no length"));
    }
    None
}

/// Returns the values of a tensor in one list. Their number is that of the shape.
fn flat(index: usize, tensor: &TensorData, binary: &mut Bytes) -> Result<Vec<Value>, InvalidInput> {
    let field = |name: &str| format!("inputs[{index}].{name}");
    if !DATATYPES.contains(&tensor.datatype.as_str()) {
        let problem = format!("{:?} is none of {}", tensor.datatype, DATATYPES.join(", "));
        return Err(InvalidInput::new(field("datatype"), problem));
    }
    if tensor.shape.len() > MAX_DIMENSIONS {
        let problem = format!("it has {} dimensions, more than {MAX_DIMENSIONS}", tensor.shape.len());
        return Err(InvalidInput::new(field("shape"), problem));
    }
    // The body has no values that limit the lengths beside a 0.
    let is_empty = tensor.shape.contains(&0);
    let mut lengths = tensor.shape.iter().filter(|length| **length > 0);
    let product = lengths.try_fold(1_usize, |product, length| product.checked_mul(*length));
    let product = product
        .filter(|product| !is_empty || *product <= MAX_EMPTY)
        .ok_or_else(|| InvalidInput::new(field("shape"), "it is too large"))?;
    let count = if is_empty { 0 } else { product };
    let mut values = Vec::new();
    match (tensor.parameters.binary_data_size, &tensor.data) {
        (Some(size), None) if size <= binary.len() => {
            let bytes = binary.split_to(size);
            values = binary::values(&tensor.datatype, &bytes)
                .map_err(|problem| InvalidInput::new(field("data"), problem))?;
        }
        (Some(size), None) => {
            let problem = format!("it is {size}, and the body has {} bytes left", binary.len());
            return Err(InvalidInput::new(field("parameters.binary_data_size"), problem));
        }
        (None, Some(data)) => {
            if !flatten(data, &mut values) {
                return Err(InvalidInput::new(field("data"), "it is not a list"));
            }
        }
        (Some(_), Some(_)) => {
            let problem = "a tensor with binary_data_size has no data in JSON";
            return Err(InvalidInput::new(field("data"), problem));
        }
        (None, None) => return Err(InvalidInput::new(field("data"), "it is missing")),
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

/// Whether a tensor has a column for each column of the model.
fn is_matrix(tensor: &TensorData, columns: &[Column]) -> bool {
    let are_scalars = columns
        .iter()
        .all(|column| matches!(column.kind, ColumnType::Scalar(_)));
    are_scalars && columns.len() > 1 && matches!(tensor.shape.as_slice(), [_, width] if *width == columns.len())
}

/// A table: one tensor has all columns, in the order of the signature.
fn matrix(tensor: &TensorData, values: &[Value], columns: &[Column]) -> Value {
    let names: Vec<&str> = columns.iter().filter_map(|column| column.name.as_deref()).collect();
    let data = nested(&tensor.shape, values);
    if names.len() == columns.len() {
        json!({"dataframe_split": {"columns": names, "data": data}})
    } else {
        json!({"dataframe_split": {"data": data}})
    }
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
        // One tensor with all columns.
        Some((row, column)) => InvalidInput::new(format!("inputs[0].data[{row}][{column}]"), invalid.problem.clone()),
        _ => InvalidInput::new("inputs", invalid.problem.clone()),
    }
}
