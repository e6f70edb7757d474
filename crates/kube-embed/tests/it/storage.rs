//! Storage on disk: every confirmed write survives a crash.

use kube_embed::{BuildError, Embedded, Storage};
use serde_json::{Value, json};

use crate::support::*;

async fn open(directory: &std::path::Path) -> Result<Embedded, BuildError> {
    Embedded::builder()
        .storage(Storage::Disk(directory.to_owned()))
        .build()
        .await
}

/// Copies a directory with the bytes that its files contain now. `kill -9` would leave the same state.
fn crash_copy(directory: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn all_confirmed_writes_survive_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let server = open(directory.path()).await.unwrap();
    post(&server, CRDS, widget_crd()).await.ok();
    post(&server, WIDGETS, widget("a", 1)).await.ok();
    post(&server, WIDGETS, widget("b", 1)).await.ok();
    delete(&server, &format!("{WIDGETS}/b"), Value::Null).await.ok();
    let last = patch(&server, &format!("{WIDGETS}/a"), json!({"spec": {"size": 2}}))
        .await
        .ok();

    let after = crash_copy(directory.path());
    let reopened = open(after.path()).await.unwrap();
    assert_eq!(get(&reopened, &format!("{WIDGETS}/a")).await.ok(), last);
    assert_eq!(get(&reopened, &format!("{WIDGETS}/b")).await.status, 404);
    assert_eq!(reopened.uid(), server.uid());
    let version: u64 = last["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let next = post(&reopened, WIDGETS, widget("c", 1)).await.ok();
    let next: u64 = next["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(next > version, "versions continue: {version} -> {next}");

    // The event history is lost. A client that resumes receives 410 and misses no events.
    let gone = get(&reopened, &format!("{WIDGETS}?watch=true&resourceVersion=3"))
        .await
        .ok();
    assert_eq!(gone["object"]["code"], 410, "{gone}");
    server.shutdown().await;
    reopened.shutdown().await;
}

#[tokio::test]
async fn a_directory_has_one_server_and_can_be_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let server = open(directory.path()).await.unwrap();
    let error = open(directory.path()).await.err().unwrap();
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    post(&server, MAPS, config_map("a")).await.ok();
    server.shutdown().await;
    let refused = post(&server, MAPS, config_map("b")).await;
    assert_eq!(refused.refused().0, 500, "a server writes nothing after its shutdown");
    drop(server);
    let server = open(directory.path()).await.unwrap();
    get(&server, &format!("{MAPS}/a")).await.ok();
    server.shutdown().await;
}

#[tokio::test]
async fn concurrent_writes_are_all_stored() {
    let directory = tempfile::tempdir().unwrap();
    let server = open(directory.path()).await.unwrap();
    let writes = (0..200).map(|i| {
        let server = server.clone();
        async move { post(&server, MAPS, config_map(&format!("m{i}"))).await.ok() }
    });
    futures::future::join_all(writes).await;
    let after = crash_copy(directory.path());
    let reopened = open(after.path()).await.unwrap();
    assert_eq!(get(&reopened, MAPS).await.ok()["items"].as_array().unwrap().len(), 200);
    server.shutdown().await;
    reopened.shutdown().await;
}
