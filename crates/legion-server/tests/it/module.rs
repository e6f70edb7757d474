//! Models that are plain modules.

use serde_json::{Value, json};

use crate::server::{NUMBERS, TestServer, rows};

/// Doubles numbers, and returns the names of its columns for the answer.
const NAMED: &str = r#"
started = False

def init():
    global started
    started = True

def predict(rows, columns):
    assert started and columns == ["x"]
    return [[row[0] * 2, "a"] for row in rows], ["twice", "letter"]
"#;

#[tokio::test]
async fn each_protocol_gives_the_prediction_in_its_form() {
    let server = TestServer::start(NAMED, NUMBERS, &[]).await;
    // Python must not write its compiled files there: the descriptor lists every file.
    let files = std::fs::read_dir(&server.front.model.path).unwrap();
    let files: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["mine.py"]);
    let records = json!([{"twice": 3.0, "letter": "a"}, {"twice": 4.0, "letter": "a"}]);
    assert_eq!(
        server.predict(&rows(&[1.5, 2.0])).await,
        (200, json!({"predictions": records}))
    );
    assert_eq!(
        server
            .post("/v1/models/m:predict", &json!({"instances": [{"x": 1.5}, {"x": 2.0}]}))
            .await,
        (200, json!({"predictions": records}))
    );
    let table = json!({"prediction": [[3.0, "a"], [4.0, "a"]], "columns": ["twice", "letter"]});
    assert_eq!(
        server
            .post("/api/model/invoke", &json!({"columns": ["x"], "data": [[1.5], [2]]}))
            .await,
        (200, table.clone())
    );
    assert_eq!(
        server.post("/api/model/invoke", &json!({"data": [[1.5], [2]]})).await,
        (200, table)
    );
    let tensor = json!({"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, 2]}]});
    let outputs = json!([
        {"name": "twice", "shape": [2], "datatype": "FP64", "data": [3.0, 4.0]},
        {"name": "letter", "shape": [2], "datatype": "BYTES", "data": ["a", "a"]},
    ]);
    assert_eq!(
        server.post("/v2/models/m/versions/2/infer", &tensor).await,
        (
            200,
            json!({"model_name": "m", "model_version": "2", "outputs": outputs})
        )
    );
    server.end().await;
}

/// Returns what it gets.
const ECHO: &str =
    "def predict_on_matrix(matrix, provided_columns_names=None):\n    return matrix, provided_columns_names\n";

#[tokio::test]
async fn a_module_without_schema_takes_every_form_of_rows() {
    let server = TestServer::start(ECHO, "null", &[]).await;
    let records = json!([{"a": 1, "b": "x"}]);
    for body in [
        json!({"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"]]}}),
        json!({"dataframe_records": records}),
        json!({"instances": records}),
        json!({"inputs": {"a": [1], "b": ["x"]}}),
    ] {
        assert_eq!(
            server.predict(&body).await,
            (200, json!({"predictions": records})),
            "{body}"
        );
    }
    let bare = json!({"inputs": [[1, 2.5], [3, 4]]});
    assert_eq!(
        server.predict(&bare).await,
        (200, json!({"predictions": [[1, 2.5], [3, 4]]}))
    );
    for (body, message) in [
        (json!({}), "body: needs exactly one of"),
        (json!({"inputs": 1}), "inputs: is no list of rows"),
        (
            json!({"instances": [{"a": 1}, {"b": 1}]}),
            "instances: the records have different names",
        ),
        (
            json!({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}),
            "dataframe_split: a row has not 1 values",
        ),
    ] {
        let (status, answer) = server.predict(&body).await;
        assert_eq!(status, 400, "{body}");
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
    }
    let csv = server.client.post(format!("{}/invocations", server.url));
    let csv = csv.header("content-type", "text/csv").body("a,b\n1,x\n2.5,y\n");
    let answer: Value = serde_json::from_slice(&csv.send().await.unwrap().bytes().await.unwrap()).unwrap();
    assert_eq!(
        answer,
        json!({"predictions": [{"a": 1, "b": "x"}, {"a": 2.5, "b": "y"}]})
    );
    server.end().await;
}

#[tokio::test]
async fn an_exception_of_the_model_is_named_without_its_stack() {
    let code = "def predict(rows, columns):\n    raise KeyError('no such wine')\n";
    let server = TestServer::start(code, NUMBERS, &[]).await;
    let tensor = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]});
    let (status, answer) = server.post("/v2/models/m/infer", &tensor).await;
    assert_eq!((status, answer), (500, json!({"error": "KeyError: 'no such wine'"})));
    server.end().await;
}

#[tokio::test]
async fn a_module_that_cannot_be_loaded_is_reported_with_its_exception() {
    for (code, expected) in [
        (
            "import no_such_library\n",
            "ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("x = 1\n", "the module 'mine' has no function predict"),
        ("import os\nos._exit(3)\n", "it has ended"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        crate::server::write_module(directory.path(), code, "null");
        let why = crate::server::start_failure(directory.path()).await;
        assert!(why.contains(expected), "{why}");
    }
}
