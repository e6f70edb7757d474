//! Workers that die, hang and grow, and the end of the server, while 64 connections predict.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::json;

use crate::server::{NUMBERS, TestServer, rows};

const CONNECTIONS: usize = 64;

/// Ends its process for -1, never answers for -2, keeps 64 MiB for -3, and waits a moment for everything else.
const FAULTY: &str = r#"
import os, signal, time
kept = []

def predict(rows, columns):
    for (x,) in rows:
        if x == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        if x == -2:
            time.sleep(3600)
        if x == -3:
            kept.append(bytearray(os.urandom(1)) * (64 << 20))
    time.sleep(0.0005)
    return [x * 2 for (x,) in rows]
"#;

/// Sends `count` requests on each of 64 connections. `special` chooses those with another number.
async fn predict_all(
    server: &TestServer,
    count: usize,
    special: impl Fn(usize, usize) -> Option<f64>,
) -> Vec<(f64, u16)> {
    let connections = (0..CONNECTIONS).map(|connection| {
        let special = &special;
        async move {
            let mut answers = Vec::with_capacity(count);
            for index in 0..count {
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                let number = special(connection, index).unwrap_or((connection * count + index) as f64);
                let (status, answer) = server.predict(&rows(&[number])).await;
                if status == 200 {
                    assert_eq!(
                        answer,
                        json!({"predictions": [number * 2.0]}),
                        "no answer of another request"
                    );
                }
                answers.push((number, status));
            }
            answers
        }
    });
    join_all(connections).await.concat()
}

fn statuses(answers: &[(f64, u16)], is_special: bool) -> Vec<u16> {
    let mut found: Vec<u16> = answers
        .iter()
        .filter(|(number, _)| (*number < 0.0) == is_special)
        .map(|(_, status)| *status)
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_harms_only_the_request_that_it_alone_had() {
    let server = TestServer::start(FAULTY, NUMBERS, &["--workers=2", "--batching=on"]).await;
    let answers = predict_all(&server, 40, |connection, index| {
        (connection < 4 && index == 10).then_some(-1.0)
    })
    .await;
    assert_eq!(statuses(&answers, true), [503; 4]);
    let others = statuses(&answers, false);
    assert_eq!(others.len(), CONNECTIONS * 40 - 4);
    assert!(others.iter().all(|status| *status == 200), "{others:?}");
    // Four deaths alone, and up to four in calls that were shared.
    let restarts = server.metric("legion_server_worker_restarts_total");
    assert!((4.0..=8.0).contains(&restarts), "{restarts}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_is_replaced_and_the_others_go_on() {
    let arguments = ["--workers=2", "--batching=off", "--deadline=2"];
    let server = TestServer::start(FAULTY, NUMBERS, &arguments).await;
    let began = Instant::now();
    let answers = predict_all(&server, 40, |connection, index| {
        (connection == 0 && index == 3).then_some(-2.0)
    })
    .await;
    assert_eq!(statuses(&answers, true), [504]);
    let others = statuses(&answers, false);
    assert!(others.iter().all(|status| *status == 200), "{others:?}");
    assert!(began.elapsed() >= Duration::from_secs(2));
    // Killed at twice the deadline. Afterwards there are two workers again.
    while server.metric("legion_server_worker_restarts_total") < 1.0 {
        tokio::task::yield_now().await;
        assert!(began.elapsed() < Duration::from_secs(60), "it was not replaced");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_grows_is_replaced_between_two_calls() {
    let arguments = ["--workers=2", "--batching=on", "--max-memory=60000000"];
    let server = TestServer::start(FAULTY, NUMBERS, &arguments).await;
    let answers = predict_all(&server, 40, |connection, index| {
        (connection < 4 && index == 10).then_some(-3.0)
    })
    .await;
    assert!(
        answers.iter().all(|(_, status)| *status == 200),
        "{:?}",
        statuses(&answers, true)
    );
    assert!(server.metric("legion_server_worker_restarts_total") >= 1.0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_on_an_open_connection_fails_when_the_server_ends() {
    let server = TestServer::start(FAULTY, NUMBERS, &["--batching=on"]).await;
    // The answers say `Connection: close`, so the clients can know which request was the last one.
    let is_stopping = Arc::new(AtomicBool::new(false));
    let clients = (0..CONNECTIONS).map(|_| {
        let (url, is_stopping) = (format!("{}/invocations", server.url), Arc::clone(&is_stopping));
        tokio::spawn(async move {
            let client = reqwest::Client::builder().pool_max_idle_per_host(1).build().unwrap();
            let mut count = 0;
            loop {
                let request = client.post(&url).body(rows(&[1.0]).to_string());
                let response = request.send().await.unwrap();
                assert_eq!(response.status(), 200);
                count += 1;
                let is_last = response
                    .headers()
                    .get("connection")
                    .is_some_and(|value| value == "close");
                response.bytes().await.unwrap();
                if is_last {
                    assert!(is_stopping.load(Ordering::SeqCst), "closed before the end");
                    return count;
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    while server.metric("legion_server_calls_total") < 100.0 {
        tokio::task::yield_now().await;
    }
    is_stopping.store(true, Ordering::SeqCst);
    let front = Arc::clone(&server.front);
    server.end().await;
    let counts: Vec<usize> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(counts.len(), CONNECTIONS);
    assert!(counts.iter().all(|count| *count > 0));
    assert!(!front.pool.is_ready());
}
