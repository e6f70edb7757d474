//! Writes the statuses of pods on a control plane without a node. Each pod runs, and ends a moment later. That takes
//! two PATCH requests per pod, as few as a kubelet ever sends.
//!
//! It handles all pods, bound to a node or not. The containers of a training end with the termination messages that
//! Legion's own containers would leave.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use http::{HeaderValue, Request, header};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
    client::Body,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use legion_protocol::{
    WIRE_VERSION, digest, env,
    exit::ExitRecord,
    message::{
        Counts, FetchHead, FetchMessage, FetchOutcome, FetchTail, FetchedSource, PublishHead, PublishMessage,
        PublishOutcome, PublishTail, WireArtifact,
    },
    summary::{MetricSummary, NamedValue},
    task::{FetchTask, PublishTask},
    time::rfc3339_millis,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinHandle};

/// The `User-Agent` of the requests, for the audit log.
pub const USER_AGENT: &str = "fake-kubelet";
/// The time between two attempts of a request.
const PAUSE: Duration = Duration::from_millis(200);

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It runs and succeeds.
    Succeeds,
    /// It runs, and its training code fails.
    Fails,
    /// It runs until it is deleted.
    Runs,
    /// No kubelet reports it.
    Waits,
}

/// The exit code of training code that fails.
const FAILED: i32 = 3;

/// The settings of a [`FakeKubelet`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the pods, or none for the pods of all namespaces.
    pub namespace: Option<String>,
    /// The time from the start of a pod to its end.
    pub runs: Duration,
    /// The maximum number of concurrent requests.
    pub parallel: usize,
    /// Returns what becomes of a pod.
    pub course: fn(&Pod) -> Course,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: None,
            runs: Duration::from_millis(100),
            parallel: 64,
            course: |_| Course::Succeeds,
        }
    }
}

/// A task that acts as the kubelet of all pods. Dropping it stops the task.
#[derive(Debug)]
pub struct FakeKubelet {
    task: JoinHandle<()>,
    finished: Arc<AtomicUsize>,
}

impl FakeKubelet {
    /// Starts to watch pods. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(client: Client, settings: Settings) -> Self {
        let finished = Arc::new(AtomicUsize::new(0));
        let node = Node {
            client: named(client),
            requests: Arc::new(Semaphore::new(settings.parallel.max(1))),
            runs: settings.runs,
            course: settings.course,
            finished: finished.clone(),
        };
        let task = tokio::spawn(node.watch(settings.namespace));
        Self { task, finished }
    }

    /// Returns the number of pods that have succeeded.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the client with [`USER_AGENT`] as its user agent.
fn named(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let client = client.clone();
        let agent = HeaderValue::from_static(USER_AGENT);
        request.headers_mut().insert(header::USER_AGENT, agent);
        async move { client.send(request).await }
    });
    Client::new(service, namespace)
}

#[derive(Clone)]
struct Node {
    client: Client,
    requests: Arc<Semaphore>,
    runs: Duration,
    course: fn(&Pod) -> Course,
    finished: Arc<AtomicUsize>,
}

impl Node {
    async fn watch(self, namespace: Option<String>) {
        let pods: Api<Pod> = match &namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        // The tasks end with the watch that started them.
        let mut playing = tokio::task::JoinSet::new();
        let mut seen = HashSet::new();
        let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()).default_backoff());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                Some(_) = playing.join_next() => continue,
            };
            match event {
                Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => {
                    let uid = pod.uid().unwrap_or_default();
                    let ends = pod.metadata.deletion_timestamp.is_some();
                    let step = if ends { "end" } else { "play" };
                    if (ends || phase(&pod) == "Pending") && seen.insert((uid, step)) {
                        let node = self.clone();
                        playing.spawn(async move {
                            if ends {
                                node.end(&pod).await
                            } else {
                                node.play(&pod).await
                            }
                        });
                    }
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    async fn play(&self, pod: &Pod) {
        let started = Timestamp::now();
        let exit_code = match (self.course)(pod) {
            Course::Waits => return,
            Course::Runs => None,
            Course::Succeeds => Some(0),
            Course::Fails => Some(FAILED),
        };
        if !self.patch(pod, running(pod, started)).await {
            return;
        }
        let Some(exit_code) = exit_code else { return };
        tokio::time::sleep(self.runs).await;
        if self.patch(pod, ended(pod, started, Timestamp::now(), exit_code)).await && exit_code == 0 {
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Patches a status. Returns whether the pod still exists.
    async fn patch(&self, pod: &Pod, status: Value) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        // The uid protects a newer pod with the same name.
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        loop {
            let answer = {
                // Never closed; a permit is held while the request is under way.
                let _permit = self.requests.acquire().await;
                pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                    .await
            };
            match answer {
                Ok(_) => return true,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => return false,
                // The server is restarting.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Completes the deletion of a pod: a bound pod exists until its kubelet deletes it without a grace period.
    async fn end(&self, pod: &Pod) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let now = DeleteParams::default().grace_period(0);
        let _permit = self.requests.acquire().await;
        // The pod may no longer exist.
        let _deleted = pods.delete(&pod.name_any(), &now).await;
    }
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn containers(pod: &Pod) -> (&[Container], &[Container]) {
    pod.spec.as_ref().map_or((&[], &[]), |spec| {
        (spec.init_containers.as_deref().unwrap_or_default(), &spec.containers)
    })
}

/// Returns the status of a running pod: its init containers have ended.
fn running(pod: &Pod, now: Timestamp) -> Value {
    let (init, main) = containers(pod);
    let time = seconds(now);
    let ended: Vec<Value> = init
        .iter()
        .map(|container| terminated(container, now, now, 0))
        .collect();
    let running: Vec<Value> = main
        .iter()
        .map(|container| {
            let mut status = status_of(container, json!({"running": {"startedAt": time}}));
            status["ready"] = true.into();
            status["started"] = true.into();
            status
        })
        .collect();
    json!({
        "phase": "Running",
        "startTime": time,
        "conditions": conditions("True", &time),
        "initContainerStatuses": ended,
        "containerStatuses": running,
    })
}

/// Returns the status of an ended pod: the trainer has this exit code, and every other container has 0.
fn ended(pod: &Pod, started: Timestamp, now: Timestamp, exit_code: i32) -> Value {
    let (init, main) = containers(pod);
    let ended = |list: &[Container]| -> Vec<Value> {
        list.iter()
            .map(|container| terminated(container, started, now, exit_code))
            .collect()
    };
    json!({
        "phase": if exit_code == 0 { "Succeeded" } else { "Failed" },
        "conditions": conditions("False", &seconds(now)),
        "initContainerStatuses": ended(init),
        "containerStatuses": ended(main),
    })
}

fn conditions(ready: &str, time: &str) -> Value {
    [
        ("PodScheduled", "True"),
        ("Initialized", "True"),
        ("ContainersReady", ready),
        ("Ready", ready),
    ]
    .map(|(type_, status)| json!({"type": type_, "status": status, "lastTransitionTime": time}))
    .into()
}

fn status_of(container: &Container, state: Value) -> Value {
    let image = container.image.clone().unwrap_or_default();
    json!({
        "name": container.name,
        "image": image,
        "imageID": format!("{image}@{}", digest::of_bytes(image.as_bytes())),
        "containerID": format!("fake://{}", container.name),
        "ready": false,
        "started": false,
        "restartCount": 0,
        "state": state,
    })
}

/// Returns the status of an ended container, in a pod whose trainer has this exit code.
fn terminated(container: &Container, started: Timestamp, finished: Timestamp, trainer: i32) -> Value {
    let exit_code = if container.name == "trainer" { trainer } else { 0 };
    let end = json!({
        "exitCode": exit_code,
        "reason": if exit_code == 0 { "Completed" } else { "Error" },
        "startedAt": seconds(started),
        "finishedAt": seconds(finished),
        "message": message(container, started, finished, trainer),
    });
    status_of(container, json!({"terminated": end}))
}

/// Formats a time with whole seconds, as in the status of a pod.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the termination message of a container of Legion's. Other containers have none.
fn message(container: &Container, started: Timestamp, finished: Timestamp, exit_code: i32) -> Option<String> {
    match container.name.as_str() {
        "fetch" => Some(fetched(&task(container)?)),
        "trainer" => Some("epoch 1\n".to_owned()),
        "publish" => Some(published(&task(container)?, started, finished, exit_code)),
        _ => None,
    }
}

fn task<T: DeserializeOwned>(container: &Container) -> Option<T> {
    let variables = container.env.as_deref().unwrap_or_default();
    let task = variables.iter().find(|variable| variable.name == env::TASK)?;
    serde_json::from_str(task.value.as_deref()?).ok()
}

fn fetched(task: &FetchTask) -> String {
    let message = FetchMessage {
        head: FetchHead {
            outcome: FetchOutcome::Ready,
            source: Some(FetchedSource {
                digest: digest::of_bytes(b"source"),
                files: 1,
                size_bytes: 6,
                ..FetchedSource::default()
            }),
            error: None,
        },
        tail: FetchTail {
            elapsed_ms: 1,
            ..FetchTail::default()
        },
    };
    message.encode(task.message_budget as usize)
}

fn published(task: &PublishTask, started: Timestamp, finished: Timestamp, exit_code: i32) -> String {
    let exit = Some(ExitRecord {
        version: WIRE_VERSION,
        exit_code: Some(exit_code),
        started_at: rfc3339_millis(started.as_millisecond()),
        finished_at: rfc3339_millis(finished.as_millisecond()),
        ..ExitRecord::default()
    });
    if exit_code != 0 {
        let message = PublishMessage {
            head: PublishHead {
                outcome: PublishOutcome::Failed,
                exit,
                artifact: None,
                objective: None,
                counts: Counts::default(),
                error: None,
            },
            tail: PublishTail {
                log_tail: "epoch 1\n".to_owned(),
                ..PublishTail::default()
            },
        };
        return message.encode(task.message_budget as usize);
    }
    let uri = format!("{}/{}/model.tar", task.name, task.run_id);
    let objective = task.objective.as_ref().map(|objective| objective.metric.clone());
    let metric = MetricSummary {
        name: objective.unwrap_or_else(|| "loss".to_owned()),
        value: "0.5".to_owned(),
        step: 4,
        timestamp: None,
        count: 5,
        min: "0.5".to_owned(),
        max: "1.0".to_owned(),
    };
    let message = PublishMessage {
        head: PublishHead {
            outcome: PublishOutcome::Published,
            exit,
            artifact: Some(WireArtifact {
                digest: digest::of_bytes(task.run_id.as_bytes()),
                size_bytes: 20_480,
                uri: uri.clone(),
            }),
            objective: Some(metric.value.clone()),
            counts: Counts {
                metrics: 1,
                parameters: 1,
                tags: 1,
            },
            error: None,
        },
        tail: PublishTail {
            artifact_uri: uri,
            format: task.format.clone(),
            model: "model".to_owned(),
            metrics: vec![metric],
            parameters: vec![NamedValue {
                name: "c".to_owned(),
                value: "0.5".to_owned(),
            }],
            tags: vec![NamedValue {
                name: "team".to_owned(),
                value: "cellar".to_owned(),
            }],
            ..PublishTail::default()
        },
    };
    message.encode(task.message_budget as usize)
}
