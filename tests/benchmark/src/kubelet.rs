//! A kubelet that runs nothing: it writes two statuses for every pod, `Running` and a moment later `Succeeded`.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::StreamExt as _;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::watcher::{self, Event, watcher},
};
use legion_protocol::{
    digest, env,
    exit::ExitRecord,
    message::{
        Artifact, Counts, FetchHead, FetchMessage, FetchOutcome, FetchSource, FetchTail, PublishHead, PublishMessage,
        PublishOutcome, PublishTail,
    },
    task::{FetchTask, PublishTask},
    time::rfc3339_millis,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Between the two statuses.
const RUNS: Duration = Duration::from_millis(100);
/// How many statuses are written side by side.
const SIDE_BY_SIDE: usize = 64;

/// Plays the kubelet for the pods of a namespace, until it is dropped.
pub async fn play(client: Client, namespace: String) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()));
    let slots = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    while let Some(event) = events.next().await {
        let (Event::Apply(pod) | Event::InitApply(pod)) = event? else {
            continue;
        };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Pending") {
            continue;
        }
        let (client, slots) = (client.clone(), slots.clone());
        tokio::spawn(async move {
            if let Err(error) = run(&client, &pod, &slots).await {
                // A pod that was deleted meanwhile is no concern of a kubelet's.
                if !is_gone(&error) {
                    eprintln!("pod {}: {error:#}", pod.name_any());
                }
            }
        });
    }
    anyhow::bail!("the watch of pods ended")
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

async fn run(client: &Client, pod: &Pod, slots: &Semaphore) -> anyhow::Result<()> {
    let started = jiff::Timestamp::now();
    write(client, pod, slots, running(pod, started)).await?;
    tokio::time::sleep(RUNS).await;
    write(client, pod, slots, ended(pod, started, jiff::Timestamp::now())).await
}

async fn write(client: &Client, pod: &Pod, slots: &Semaphore, status: Value) -> anyhow::Result<()> {
    let _slot = slots.acquire().await?;
    let namespace = pod.namespace().context("a pod has a namespace")?;
    let request = Request::patch(format!("/api/v1/namespaces/{namespace}/pods/{}/status", pod.name_any()))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(serde_json::to_vec(&json!({"status": status}))?)?;
    client.request_text(request).await?;
    Ok(())
}

fn conditions(ready: bool, at: jiff::Timestamp) -> Value {
    let condition = |kind: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        json!({"type": kind, "status": status, "lastTransitionTime": at})
    };
    json!([
        condition("PodScheduled", true),
        condition("Initialized", true),
        condition("ContainersReady", ready),
        condition("Ready", ready),
    ])
}

fn containers(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.iter().flat_map(|spec| &spec.containers);
    spec.map(|container| container.name.as_str())
}

fn status(name: &str, ready: bool, state: Value) -> Value {
    json!({"name": name, "image": "none", "imageID": "", "ready": ready, "started": ready, "restartCount": 0, "state": state})
}

fn terminated(started: jiff::Timestamp, finished: jiff::Timestamp, message: &str) -> Value {
    json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": seconds(started), "finishedAt": seconds(finished), "message": message}})
}

/// Kubernetes' times of containers have no fractions.
fn seconds(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn running(pod: &Pod, started: jiff::Timestamp) -> Value {
    let fetched = status("fetch", true, terminated(started, started, &fetched(pod)));
    let state = json!({"running": {"startedAt": seconds(started)}});
    let all: Vec<Value> = containers(pod).map(|name| status(name, true, state.clone())).collect();
    let inits = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    json!({
        "phase": "Running",
        "startTime": seconds(started),
        "conditions": conditions(true, started),
        "initContainerStatuses": inits.map(|_| vec![fetched]),
        "containerStatuses": all,
    })
}

fn ended(pod: &Pod, started: jiff::Timestamp, finished: jiff::Timestamp) -> Value {
    let all: Vec<Value> = containers(pod)
        .map(|name| {
            let message = if name == "publish" {
                published(pod, started, finished)
            } else {
                String::new()
            };
            status(name, false, terminated(started, finished, &message))
        })
        .collect();
    json!({"phase": "Succeeded", "conditions": conditions(false, finished), "containerStatuses": all})
}

/// The task that a container of a training's pod was given; none in other pods.
fn task<T: DeserializeOwned>(pod: &Pod) -> Option<T> {
    let spec = pod.spec.as_ref()?;
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.flat_map(|container| container.env.iter().flatten())
        .filter(|variable| variable.name == env::TASK)
        .find_map(|variable| serde_json::from_str(variable.value.as_deref()?).ok())
}

fn fetched(pod: &Pod) -> String {
    let Some(task) = task::<FetchTask>(pod) else {
        return String::new();
    };
    let message = FetchMessage {
        head: FetchHead {
            outcome: FetchOutcome::Ready,
            source: Some(FetchSource {
                digest: digest::of_bytes(b"source"),
                files: 1,
                size_bytes: 6,
                ..FetchSource::default()
            }),
            error: None,
        },
        tail: FetchTail::default(),
    };
    message.encode(task.message_budget as usize)
}

fn published(pod: &Pod, started: jiff::Timestamp, finished: jiff::Timestamp) -> String {
    let Some(task) = task::<PublishTask>(pod) else {
        return String::new();
    };
    let uri = format!("s3://models/{}/model.tar", task.run_id);
    let message = PublishMessage {
        head: PublishHead {
            outcome: PublishOutcome::Published,
            exit: Some(ExitRecord {
                version: legion_protocol::WIRE_VERSION,
                exit_code: Some(0),
                started_at: rfc3339_millis(started.as_millisecond()),
                finished_at: rfc3339_millis(finished.as_millisecond()),
                ..ExitRecord::default()
            }),
            artifact: Some(Artifact {
                digest: digest::of_bytes(task.run_id.as_bytes()),
                size_bytes: 20480,
                uri: uri.clone(),
            }),
            objective: None,
            counts: Counts::default(),
            error: None,
        },
        tail: PublishTail {
            artifact_uri: uri,
            format: task.format.clone(),
            model: "model".to_owned(),
            ..PublishTail::default()
        },
    };
    message.encode(task.message_budget as usize)
}
