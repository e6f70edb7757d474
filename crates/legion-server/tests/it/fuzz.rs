//! Random requests: whatever a client sends, it is its own fault, and the server goes on.
//!
//! `LEGION_FUZZ_REQUESTS` sets how many, and `LEGION_SEED` which.

use std::{env, fs};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::server::{NUMBERS, TestServer, rows};

/// Answers every input.
const TOTAL: &str = "def predict(rows, columns):\n    return [1.0 for row in rows]\n";
const PATHS: [&str; 12] = [
    "/invocations",
    "/invocations",
    "/v2/models/m/infer",
    "/v2/models/m/infer",
    "/v2/models/m/versions/2/infer",
    "/v1/models/m:predict",
    "/api/model/invoke",
    "/api/model/info?format=swagger2",
    "/v2/models/n/infer",
    "/openapi.json",
    "/%2e%2e/metrics",
    "/v1/models/m",
];
/// What replaces a part of a body.
const WORDS: [&str; 24] = [
    "null",
    "true",
    "\"x\"",
    "-1",
    "1e400",
    "NaN",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"inputs\"",
    "\"shape\"",
    "\"data\"",
    "[[[]]]",
    "18446744073709551616",
    "\"\\ud800\"",
    "\u{0}",
    "\"binary_data_size\"",
    "1.5",
    "\"BYTES\"",
    "\"columns\"",
    "",
];

/// A small generator of numbers (xorshift64*): the same seed gives the same requests.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(word).unwrap() % bound
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Requests that are right, before they are changed.
fn valid() -> Vec<Value> {
    let tensor = json!({"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]});
    let binary = json!({"name": "x", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}});
    vec![
        rows(&[1.0, 2.0]),
        json!({"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}),
        json!({"instances": [{"x": 1}], "params": {"a": 1}}),
        json!({"inputs": {"x": [1, 2]}}),
        json!({"id": "1", "inputs": [tensor], "outputs": [{"name": "predict"}]}),
        json!({"inputs": [binary], "parameters": {"binary_data_output": true}}),
        json!({"columns": ["x"], "data": [[1]]}),
    ]
}

/// Changes a body in up to four places.
fn changed(random: &mut Random, body: &Value) -> Vec<u8> {
    let mut bytes = body.to_string().into_bytes();
    for _ in 0..random.below(5) {
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(6)).min(bytes.len());
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => {
                bytes.splice(at..to, std::iter::once(u8::try_from(random.below(256)).unwrap()));
            }
            _ => {
                bytes.splice(at..to, random.of(&WORDS).bytes());
            }
        }
    }
    bytes
}

/// Resident memory of this process in bytes.
fn memory() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_makes_the_server_fail() {
    send(5_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half a minute for 100,000 requests"]
async fn random_requests_in_great_number_make_no_server_fail() {
    send(usize::try_from(number("LEGION_FUZZ_REQUESTS", 100_000)).unwrap()).await;
}

/// Sends so many requests over 16 connections.
async fn send(count: usize) {
    let seed = number("LEGION_SEED", 1);
    let server = TestServer::start(TOTAL, NUMBERS, &["--max-body=65536", "--batching=on"]).await;
    let valid = valid();
    let mut before = 0;
    let (each, mut good) = (count / 16, 0);
    for part in 0..2 {
        let connections = (0..16_u64).map(|connection| {
            let (server, valid) = (&server, &valid);
            let mut random = Random((seed << 8 | connection << 1 | part) + 1);
            async move {
                let mut good = 0;
                for _ in 0..each / 2 {
                    let (path, base) = (*random.of(&PATHS), random.of(valid).clone());
                    let body = changed(&mut random, &base);
                    let mut request = server.client.post(format!("{}{path}", server.url)).body(body.clone());
                    let media = ["application/json", "text/csv", "application/octet-stream", "a/b;c", ""];
                    let media = *random.of(&media);
                    if random.below(3) == 0 && !media.is_empty() {
                        request = request.header("content-type", media);
                    }
                    if random.below(4) == 0 {
                        let length = random.below(body.len() + 3).to_string();
                        request = request.header("inference-header-content-length", length);
                    }
                    let response = request.send().await.unwrap();
                    let status = response.status().as_u16();
                    let shown = String::from_utf8_lossy(&body).into_owned();
                    assert!(status < 500, "{status}: {path} {media} {shown}");
                    assert!(response.headers().contains_key("legion-prediction-id"));
                    good += usize::from(status == 200);
                    let is_json = response.headers()["content-type"]
                        .as_bytes()
                        .starts_with(b"application/json");
                    let answer = response.bytes().await.unwrap();
                    if is_json {
                        let answer: Result<Value, _> = serde_json::from_slice(&answer);
                        assert!(answer.is_ok(), "no JSON: {path} {shown}");
                    }
                }
                good
            }
        });
        good += join_all(connections).await.iter().sum::<usize>();
        if part == 0 {
            before = memory();
        }
    }
    // Most requests are wrong, and some are right: otherwise only one kind would be tested.
    assert!(good > count / 50 && good < count / 2, "{good} of {count}");
    let grown = memory().saturating_sub(before);
    assert!(grown < 32 << 20, "the memory grew by {grown} bytes in the second half");
    assert_eq!(server.metric("legion_server_worker_restarts_total"), 0.0);
    assert_eq!(server.predict(&rows(&[1.0])).await.0, 200);
    server.end().await;
}
