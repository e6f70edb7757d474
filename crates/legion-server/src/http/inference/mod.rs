//! Open Inference Protocol v2, with JSON and with binary tensors.
//!
//! Sources: the protocol's `rest_predict_v2`, and the binary tensor data extension of Triton. The clients of Triton and
//! KServe use binary tensors by default.

mod binary;
mod request;
mod response;

use serde_json::{Value, json};

pub(super) use request::{decode, parts};
pub(super) use response::encode;

use crate::{
    model::Model,
    signature::{ColumnType, DataType, Schema, Signature},
};

/// The name of an output that has none in the signature.
const OUTPUT: &str = "predict";

/// Data types of the protocol.
const DATATYPES: [&str; 13] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
];

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
        "platform": model.loader.as_str(),
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
