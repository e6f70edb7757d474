//! The protocol of Legion's first version: `POST /api/model/invoke`.
//!
//! ```text
//! {"columns": ["a", "b"], "data": [[1, 2]]}   ->   {"prediction": [[0.5]], "columns": ["predict"]}
//! ```
//!
//! Without `columns`, the values of a row are in the order of the signature.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::answer::{self, Answer};
use crate::{
    input::{Input, InvalidInput, is_object, mlflow},
    model::Model,
    output::Output,
    signature::{Schema, Signature},
};

/// The id of a request in the first version. It is in the answer, too.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Longest id that is returned, in bytes.
const MAX_REQUEST_ID: usize = 256;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    columns: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Decodes a request.
///
/// # Errors
/// When it is no request of the protocol, or no model with this signature would take it.
pub(super) fn decode(body: &Bytes, signature: Option<&Signature>) -> Result<Input, InvalidInput> {
    if !is_object(body) {
        return Err(InvalidInput::new("body", "is no request: it is no object"));
    }
    let parsed: Body<'_> =
        serde_json::from_slice(body).map_err(|error| InvalidInput::new("body", format!("is no request: {error}")))?;
    let data = parsed
        .data
        .ok_or_else(|| InvalidInput::new("data", "it is missing: it must be a list of rows"))?;
    let columns: Option<Vec<Cow<'_, str>>> = match parsed.columns {
        Some(columns) => serde_json::from_str(columns.get())
            .map_err(|_| InvalidInput::new("columns", "it must be a list of names"))?,
        None => None,
    };
    let columns = columns.or_else(|| names(signature?.inputs.as_ref()?));
    let body = match columns {
        Some(columns) => format!(
            r#"{{"dataframe_split":{{"columns":{},"data":{data}}}}}"#,
            json!(columns)
        ),
        None => format!(r#"{{"dataframe_split":{{"data":{data}}}}}"#),
    };
    mlflow::decode(&Bytes::from(body), signature).map_err(|invalid| {
        let field = invalid.field.strip_prefix("dataframe_split.").unwrap_or(&invalid.field);
        InvalidInput::new(field, invalid.problem.clone())
    })
}

/// Returns the names of a schema, if all have one.
fn names(schema: &Schema) -> Option<Vec<Cow<'_, str>>> {
    match schema {
        Schema::Columns(columns) => columns
            .iter()
            .map(|column| column.name.as_deref().map(Cow::from))
            .collect(),
        Schema::Tensors(_) => None,
    }
}

/// Encodes the answer to a request with these headers.
pub(super) fn encode(model: &Model, headers: &HeaderMap, output: &Output) -> Answer {
    let (columns, rows) = table(model, output);
    let mut answer = answer::json(StatusCode::OK, &json!({"prediction": rows, "columns": columns}));
    let own = answer.headers_mut();
    for (name, text) in [("model-name", &model.name), ("model-version", &model.version)] {
        if let Ok(value) = HeaderValue::from_str(text)
            && !text.is_empty()
        {
            own.insert(name, value);
        }
    }
    let id = headers.get(REQUEST_ID).or_else(|| headers.get("x-request-id"));
    if let Some(id) = id.filter(|id| id.len() <= MAX_REQUEST_ID) {
        own.insert(REQUEST_ID, id.clone());
    }
    answer
}

/// Returns a prediction as a table: the names of its columns, and its rows.
fn table(model: &Model, output: &Output) -> (Vec<String>, Vec<Value>) {
    let text = match output {
        Output::Array(array) => {
            let mut text = Vec::new();
            array.json(&mut text);
            text.into()
        }
        Output::Json(json) => json.clone(),
    };
    if let Ok(records) = serde_json::from_slice::<Vec<IndexMap<String, Value>>>(&text)
        && let Some(first) = records.first()
    {
        let names: Vec<String> = first.keys().cloned().collect();
        let row = |record: &IndexMap<String, Value>| -> Value {
            names
                .iter()
                .map(|name| record.get(name).cloned().unwrap_or_default())
                .collect()
        };
        let rows = records.iter().map(row).collect();
        return (names, rows);
    }
    let rows: Vec<Value> = match serde_json::from_slice(&text).unwrap_or_default() {
        Value::Array(rows) => rows,
        value => vec![value],
    };
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| if row.is_array() { row } else { Value::Array(vec![row]) })
        .collect();
    let width = rows.first().and_then(Value::as_array).map_or(1, Vec::len);
    let outputs = model
        .signature
        .as_ref()
        .and_then(|signature| signature.outputs.as_ref());
    let declared = outputs.and_then(names).filter(|names| names.len() == width);
    let names = match declared {
        Some(names) => names.into_iter().map(Cow::into_owned).collect(),
        None if width == 1 => vec!["predict".to_owned()],
        None => (0..width).map(|index| format!("predict_{index}")).collect(),
    };
    (names, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::Values;

    fn signature() -> Signature {
        Signature::parse(&json!({"inputs": [
            {"type": "double", "name": "a", "required": true}, {"type": "long", "name": "b", "required": true},
        ]}))
        .unwrap()
    }

    fn read(body: &Value) -> Result<Input, InvalidInput> {
        decode(&Bytes::from(body.to_string()), Some(&signature()))
    }

    #[test]
    fn rows_without_names_are_in_the_order_of_the_signature() {
        let expected = vec![(0, Values::Double(vec![0.5])), (1, Values::Long(vec![2]))];
        for body in [
            json!({"data": [[0.5, 2]]}),
            json!({"columns": ["b", "a"], "data": [[2, 0.5]]}),
        ] {
            let Input::Table { table, .. } = read(&body).unwrap() else {
                panic!("left to MLflow: {body}");
            };
            assert_eq!(table.columns, expected);
        }
    }

    #[test]
    fn errors_name_the_fields_of_this_protocol() {
        for (body, message) in [
            (json!({}), "data: it is missing"),
            (json!([]), "body: is no request: it is no object"),
            (json!({"columns": 1, "data": []}), "columns: it must be a list of names"),
            (
                json!({"data": [["x", 2]]}),
                "data[0][0]: column \"a\" is of type double",
            ),
            (
                json!({"columns": ["a"], "data": [[1]]}),
                "data: the model's input \"b\" is missing",
            ),
        ] {
            let error = read(&body).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
