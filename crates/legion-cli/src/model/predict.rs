//! `legionctl model predict` and `legionctl model invoke`.

use std::{
    fs,
    io::{self, Read as _, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use clap::Args as _;
use clap::FromArgMatches as _;
use legion_server::serve::Options;
use serde_json::{Map, Value, json};

use super::{
    environment, place,
    serve::{Running, not_loaded},
};
use crate::{
    args::{Global, InputFormat, ModelPlace, ModelRequest, PredictionFormat},
    columns,
    exit::{self, CliError, Code, Result},
    output,
};

/// Keys of a body of MLflow's scoring server.
const FORMS: [&str; 4] = ["dataframe_split", "dataframe_records", "inputs", "instances"];
/// Longest request: 1 GiB, for files on this machine.
const MAX_BODY: usize = 1 << 30;

/// A body and its media type.
struct Body {
    content: Vec<u8>,
    media_type: &'static str,
}

/// Loads a model, predicts once, and ends.
pub(super) async fn predict(
    global: &Global,
    place: &ModelPlace,
    request: &ModelRequest,
    out: &mut dyn Write,
) -> Result<Code> {
    // A wrong file is reported before the model is loaded.
    let given = request
        .input
        .as_deref()
        .map(|input| read(input, request.format))
        .transpose()?;
    let found = place::find(global, &place.model).await?;
    let model = legion_server::model::Model::read(&found.directory)
        .map_err(|error| CliError::new(Code::Invalid, error.to_string()))?;
    let body = match given {
        Some(body) => body,
        None => {
            let kept = model.sample.file.as_ref().map(|_| model.sample.request.get());
            sample(&place.model, kept)?
        }
    };
    let (python, _in_use) = environment::python(place, &found.directory).await?;
    let running = Running::start(&found.directory, &python, &options(None, Duration::from_secs(300))?).await?;
    if let Err(why) = running.front.pool.loaded().await {
        running.stop().await;
        return Err(not_loaded(&place.model, &why));
    }
    let answer = post(&running.url(), body).await;
    running.stop().await;
    print(&answer?, request.output, out)
}

fn sample(model: &str, sample: Option<&str>) -> Result<Body> {
    let sample = sample.ok_or_else(|| {
        CliError::new(Code::Invalid, format!("{model}: the model has no sample"))
            .remedy("name a file with --input; `legionctl model info` prints what the model takes")
    })?;
    Ok(Body {
        content: sample.as_bytes().to_vec(),
        media_type: "application/json",
    })
}

/// Returns the options of a server for one command: any port, and limits for files instead of requests.
pub(super) fn options(max_memory: Option<u64>, timeout: Duration) -> Result<Options> {
    // The defaults stand where the command line declares them.
    let command = Options::augment_args(clap::Command::new("model")).no_binary_name(true);
    let mut options = command
        .try_get_matches_from(Vec::<String>::new())
        .and_then(|matches| Options::from_arg_matches(&matches))
        .map_err(|error| CliError::new(Code::Invalid, error.to_string().trim_end().to_owned()))?;
    options.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    options.workers = 1;
    options.max_body = MAX_BODY;
    options.deadline = timeout.as_secs_f64();
    options.start_timeout = timeout.as_secs_f64();
    options.max_memory = max_memory;
    Ok(options)
}

/// Predicts with a server.
pub(super) async fn invoke(url: &str, request: &ModelRequest, out: &mut dyn Write) -> Result<Code> {
    let url = url.trim_end_matches('/');
    let body = match &request.input {
        Some(input) => read(input, request.format)?,
        None => {
            let document: Value = json_of(get(&format!("{url}/openapi.json")).await?)?;
            let example = document.pointer("/paths/~1invocations/post/requestBody/content/application~1json/example");
            sample(url, example.map(Value::to_string).as_deref())?
        }
    };
    let answer = post(url, body).await?;
    print(&answer, request.output, out)
}

fn read(input: &Path, format: Option<InputFormat>) -> Result<Body> {
    let mut content = Vec::new();
    let read = if input == Path::new("-") {
        io::stdin().read_to_end(&mut content)
    } else {
        fs::File::open(input).and_then(|mut file| file.read_to_end(&mut content))
    };
    read.map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound {
            Code::NotFound
        } else {
            Code::Other
        };
        CliError::new(code, format!("{}: {error}", input.display()))
    })?;
    let format = format.unwrap_or_else(|| match input.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => InputFormat::Csv,
        Some("parquet") => InputFormat::Parquet,
        _ => InputFormat::Json,
    });
    let media_type = match format {
        InputFormat::Json => "application/json",
        InputFormat::Csv => "text/csv",
        InputFormat::Parquet => "application/vnd.apache.parquet",
    };
    let content = match format {
        InputFormat::Json => body(&content).map_err(|problem| {
            CliError::new(Code::Invalid, format!("{}: {problem}", input.display()))
                .remedy("give a body of /invocations, a list of records, or a list of rows")
        })?,
        InputFormat::Csv | InputFormat::Parquet => content,
    };
    Ok(Body { content, media_type })
}

/// Returns a whole body for JSON that is one, or that is only its data.
fn body(content: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let value: Value = serde_json::from_slice(content).map_err(|error| format!("it is not JSON: {error}"))?;
    let form = match &value {
        Value::Object(fields) if FORMS.iter().any(|form| fields.contains_key(*form)) => return Ok(content.to_vec()),
        Value::Object(fields) if fields.contains_key("data") => "dataframe_split",
        Value::Object(_) => {
            return Ok(json!({"dataframe_records": [value]}).to_string().into_bytes());
        }
        Value::Array(rows) if rows.iter().all(Value::is_object) => "dataframe_records",
        Value::Array(_) => "inputs",
        _ => return Err("it is neither an object nor a list".to_owned()),
    };
    Ok(json!({form: value}).to_string().into_bytes())
}

fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| CliError::io("the HTTP client", error))
}

fn unreachable(url: &str, error: &reqwest::Error) -> CliError {
    CliError::new(Code::NotFound, format!("{url}: {}", exit::chain(error)))
        .remedy("start a server with `legionctl model serve`, or name its address")
}

async fn get(url: &str) -> Result<Vec<u8>> {
    let response = client()?
        .get(url)
        .send()
        .await
        .map_err(|error| unreachable(url, &error))?;
    content(url, response).await
}

async fn post(url: &str, body: Body) -> Result<Vec<u8>> {
    let url = format!("{url}/invocations");
    let request = client()?
        .post(&url)
        .header("content-type", body.media_type)
        .body(body.content);
    let response = request.send().await.map_err(|error| unreachable(&url, &error))?;
    content(&url, response).await
}

/// Returns the body of an answer, or its error.
async fn content(url: &str, response: reqwest::Response) -> Result<Vec<u8>> {
    let status = response.status();
    let bytes = response.bytes().await.map_err(|error| unreachable(url, &error))?;
    if status.is_success() {
        return Ok(bytes.to_vec());
    }
    let parsed: Option<Map<String, Value>> = serde_json::from_slice(&bytes).ok();
    let message = parsed.as_ref().and_then(|fields| {
        let found = ["message", "error"].iter().find_map(|name| fields.get(*name));
        found.and_then(Value::as_str)
    });
    let code = match status.as_u16() {
        400 | 413 | 415 => Code::Invalid,
        404 => Code::NotFound,
        504 => Code::Timeout,
        _ => Code::Failed,
    };
    let text = message.map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
    Err(CliError::new(code, format!("{}: {}", status.as_u16(), text.trim_end())))
}

fn json_of(bytes: Vec<u8>) -> Result<Value> {
    serde_json::from_slice(&bytes)
        .map_err(|error| CliError::new(Code::Other, format!("the answer is not JSON: {error}")))
}

/// Prints the answer of a server.
fn print(answer: &[u8], format: PredictionFormat, out: &mut dyn Write) -> Result<Code> {
    if format == PredictionFormat::Json {
        output::bytes(out, answer)?;
        output::line(out, format_args!(""))?;
        return Ok(Code::Ok);
    }
    let answer = json_of(answer.to_vec())?;
    let rows = table(answer.get("predictions").unwrap_or(&answer));
    if format == PredictionFormat::Csv {
        for row in &rows {
            let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
            output::line(out, format_args!("{}", cells.join(",")))?;
        }
        return Ok(Code::Ok);
    }
    for line in columns::align(&rows) {
        output::line(out, format_args!("{line}"))?;
    }
    Ok(Code::Ok)
}

/// Returns predictions as a table. Its first row has the names of the columns.
fn table(predictions: &Value) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |cells: &mut dyn Iterator<Item = &Value>| cells.map(text).collect::<Vec<_>>();
    let rows: &[Value] = match predictions {
        Value::Array(rows) => rows,
        other => std::slice::from_ref(other),
    };
    match rows.first() {
        Some(Value::Object(first)) => {
            let names: Vec<String> = first.keys().cloned().collect();
            let lines = rows
                .iter()
                .map(|record| row(&mut names.iter().map(|name| record.get(name).unwrap_or(&Value::Null))))
                .collect::<Vec<_>>();
            [vec![names], lines].concat()
        }
        Some(Value::Array(first)) => {
            let names = (0..first.len()).map(|index| format!("predict_{index}")).collect();
            let lines = rows.iter().map(|cells| match cells {
                Value::Array(cells) => row(&mut cells.iter()),
                other => vec![text(other)],
            });
            std::iter::once(names).chain(lines).collect()
        }
        _ => std::iter::once(vec!["predict".to_owned()])
            .chain(rows.iter().map(|value| vec![text(value)]))
            .collect(),
    }
}

/// Returns a cell of CSV (RFC 4180).
fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_alone_becomes_a_whole_body() {
        for (given, expected) in [
            (json!({"inputs": [1]}), json!({"inputs": [1]})),
            (
                json!({"columns": ["a"], "data": [[1]]}),
                json!({"dataframe_split": {"columns": ["a"], "data": [[1]]}}),
            ),
            (json!({"a": 1}), json!({"dataframe_records": [{"a": 1}]})),
            (json!([{"a": 1}]), json!({"dataframe_records": [{"a": 1}]})),
            (json!([[1, 2]]), json!({"inputs": [[1, 2]]})),
        ] {
            let body: Value = serde_json::from_slice(&body(given.to_string().as_bytes()).unwrap()).unwrap();
            assert_eq!(body, expected);
        }
        assert!(body(b"1").is_err());
        assert!(body(b"{").unwrap_err().starts_with("it is not JSON"));
    }

    #[test]
    fn every_form_of_predictions_is_a_table() {
        let shown = |value: Value| {
            let mut out = Vec::new();
            let answer = json!({"predictions": value}).to_string();
            print(answer.as_bytes(), PredictionFormat::Csv, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(json!([1.5, null])), "predict\n1.5\nnull\n");
        assert_eq!(shown(json!([[1, 2], [3, 4]])), "predict_0,predict_1\n1,2\n3,4\n");
        assert_eq!(shown(json!([{"a": "x,\"y\"", "b": 1}])), "a,b\n\"x,\"\"y\"\"\",1\n");
        assert_eq!(shown(json!([])), "predict\n");
    }

    #[test]
    fn options_of_a_command_are_the_defaults_with_other_limits() {
        let options = options(Some(5), Duration::from_secs(7)).unwrap();
        assert_eq!((options.bind.port(), options.workers), (0, 1));
        assert_eq!((options.deadline, options.max_memory), (7.0, Some(5)));
    }
}
