//! A server of a test.

use std::{fs, path::Path, sync::Arc, time::Duration};

use clap::{Args as _, FromArgMatches as _};
use legion_server::{
    http::Front,
    serve::{Options, Server},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A column of numbers.
pub(crate) const NUMBERS: &str = "{inputs: [{type: double, name: x, required: true}]}";

/// A running server. Its workers end with it.
pub(crate) struct TestServer {
    pub(crate) url: String,
    pub(crate) front: Arc<Front>,
    pub(crate) client: reqwest::Client,
    pub(crate) stop: CancellationToken,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl TestServer {
    /// Starts a server for a module with this code and schema, and waits until it is loaded.
    pub(crate) async fn start(code: &str, schema: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_module(directory.path(), code, schema);
        let server = bind(directory.path(), arguments).await;
        let front = server.front();
        front.pool.loaded().await.unwrap();
        let stop = CancellationToken::new();
        Self {
            url: format!("http://{}", server.address()),
            task: tokio::spawn(server.serve(stop.clone())),
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(60))
                .build()
                .unwrap(),
            front,
            stop,
            _directory: directory,
        }
    }

    /// Sends a body to `/invocations`. Returns the status and the answer.
    pub(crate) async fn predict(&self, body: &Value) -> (u16, Value) {
        self.post("/invocations", body).await
    }

    /// Sends a body to a path. Returns the status and the answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap(),
        )
    }

    /// Returns the value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.front.metrics.text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Ends the server and its workers.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn bind(model: &Path, arguments: &[&str]) -> Server {
    let command = Options::augment_args(clap::Command::new("test")).no_binary_name(true);
    let matches = command.get_matches_from([arguments, &["--bind=127.0.0.1:0"]].concat());
    let options = Options::from_arg_matches(&matches).unwrap();
    Server::bind(model, Path::new("python3"), &options).await.unwrap()
}

/// Returns why the worker of a model cannot be started.
pub(crate) async fn start_failure(model: &Path) -> String {
    let front = bind(model, &[]).await.front();
    let why = front.pool.loaded().await.unwrap_err();
    front.pool.stop().await;
    why
}

/// Writes a GPPI directory with a module.
pub(crate) fn write_module(root: &Path, code: &str, schema: &str) {
    fs::create_dir(root.join("model")).unwrap();
    fs::write(root.join("model/mine.py"), code).unwrap();
    let descriptor = format!(
        "format: gppi/v1\nidentity: {{name: m, version: '2'}}\n\
         loader: {{type: module, path: model, entrypoint: mine}}\nschema: {schema}\n"
    );
    fs::write(root.join("legion.model.yaml"), descriptor).unwrap();
}

/// Returns a request with one row for each number.
pub(crate) fn rows(numbers: &[f64]) -> Value {
    let records: Vec<Value> = numbers.iter().map(|x| json!({"x": x})).collect();
    json!({"dataframe_records": records})
}
