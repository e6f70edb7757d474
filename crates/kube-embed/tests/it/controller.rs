//! A real controller on the embedded API, for an hour of virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::watcher;
use serde_json::json;

use crate::support::*;

struct Context {
    client: Client,
    runs: AtomicUsize,
    cleaned: AtomicUsize,
}

async fn reconcile(object: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, finalizer::Error<kube::Error>> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), "default");
    finalizer(&api, "demo.io/cleanup", object, |event| async {
        match event {
            Event::Apply(object) => {
                context.runs.fetch_add(1, Ordering::Relaxed);
                let name = object.metadata.name.clone().unwrap_or_default();
                let applied = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"seen": "yes"}},
                });
                api.patch(&name, &PatchParams::apply("demo"), &Patch::Apply(applied))
                    .await?;
                Ok(Action::requeue(Duration::from_secs(600)))
            }
            Event::Cleanup(_) => {
                context.cleaned.fetch_add(1, Ordering::Relaxed);
                Ok(Action::await_change())
            }
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_idle_controller_writes_nothing_for_an_hour() {
    let server = server().await;
    let client = server.client("default");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let context = Arc::new(Context {
        client,
        runs: AtomicUsize::default(),
        cleaned: AtomicUsize::default(),
    });
    let controller = Controller::new(api.clone(), watcher::Config::default())
        .run(reconcile, |_, error, _| panic!("{error}"), Arc::clone(&context))
        .for_each(|result| async {
            result.unwrap();
        });
    let controller = tokio::spawn(controller);

    let object = serde_json::from_value(config_map("a")).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let settled = api.get("a").await.unwrap();
    assert_eq!(settled.metadata.labels.as_ref().unwrap()["seen"], "yes");
    let runs = context.runs.load(Ordering::Relaxed);

    tokio::time::sleep(Duration::from_secs(3600)).await;
    let resyncs = context.runs.load(Ordering::Relaxed) - runs;
    assert_eq!(resyncs, 6, "one every ten minutes");
    let rested = api.get("a").await.unwrap();
    assert_eq!(
        rested.metadata.resource_version, settled.metadata.resource_version,
        "an apply without changes writes nothing"
    );
    assert_eq!(rested.metadata.managed_fields, settled.metadata.managed_fields);

    api.delete("a", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(context.cleaned.load(Ordering::Relaxed), 1);
    assert!(api.get_opt("a").await.unwrap().is_none());
    controller.abort();
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_produces_the_same_objects() {
    let mut histories = Vec::new();
    for _ in 0..2 {
        let server = server_with_widgets().await;
        for i in 0..5 {
            post(&server, WIDGETS, widget(&format!("w{i}"), 1)).await.ok();
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        histories.push(get(&server, WIDGETS).await.ok());
    }
    assert_eq!(histories[0], histories[1]);
}
