//! The bodies of MLflow's scoring server: `POST /invocations`.
//!
//! `dataframe_split` and `dataframe_records` for a signature of scalar columns are decoded here. Every other body, and
//! every value whose conversion depends on pandas, goes to MLflow's own code in a worker. So both give MLflow's answer.
//!
//! Source: `mlflow.pyfunc.scoring_server` and `mlflow.utils.proto_json_utils` of MLflow 3.

use std::borrow::Cow;

use bytes::Bytes;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Input, InvalidInput,
    rows::{self, Layout, Lists, Records, Stop},
    tensor,
};
use crate::{
    output::Array,
    signature::{Column, Schema, Signature, Tensor},
    table::Table,
};

/// The keys of a body. Exactly one of the data keys must be there.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    dataframe_split: Option<&'a RawValue>,
    #[serde(borrow)]
    dataframe_records: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split<'a> {
    #[serde(borrow)]
    columns: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    data: &'a RawValue,
    /// `DataFrame.to_dict("split")` writes it.
    index: Option<Vec<usize>>,
}

/// Decodes a body of `application/json`.
///
/// # Errors
/// When no model with this signature would take it.
pub fn decode(body: &Bytes, signature: Option<&Signature>) -> Result<Input, InvalidInput> {
    let unsure = || Input::Mlflow {
        body: body.clone(),
        content_type: "application/json".to_owned(),
    };
    let text =
        std::str::from_utf8(body).map_err(|error| InvalidInput::new("body", format!("is not UTF-8: {error}")))?;
    let columns = match signature.and_then(|signature| signature.inputs.as_ref()) {
        Some(Schema::Columns(columns)) => columns,
        Some(Schema::Tensors(specs)) => {
            let Ok(body) = serde_json::from_str::<Body<'_>>(text) else {
                return syntax(text).map(|()| unsure());
            };
            return match tensors(&body, specs) {
                Ok(tensors) => Ok(tensor_input(tensors, specs, body.params)),
                Err(Stop::Unsure) => Ok(unsure()),
                Err(Stop::Invalid(invalid)) => Err(invalid),
            };
        }
        None => return syntax(text).map(|()| unsure()),
    };
    let has_names = columns.iter().all(|column| column.name.is_some());
    match serde_json::from_str::<Body<'_>>(text) {
        Ok(body) if has_names && super::is_object(text.as_bytes()) => match table(&body, columns) {
            Ok(table) => Ok(Input::Table {
                table,
                params: body.params.map(|params| params.get().to_owned()),
            }),
            Err(Stop::Unsure) => Ok(unsure()),
            Err(Stop::Invalid(invalid)) => Err(invalid),
        },
        _ => syntax(text).map(|()| unsure()),
    }
}

/// Returns the arrays of a request, in the order of the signature.
fn tensors(body: &Body<'_>, specs: &[Tensor]) -> Result<Vec<Array>, Stop> {
    let (value, field) = match body {
        Body {
            inputs: Some(value),
            instances: None,
            dataframe_split: None,
            dataframe_records: None,
            ..
        } => (value, "inputs"),
        Body {
            inputs: None,
            instances: Some(value),
            dataframe_split: None,
            dataframe_records: None,
            ..
        } => (value, "instances"),
        _ => return Err(Stop::Unsure),
    };
    if let [spec] = specs
        && spec.name.is_none()
    {
        return Ok(vec![tensor::decode(value.get(), spec, field)?]);
    }
    if field == "instances" {
        return Err(Stop::Unsure);
    }
    let named: IndexMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value.get()).map_err(|_| Stop::Unsure)?;
    if named.len() != specs.len() {
        return Err(Stop::Unsure);
    }
    let array = |spec: &Tensor| {
        let name = spec.name.as_deref().ok_or(Stop::Unsure)?;
        let value = named.get(name).ok_or(Stop::Unsure)?;
        tensor::decode(value.get(), spec, &format!("inputs.{name}"))
    };
    specs.iter().map(array).collect()
}

/// Returns the input for arrays that fit the tensors of a signature.
pub(crate) fn tensor_input(arrays: Vec<Array>, specs: &[Tensor], params: Option<&RawValue>) -> Input {
    // An array of any length in its first dimension has a row there for each prediction.
    let has_rows = specs.iter().all(|spec| spec.shape.first() == Some(&-1));
    let first = arrays.first().map(Array::rows);
    let rows = first.filter(|rows| has_rows && arrays.iter().all(|array| array.rows() == *rows));
    Input::Tensors {
        tensors: specs.iter().map(|spec| spec.name.clone()).zip(arrays).collect(),
        rows,
        params: params.map(|params| params.get().to_owned()),
    }
}

/// Refuses a text that is no JSON. Python's reader also takes NaN and the infinities.
fn syntax(text: &str) -> Result<(), InvalidInput> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Err(_) if text.contains("NaN") || text.contains("Infinity") => Ok(()),
        Err(error) => Err(InvalidInput::new("body", format!("is not JSON: {error}"))),
        Ok(_) => Ok(()),
    }
}

fn table(body: &Body<'_>, columns: &[Column]) -> Result<Table, Stop> {
    if body.inputs.is_some() || body.instances.is_some() {
        return Err(Stop::Unsure);
    }
    match (body.dataframe_split, body.dataframe_records) {
        (Some(split), None) => {
            // Unknown fields and names that are no texts are rare: MLflow decides.
            let split: Split<'_> = serde_json::from_str(split.get()).map_err(|_| Stop::Unsure)?;
            let names = split.columns.ok_or(Stop::Unsure)?;
            let mut layout = Layout::new(columns, names.iter().map(|name| &**name), "dataframe_split.data")?;
            rows::read(split.data.get(), Lists(&mut layout)).map_err(|_| Stop::Unsure)??;
            let table = layout.finish()?;
            // Another index may mean something to the model's code.
            let is_usual = split.index.is_none_or(|index| index.into_iter().eq(0..table.rows));
            if is_usual { Ok(table) } else { Err(Stop::Unsure) }
        }
        (None, Some(records)) => {
            let records = rows::read(
                records.get(),
                Records {
                    columns,
                    field: "dataframe_records",
                },
            );
            records.map_err(|_| Stop::Unsure)?
        }
        _ => Err(Stop::Unsure),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::table::Values;

    fn signature() -> Signature {
        Signature::parse(&json!({"inputs": [
            {"type": "double", "name": "a", "required": true},
            {"type": "long", "name": "b", "required": true},
            {"type": "string", "name": "c", "required": false},
        ]}))
        .unwrap()
    }

    fn read(body: &Value) -> Result<Input, InvalidInput> {
        decode(&Bytes::from(body.to_string()), Some(&signature()))
    }

    fn columns(body: &Value) -> Vec<(usize, Values)> {
        match read(body).unwrap() {
            Input::Table { table, .. } => table.columns,
            other => panic!("no table: {other:?}"),
        }
    }

    #[test]
    fn both_forms_give_the_columns_in_the_order_of_the_signature() {
        let expected = vec![(0, Values::Double(vec![1.5, 2.0])), (1, Values::Long(vec![1, 2]))];
        let split = json!({"dataframe_split": {"data": [[1, "x", 1.5], [2, null, 2]], "columns": ["b", "extra", "a"]}});
        assert_eq!(columns(&split), expected);
        let mut with_index = split.clone();
        with_index["dataframe_split"]["index"] = json!([0, 1]);
        assert_eq!(columns(&with_index), expected);
        with_index["dataframe_split"]["index"] = json!([1, 0]);
        assert!(matches!(read(&with_index), Ok(Input::Mlflow { .. })));
        let records = json!({"dataframe_records": [{"b": 1, "a": 1.5, "extra": [1]}, {"a": 2, "b": 2}]});
        assert_eq!(columns(&records), expected);
        let with_optional = json!({"dataframe_records": [{"a": 1, "b": 1, "c": "x"}]});
        assert_eq!(
            columns(&with_optional)[2],
            (2, Values::String(vec![Some("x".to_owned())]))
        );
    }

    #[test]
    fn arrays_are_in_the_order_of_the_signature() {
        let spec = |name: &str, shape: [i64; 2]| json!({"type": "tensor", "name": name, "tensor-spec": {"dtype": "float64", "shape": shape}});
        let signature = Signature::parse(&json!({"inputs": [spec("a", [-1, 2]), spec("b", [-1, 1])]})).unwrap();
        let read = |body: Value| decode(&Bytes::from(body.to_string()), Some(&signature));
        let body = json!({"inputs": {"b": [[3], [4]], "a": [[1, 2], [5, 6]]}, "params": {"k": 1}});
        let Input::Tensors { tensors, rows, params } = read(body).unwrap() else {
            panic!("no arrays");
        };
        let shapes: Vec<_> = tensors
            .iter()
            .map(|(name, array)| (name.as_deref(), array.shape.as_slice()))
            .collect();
        assert_eq!(shapes, [(Some("a"), &[2, 2][..]), (Some("b"), &[2, 1])]);
        assert_eq!((rows, params.as_deref()), (Some(2), Some(r#"{"k":1}"#)));
        let error = read(json!({"inputs": {"a": [[1, 2]], "b": [[1, 2]]}})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "inputs.b: its shape is [1, 2], and the model takes [-1, 1]"
        );
        // Arrays of different lengths have no rows in common, so they share no call.
        let different = read(json!({"inputs": {"a": [[1, 2], [3, 4]], "b": [[1]]}})).unwrap();
        assert!(matches!(different, Input::Tensors { rows: None, .. }));
        for unsure in [
            json!({"inputs": {"a": [[1, 2]]}}),
            json!({"instances": [{"a": [1, 2], "b": [1]}]}),
            json!({"inputs": [[1, 2]]}),
            json!({"dataframe_split": {"data": [[1, 2]]}}),
        ] {
            assert!(
                matches!(read(unsure.clone()).unwrap(), Input::Mlflow { .. }),
                "{unsure}"
            );
        }
    }

    #[test]
    fn params_are_kept() {
        let body = json!({"dataframe_records": [{"a": 1, "b": 1}], "params": {"k": [1, 2]}});
        let Input::Table { params, .. } = read(&body).unwrap() else {
            panic!("left to MLflow");
        };
        assert_eq!(params.as_deref(), Some(r#"{"k":[1,2]}"#));
    }

    #[test]
    fn what_is_wrong_names_the_field() {
        let split = |columns: Value, data: Value| json!({"dataframe_split": {"columns": columns, "data": data}});
        for (body, field, problem) in [
            (
                split(json!(["a"]), json!([[1]])),
                "dataframe_split.data",
                "the model's input \"b\" is missing",
            ),
            (
                split(json!(["a", "b"]), json!([[1, 2], ["x", 2]])),
                "dataframe_split.data[1][0]",
                "column \"a\" is of type double, and the value is the text \"x\"",
            ),
            (
                split(json!(["a", "b"]), json!([[1, null]])),
                "dataframe_split.data[0][1]",
                "column \"b\" is of type long, and the value is null",
            ),
            (
                split(json!(["a", "b"]), json!([[1, 2, 3]])),
                "dataframe_split.data[0]",
                "it has 3 values for 2 columns",
            ),
            (
                json!({"dataframe_records": [{"a": 1}]}),
                "dataframe_records[0]",
                "the model's input \"b\" is missing",
            ),
            (
                json!({"dataframe_records": [{"a": 1, "b": 1}, {"a": {}, "b": 1}]}),
                "dataframe_records[1].a",
                "column \"a\" is of type double, and the value is an object",
            ),
        ] {
            assert_eq!(read(&body).unwrap_err(), InvalidInput::new(field, problem), "{body}");
        }
    }

    #[test]
    fn what_depends_on_pandas_is_left_to_mlflow() {
        for body in [
            json!({"dataframe_split": {"columns": ["a", "b"], "data": []}}),
            json!({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]], "index": [7]}}),
            json!({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [1]]}}),
            json!({"dataframe_split": {"columns": ["a", "b", "b"], "data": [[1, 2, 3]]}}),
            json!({"dataframe_split": {"columns": ["a", "b"], "data": [1, 2]}}),
            json!({"dataframe_split": {"columns": ["a", "b"], "data": [["1.5", 2]]}}),
            json!({"dataframe_split": {"data": [[1, 2]]}}),
            json!({"dataframe_split": [1]}),
            json!({"dataframe_records": [{"a": 1, "b": 1}, {"a": 1}]}),
            json!({"dataframe_records": [{"a": 1, "b": 1, "c": null}]}),
            json!({"dataframe_records": {"a": 1}}),
            json!({"instances": [[1, 2]]}),
            json!({"inputs": {"a": [1], "b": [2]}}),
            json!({"dataframe_records": [], "inputs": []}),
            json!({"other": 1}),
            json!([1]),
        ] {
            assert!(matches!(read(&body), Ok(Input::Mlflow { .. })), "{body}");
        }
        let nan = Bytes::from_static(br#"{"dataframe_records": [{"a": NaN, "b": 1}]}"#);
        assert!(matches!(decode(&nan, Some(&signature())), Ok(Input::Mlflow { .. })));
    }

    #[test]
    fn a_body_that_is_no_json_is_refused_with_or_without_signature() {
        for signature in [None, Some(&signature())] {
            for body in [&b"{\"dataframe_split\": "[..], b"", b"\xff", b"{} x"] {
                let error = decode(&Bytes::copy_from_slice(body), signature).unwrap_err();
                assert_eq!(error.field, "body");
            }
        }
    }
}
