//! The page at `/`: a form for the requests of this model.
//!
//! The page is static. What it shows about the model is `/page.json`. Its paths are relative, so it also works behind a
//! gateway that removes a prefix from paths.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Front,
    answer::{self, Answer},
};
use crate::model::{self, Model};

/// Longest sample that is read, in bytes. A longer one would make the page slow.
const MAX_SAMPLE: u64 = 1 << 20;
/// Most values in a tensor of zeros. A tensor with more of them is left empty.
const MAX_ZEROS: usize = 4096;
/// The keys of a request with data, as MLflow has them.
const DATA_KEYS: [&str; 4] = ["dataframe_split", "dataframe_records", "inputs", "instances"];
/// The file with the body of a request that MLflow writes beside `MLmodel`.
const SERVING_EXAMPLE: &str = "serving_input_example.json";
/// The example as the training gave it.
const INPUT_EXAMPLE: &str = "input_example.json";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The document.
const INDEX: &str = include_str!("page/index.html");
/// Path, media type and content of the other files.
const ASSETS: [(&str, &str, &str); 9] = [
    ("page.css", CSS, include_str!("page/page.css")),
    ("page.svg", "image/svg+xml", include_str!("page/page.svg")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("page/answer.js", SCRIPT, include_str!("page/answer.js")),
    ("page/code.js", SCRIPT, include_str!("page/code.js")),
    ("page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("page/form.js", SCRIPT, include_str!("page/form.js")),
    ("page/json.js", SCRIPT, include_str!("page/json.js")),
    ("page/schema.js", SCRIPT, include_str!("page/schema.js")),
];

/// Headers of everything here. The names and predictions of a model are not trusted. Without inline scripts and styles,
/// and without other hosts, they cannot do anything, even if a script forgot to treat them as text.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Another release of the server has other files under the same names.
    (header::CACHE_CONTROL, "no-cache"),
];

/// What the page shows about the model, as read at the start.
pub struct Page {
    signature: Option<Notation>,
    sample: Sample,
}

/// A signature in MLflow's notation. Unlike [`crate::signature::Signature`] it has the parts of nested types.
#[derive(Serialize)]
struct Notation {
    inputs: Value,
    outputs: Value,
    params: Value,
}

/// A request for the model.
#[derive(Serialize)]
struct Sample {
    /// The file with it, below the model's directory. `None` if it is made from the signature.
    file: Option<PathBuf>,
    /// The body. It is kept as text, so that no number in it changes.
    request: Box<RawValue>,
}

/// The content of `/page.json`.
#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    version: &'a str,
    loader: &'static str,
    mlflow_version: &'a str,
    server_version: &'static str,
    ready: bool,
    signature: Option<&'a Notation>,
    sample: &'a Sample,
}

impl Page {
    /// Reads what the page shows about a model in a directory. What cannot be read is left out.
    #[must_use]
    pub fn read(root: &Path, model: &Model) -> Self {
        let signature = Notation::read(&model.path);
        let sample = Sample::read(root, &model.path).unwrap_or_else(|| Sample {
            file: None,
            request: raw(&request_for(signature.as_ref())),
        });
        Self { signature, sample }
    }

    fn description<'a>(&'a self, model: &'a Model, ready: bool) -> Description<'a> {
        Description {
            name: &model.name,
            version: &model.version,
            loader: "mlflow-pyfunc",
            mlflow_version: &model.mlflow_version,
            server_version: env!("CARGO_PKG_VERSION"),
            ready,
            signature: self.signature.as_ref(),
            sample: &self.sample,
        }
    }
}

/// Answers a path of the page, and `/` for every client.
pub(super) fn answer(front: &Front, path: &[&str], headers: &HeaderMap) -> Option<Answer> {
    if path == ["page.json"] {
        let description = front.page.description(&front.model, front.pool.is_ready());
        // Text, numbers and values of JSON can always be written.
        let content = serde_json::to_vec(&description).unwrap_or_default();
        return Some(protected(answer::with(StatusCode::OK, "application/json", content)));
    }
    file(path, headers)
}

/// Returns a file of the page.
fn file(path: &[&str], headers: &HeaderMap) -> Option<Answer> {
    let answer = if path.is_empty() {
        let mut answer = if takes_html(headers) {
            answer::with(StatusCode::OK, HTML, INDEX)
        } else {
            // KServe's client expects this.
            answer::json(StatusCode::OK, &json!({"status": "alive"}))
        };
        let value = HeaderValue::from_static("accept");
        answer.headers_mut().insert(header::VARY, value);
        answer
    } else {
        let path = path.join("/");
        let (_, kind, content) = ASSETS.into_iter().find(|(name, ..)| *name == path)?;
        answer::with(StatusCode::OK, kind, content)
    };
    Some(protected(answer))
}

fn takes_html(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

fn protected(mut answer: Answer) -> Answer {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

impl Notation {
    fn read(model: &Path) -> Option<Self> {
        let mlmodel = model::yaml(&model.join(model::MLMODEL)).ok()?;
        let signature = mlmodel.get("signature").filter(|signature| !signature.is_null())?;
        let part = |name: &str| match signature.get(name) {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            Some(value) => value.clone(),
            None => Value::Null,
        };
        Some(Self {
            inputs: part("inputs"),
            outputs: part("outputs"),
            params: part("params"),
        })
    }
}

impl Sample {
    /// Finds the first file with a request. Only JSON is read: an example in another format may be a pickle.
    fn read(root: &Path, model: &Path) -> Option<Self> {
        let mut files = vec![model.join(SERVING_EXAMPLE), model.join(INPUT_EXAMPLE)];
        let samples = fs::read_dir(root.join("sample")).into_iter().flatten().flatten();
        let mut samples: Vec<PathBuf> = samples.map(|entry| entry.path()).collect();
        samples.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        samples.sort();
        files.extend(samples);
        files.into_iter().find_map(|path| {
            Some(Self {
                request: request_in(&text(&path)?)?,
                file: Some(path.strip_prefix(root).unwrap_or(&path).to_owned()),
            })
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
fn request_for(signature: Option<&Notation>) -> Value {
    let specs = signature.and_then(|signature| signature.inputs.as_array());
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

    const MLMODEL: &str = r#"
flavors: {python_function: {loader_module: mlflow.sklearn}}
mlflow_version: 3.17.2
signature:
  inputs: '[{"type": "double", "name": "a", "required": true},
    {"type": "array", "items": {"type": "long"}, "name": "b"}]'
  outputs: null
  params: '[{"name": "times", "type": "long", "default": 1, "shape": null}]'
"#;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Returns the content of `/page.json` for a GPPI directory with these files.
    fn described(files: &[(&str, &str)]) -> String {
        let root = tempfile::tempdir().unwrap();
        let descriptor =
            "{format: gppi/v1, identity: {name: wine, version: '3'}, loader: {type: mlflow-pyfunc, path: model}}";
        write(root.path(), "legion.model.yaml", descriptor);
        write(root.path(), "model/MLmodel", MLMODEL);
        for (path, text) in files {
            write(root.path(), path, text);
        }
        let model = Model::read(root.path()).unwrap();
        let page = Page::read(root.path(), &model);
        serde_json::to_string(&page.description(&model, true)).unwrap()
    }

    fn sample(files: &[(&str, &str)]) -> (Value, Value) {
        let described: Value = serde_json::from_str(&described(files)).unwrap();
        (
            described["sample"]["file"].clone(),
            described["sample"]["request"].clone(),
        )
    }

    fn zeros(inputs: &Value) -> Value {
        request_for(Some(&Notation {
            inputs: inputs.clone(),
            outputs: Value::Null,
            params: Value::Null,
        }))
    }

    #[test]
    fn the_description_has_the_whole_signature() {
        let described: Value = serde_json::from_str(&described(&[])).unwrap();
        assert_eq!(
            described,
            json!({
                "name": "wine", "version": "3", "loader": "mlflow-pyfunc", "mlflow_version": "3.17.2",
                "server_version": env!("CARGO_PKG_VERSION"), "ready": true,
                "signature": {
                    "inputs": [
                        {"type": "double", "name": "a", "required": true},
                        {"type": "array", "items": {"type": "long"}, "name": "b"},
                    ],
                    "outputs": null,
                    "params": [{"name": "times", "type": "long", "default": 1, "shape": null}],
                },
                "sample": {
                    "file": null,
                    "request": {"dataframe_split": {"columns": ["a", "b"], "data": [[0.0, [0]]]}},
                },
            })
        );
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
        assert!(described(&[serving, input, records]).contains("[1.0, 9007199254740993]"));
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
        assert_eq!(request_for(None), json!({"inputs": []}));
    }

    #[test]
    fn a_browser_gets_the_page_and_another_client_json() {
        let get = |path: &[&str], accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))));
            file(path, &headers)
        };
        let kind = |answer: &Answer| answer.headers()[header::CONTENT_TYPE].clone();
        let browser = get(&[], Some("text/html,application/xhtml+xml,*/*;q=0.8")).unwrap();
        assert_eq!(kind(&browser), HTML);
        assert_eq!(browser.headers()[header::VARY], "accept");
        for accept in [None, Some("*/*"), Some("application/json")] {
            assert_eq!(kind(&get(&[], accept).unwrap()), "application/json");
        }
        assert_eq!(kind(&get(&["page.css"], None).unwrap()), CSS);
        assert_eq!(kind(&get(&["page", "form.js"], None).unwrap()), SCRIPT);
        assert!(get(&["page"], None).is_none() && get(&["page", "..", "page.rs"], None).is_none());
    }

    #[test]
    fn no_file_of_the_page_may_load_from_elsewhere() {
        for (path, ..) in ASSETS {
            let path: Vec<&str> = path.split('/').collect();
            let answer = file(&path, &HeaderMap::new()).unwrap();
            let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"),
                "{policy}"
            );
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(answer.headers()[header::REFERRER_POLICY], "no-referrer");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-cache");
        }
        // A path that begins with a slash would miss the prefix of a gateway.
        for wrong in [" style=", "<style", " onclick=", "src=\"/", "href=\"/"] {
            assert!(!INDEX.contains(wrong), "{wrong}");
        }
    }
}
