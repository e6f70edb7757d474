//! A request that a model can answer: the one that was kept with it, or one that is made from its signature.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

/// Longest sample that is read, in bytes. A longer one would make pages and descriptions slow.
const MAX_SAMPLE: u64 = 1 << 20;
/// Most values in a tensor of zeros. A tensor with more of them is left empty.
const MAX_ZEROS: usize = 4096;
/// The keys of a request with data, as MLflow has them.
const DATA_KEYS: [&str; 4] = ["dataframe_split", "dataframe_records", "inputs", "instances"];
/// The file with the body of a request that MLflow writes beside `MLmodel`.
const SERVING_EXAMPLE: &str = "serving_input_example.json";
/// The example as the training gave it.
const INPUT_EXAMPLE: &str = "input_example.json";

/// A request for a model: a body of `/invocations`.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// The file with it, below the model's directory. `None` if it is made from the signature.
    pub file: Option<PathBuf>,
    /// The body. It is kept as text, so that no number in it changes.
    pub request: Box<RawValue>,
}

impl Sample {
    /// Finds the first file with a request, or makes a request for this signature. Only JSON is read: an example in
    /// another format may be a pickle.
    pub(crate) fn read(root: &Path, model: &Path, schema: &Map<String, Value>) -> Self {
        let mut files = vec![model.join(SERVING_EXAMPLE), model.join(INPUT_EXAMPLE)];
        let samples = fs::read_dir(root.join("sample")).into_iter().flatten().flatten();
        let mut samples: Vec<PathBuf> = samples.map(|entry| entry.path()).collect();
        samples.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        samples.sort();
        files.extend(samples);
        let found = files.into_iter().find_map(|path| {
            Some(Self {
                request: request_in(&text(&path)?)?,
                file: Some(path.strip_prefix(root).unwrap_or(&path).to_owned()),
            })
        });
        found.unwrap_or_else(|| Self {
            file: None,
            request: raw(&request_for(schema)),
        })
    }
}

/// Reads a small file.
fn text(path: &Path) -> Option<String> {
    // A pipe would block the start.
    if !path.is_file() {
        return None;
    }
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(MAX_SAMPLE + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= MAX_SAMPLE).then_some(text)
}

/// Returns the request in an example: a request itself, a table as pandas writes it, or a list of records.
fn request_in(example: &str) -> Option<Box<RawValue>> {
    let parse = |text: &str| serde_json::from_str::<Box<RawValue>>(text).ok();
    let example = parse(example).or_else(|| parse(&without_nan(example)))?;
    let wrapped = |key: &str| RawValue::from_string(format!("{{\"{key}\": {}}}", example.get())).ok();
    let is_table = |value: &Value| value["columns"].is_array() && value["data"].is_array();
    match serde_json::from_str(example.get()).ok()? {
        Value::Object(object) if object.get("inputs").is_some_and(is_table) => {
            // MLflow's form of an example with params.
            let params = object.get("params").cloned().unwrap_or_else(|| json!({}));
            Some(raw(&json!({"dataframe_split": object["inputs"], "params": params})))
        }
        Value::Object(object) if DATA_KEYS.iter().any(|key| object.contains_key(*key)) => Some(example),
        Value::Object(object) if object.get("data").is_some_and(Value::is_array) => wrapped("dataframe_split"),
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_object) => wrapped("dataframe_records"),
        _ => None,
    }
}

/// Writes null for what Python's JSON has and no browser reads. MLflow writes NaN for a missing value of an example.
fn without_nan(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    // The parts between quotation marks are texts in turn. A mark after a backslash ends no text.
    let mut in_text = false;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['"', '\\']).unwrap_or(rest.len());
        let (part, from_mark) = rest.split_at(end);
        if in_text {
            result.push_str(part);
        } else {
            let part = part.replace("-Infinity", "null").replace("Infinity", "null");
            result.push_str(&part.replace("NaN", "null"));
        }
        in_text ^= from_mark.starts_with('"');
        // A backslash and the character after it.
        let length = if from_mark.starts_with('\\') { 2 } else { 1 };
        let mark: usize = from_mark.chars().take(length).map(char::len_utf8).sum();
        let (mark, after) = from_mark.split_at(mark);
        result.push_str(mark);
        rest = after;
    }
    result
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Makes a request from a signature, with one row.
fn request_for(schema: &Map<String, Value>) -> Value {
    let specs = schema.get("inputs").and_then(Value::as_array);
    let specs = specs.map(Vec::as_slice).unwrap_or_default();
    let is_tensor = |spec: &Value| spec["type"] == "tensor";
    if specs.is_empty() {
        return json!({"inputs": []});
    }
    if specs.iter().all(is_tensor) {
        if let [spec] = specs {
            return json!({"inputs": zero_tensor(spec)});
        }
        let named = specs
            .iter()
            .map(|spec| (spec["name"].as_str().unwrap_or_default().to_owned(), zero_tensor(spec)));
        return json!({"inputs": named.collect::<Map<_, _>>()});
    }
    let row: Vec<Value> = specs.iter().map(zero).collect();
    let names: Vec<&Value> = specs.iter().filter_map(|spec| spec.get("name")).collect();
    if names.len() == specs.len() {
        json!({"dataframe_split": {"columns": names, "data": [row]}})
    } else {
        json!({"dataframe_split": {"data": [row]}})
    }
}

/// Returns a value of a type.
fn zero(spec: &Value) -> Value {
    match spec["type"].as_str().unwrap_or_default() {
        "boolean" => json!(false),
        "integer" | "long" => json!(0),
        "float" | "double" => json!(0.0),
        "string" | "binary" => json!(""),
        "datetime" => json!("2000-01-01T00:00:00"),
        "array" => json!([zero(&spec["items"])]),
        "object" => {
            let properties = spec["properties"].as_object();
            let values = properties.into_iter().flatten();
            Value::Object(values.map(|(name, spec)| (name.clone(), zero(spec))).collect())
        }
        "map" => json!({}),
        _ => Value::Null,
    }
}

fn zero_tensor(spec: &Value) -> Value {
    let spec = &spec["tensor-spec"];
    let lengths = spec["shape"].as_array().into_iter().flatten();
    // -1 stands for any length.
    let shape: Vec<usize> = lengths
        .map(|length| {
            length
                .as_u64()
                .and_then(|length| usize::try_from(length).ok())
                .unwrap_or(1)
        })
        .collect();
    let count = shape
        .iter()
        .try_fold(1_usize, |product, length| product.checked_mul(*length));
    if count.is_none_or(|count| count > MAX_ZEROS) {
        return json!([]);
    }
    let value = match spec["dtype"].as_str().unwrap_or_default() {
        "bool" => json!(false),
        "object" | "str" => json!(""),
        dtype if dtype.starts_with("float") => json!(0.0),
        _ => json!(0),
    };
    shape
        .iter()
        .rev()
        .fold(value, |value, length| Value::Array(vec![value; *length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the sample of a GPPI directory with these files.
    fn read(files: &[(&str, &str)]) -> Sample {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Sample::read(root.path(), &root.path().join("model"), &Map::new())
    }

    fn sample(files: &[(&str, &str)]) -> (Value, Value) {
        let sample = serde_json::to_value(read(files)).unwrap();
        (sample["file"].clone(), sample["request"].clone())
    }

    fn zeros(inputs: &Value) -> Value {
        request_for(&Map::from_iter([("inputs".to_owned(), inputs.clone())]))
    }

    #[test]
    fn the_sample_is_the_request_that_mlflow_wrote() {
        let serving = (
            "model/serving_input_example.json",
            r#"{"inputs": {"a": [1.0, 9007199254740993]}}"#,
        );
        let input = ("model/input_example.json", r#"{"columns": ["a"], "data": [[2.5]]}"#);
        let records = ("sample/one.json", r#"[{"a": 3}]"#);
        // Numbers stay as they are written.
        let kept = read(&[serving, input, records]).request;
        assert!(kept.get().contains("[1.0, 9007199254740993]"), "{kept}");
        assert_eq!(sample(&[serving, input, records]).0, "model/serving_input_example.json");
        let table = json!({"dataframe_split": {"columns": ["a"], "data": [[2.5]]}});
        assert_eq!(sample(&[input, records]), (json!("model/input_example.json"), table));
        assert_eq!(
            sample(&[records]),
            (json!("sample/one.json"), json!({"dataframe_records": [{"a": 3}]}))
        );
    }

    #[test]
    fn a_sample_of_mlflow_may_have_missing_values_and_params() {
        let text = r#"{"dataframe_split": {"columns": ["NaN"], "data": [[NaN], ["\" NaN"], [-Infinity], [Infinity]]}}"#;
        let rows = json!([[null], ["\" NaN"], [null], [null]]);
        let expected = json!({"dataframe_split": {"columns": ["NaN"], "data": rows}});
        assert_eq!(sample(&[("model/serving_input_example.json", text)]).1, expected);
        let text = r#"{"inputs": {"columns": ["a"], "data": [[1.5]]}, "params": {"times": 2}}"#;
        let expected = json!({"dataframe_split": {"columns": ["a"], "data": [[1.5]]}, "params": {"times": 2}});
        assert_eq!(sample(&[("model/input_example.json", text)]).1, expected);
    }

    #[test]
    fn what_is_no_small_json_request_is_no_sample() {
        let long = format!("{{\"inputs\": [{}0]}}", "0, ".repeat(400_000));
        for text in [
            "{\"inputs\": [nan]}",
            "{\"a\": 1}",
            "[1]",
            "[]",
            "",
            "\u{80}\u{2}pickle",
            &long,
        ] {
            let files = [
                ("model/serving_input_example.json", text),
                ("sample/one.parquet", "{\"inputs\": [1]}"),
            ];
            assert_eq!(sample(&files).0, Value::Null, "{:.20}", text);
        }
    }

    #[test]
    fn a_request_is_made_from_every_kind_of_signature() {
        let scalars = ["boolean", "long", "float", "string", "datetime", "any"].map(|kind| json!({"type": kind}));
        let row = json!([false, 0, 0.0, "", "2000-01-01T00:00:00", null]);
        assert_eq!(zeros(&json!(scalars)), json!({"dataframe_split": {"data": [row]}}));
        let nested = json!([{"name": "o", "type": "object", "properties": {
            "m": {"type": "map", "values": {"type": "long"}}, "l": {"type": "array", "items": {"type": "string"}},
        }}]);
        let row = json!([{"m": {}, "l": [""]}]);
        assert_eq!(
            zeros(&nested),
            json!({"dataframe_split": {"columns": ["o"], "data": [row]}})
        );
        let tensor = |name: &str, dtype: &str, shape: &[i64]| {
            let spec = json!({"dtype": dtype, "shape": shape});
            json!({"type": "tensor", "name": name, "tensor-spec": spec})
        };
        let one = json!([tensor("", "float32", &[-1, 2])]);
        assert_eq!(zeros(&one), json!({"inputs": [[0.0, 0.0]]}));
        let two = json!([tensor("a", "int64", &[-1]), tensor("b", "object", &[1, 1])]);
        assert_eq!(zeros(&two), json!({"inputs": {"a": [0], "b": [[""]]}}));
        for shape in [&[-1, 4097][..], &[i64::MAX, i64::MAX]] {
            assert_eq!(zeros(&json!([tensor("", "int64", shape)])), json!({"inputs": []}));
        }
        assert_eq!(request_for(&Map::new()), json!({"inputs": []}));
    }
}
