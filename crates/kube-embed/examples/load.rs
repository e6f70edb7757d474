//! Measures throughput: `cargo run --release -p kube-embed --example load -- [DIRECTORY]`. Without a directory, the
//! server stores its objects in memory.
#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::error::Error;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube_embed::{Embedded, Storage};
use serde_json::json;

const OBJECTS: usize = 10_000;
const WATCHES: usize = 20;
const WRITERS: usize = 64;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let storage = std::env::args_os()
        .nth(1)
        .map_or(Storage::Memory, |d| Storage::Disk(d.into()));
    println!("{storage:?}, {OBJECTS} ConfigMaps of 1 KiB, {WRITERS} writers, {WATCHES} watches");
    let server = Embedded::builder()
        .storage(storage)
        .history(2 * OBJECTS)
        .build()
        .await?;
    let api: Api<ConfigMap> = Api::namespaced(server.client("default"), "default");
    let text = "x".repeat(1024);

    let start = Instant::now();
    futures::stream::iter(0..OBJECTS)
        .map(Ok)
        .try_for_each_concurrent(WRITERS, |i| {
            let object = json!({"metadata": {"name": format!("m{i}")}, "data": {"k": text}});
            let api = &api;
            async move {
                let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
                api.create(&PostParams::default(), &object).await.map(drop)
            }
        })
        .await?;
    report("create", OBJECTS, start);

    let start = Instant::now();
    let listed = api.list(&ListParams::default()).await?;
    report("objects in one list", listed.items.len(), start);

    let version = listed.metadata.resource_version.unwrap_or_default();
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let stream = api.watch(&WatchParams::default(), &version).await?.boxed();
        watches.push(tokio::spawn(async move {
            stream.take(OBJECTS).try_collect::<Vec<_>>().await.map(|v| v.len())
        }));
    }
    let start = Instant::now();
    futures::stream::iter(0..OBJECTS)
        .map(Ok::<_, kube::Error>)
        .try_for_each_concurrent(WRITERS, |i| {
            let api = &api;
            async move {
                let patch = Patch::Merge(json!({"metadata": {"labels": {"seen": "yes"}}}));
                api.patch(&format!("m{i}"), &PatchParams::default(), &patch)
                    .await
                    .map(drop)
            }
        })
        .await?;
    report("patch", OBJECTS, start);
    let mut events = 0;
    for watch in watches {
        events += watch.await??;
    }
    report("watch events, to all watches", events, start);
    server.shutdown().await;
    Ok(())
}

fn report(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.2} s, {:.0}/s", count as f64 / seconds);
}
