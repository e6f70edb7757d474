//! A server with a node, and helpers that wait for the state of a pod.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use kube_embed::gc::GarbageCollector;
use kube_embed::node::images::{ImageEnvironment, ImageTable, StaticImages};
use kube_embed::node::runtime::PodRuntime;
use kube_embed::node::runtime::process::{ProcessOptions, ProcessRuntime};
use kube_embed::node::runtime::scripted::ScriptedRuntime;
use kube_embed::node::{Node, NodeOptions};
use kube_embed::{Clock, Embedded, SystemClock, TokioClock};
use serde_json::{Value, json};

/// Much longer than any step takes. Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Cluster {
    pub(super) embedded: Embedded,
    pub(super) client: Client,
    pub(super) node: Node,
    pub(super) collector: GarbageCollector,
}

/// Starts a node with scripted containers, for paused time.
pub(super) async fn scripted() -> (Cluster, ScriptedRuntime) {
    scripted_with(|_| {}).await
}

pub(super) async fn scripted_with(change: impl FnOnce(&mut NodeOptions)) -> (Cluster, ScriptedRuntime) {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
    let runtime = ScriptedRuntime::new(Arc::clone(&clock));
    let images = StaticImages::new().with(
        "image",
        ImageEnvironment {
            cmd: vec!["run".into()],
            ..Default::default()
        },
    );
    let cluster = start(clock, Arc::new(runtime.clone()), Arc::new(images), change).await;
    (cluster, runtime)
}

/// Starts a node that runs containers as processes, with its state in `dir`.
pub(super) async fn processes(dir: &std::path::Path, change: impl FnOnce(&mut ProcessOptions)) -> Cluster {
    let mut options = ProcessOptions::new(dir);
    options.supervisor = env!("CARGO_BIN_EXE_kube-embed").into();
    options.die_with_host = true;
    change(&mut options);
    let runtime = ProcessRuntime::open(options).unwrap();
    let images = StaticImages::new().with("image", ImageEnvironment::system());
    start(Arc::new(SystemClock), Arc::new(runtime), Arc::new(images), |_| {}).await
}

pub(super) async fn start(
    clock: Arc<dyn Clock>,
    runtime: Arc<dyn PodRuntime>,
    images: Arc<dyn ImageTable>,
    change: impl FnOnce(&mut NodeOptions),
) -> Cluster {
    // Random uids, because tests run in parallel on one machine and identify processes by the uid of their pod.
    let embedded = Embedded::builder().clock(Arc::clone(&clock)).build().await.unwrap();
    let client = embedded.client("default");
    let collector = GarbageCollector::start(client.clone(), Arc::clone(&clock));
    let mut options = NodeOptions::new(clock);
    (options.cpu_milli, options.memory) = (4000, 8 << 30);
    change(&mut options);
    let node = Node::start(client.clone(), options, runtime, images).await.unwrap();
    embedded.set_pod_logs(node.logs());
    Cluster {
        embedded,
        client,
        node,
        collector,
    }
}

/// Returns a pod whose containers never restart.
pub(super) fn pod(name: &str, spec: Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "image"}]},
    });
    if let (Some(target), Value::Object(changes)) = (pod["spec"].as_object_mut(), spec) {
        target.extend(changes);
    }
    serde_json::from_value(pod).unwrap()
}

/// Returns a container that runs a shell script.
pub(super) fn sh(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "image", "command": ["/bin/sh", "-c", script]})
}

impl Cluster {
    pub(super) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    pub(super) async fn create(&self, pod: &Pod) -> Pod {
        self.pods().create(&PostParams::default(), pod).await.unwrap()
    }

    pub(super) async fn get(&self, name: &str) -> Pod {
        self.pods().get(name).await.unwrap()
    }

    pub(super) async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the pod satisfies the condition.
    #[track_caller]
    pub(super) fn until<'a>(
        &'a self,
        name: &'a str,
        what: impl Fn(&Pod) -> bool + Send + 'a,
    ) -> impl Future<Output = Pod> + 'a {
        wait(self.client.clone(), name, what)
    }

    /// Waits until the pod has this phase.
    pub(super) async fn phase(&self, name: &str, phase: &str) -> Pod {
        self.until(name, |pod| self::phase(pod) == phase).await
    }

    /// Creates a pod and waits until it has succeeded or failed.
    pub(super) async fn run(&self, pod: &Pod) -> Pod {
        self.create(pod).await;
        self.until(&pod.name_any(), |pod| {
            matches!(self::phase(pod), "Succeeded" | "Failed")
        })
        .await
    }

    /// Waits until the pod no longer exists.
    pub(super) async fn gone(&self, name: &str) {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(watcher(self.pods(), config).default_backoff());
        let mut listed = false;
        let gone = async {
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::InitApply(_)) => listed = true,
                    Ok(watcher::Event::InitDone) if !listed => return,
                    Ok(watcher::Event::Delete(_)) => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE * 60, gone)
            .await
            .expect("the pod still exists");
    }

    /// Waits for an event about the pod with this reason.
    pub(super) async fn event(&self, name: &str, reason: &str) -> Event {
        let api: Api<Event> = Api::default_namespaced(self.client.clone());
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).applied_objects());
        let found = async {
            while let Some(event) = events.next().await {
                let event = event.unwrap();
                if event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason) {
                    return event;
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(PATIENCE * 60, found)
            .await
            .unwrap_or_else(|_| panic!("no event {reason} about {name}"))
    }

    /// Returns the reasons of the pod's events so far, in order.
    pub(super) async fn reasons(&self, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::default_namespaced(self.client.clone());
        let mut events = api.list(&ListParams::default()).await.unwrap().items;
        events.sort_by_key(|e| e.metadata.resource_version.as_ref().map(|v| v.parse::<u64>().unwrap()));
        let about = events
            .into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some(name));
        about.filter_map(|e| e.reason).collect()
    }

    pub(super) async fn stop(self) {
        self.node.shutdown(Duration::ZERO).await;
        self.collector.shutdown().await;
        self.embedded.shutdown().await;
    }
}

#[track_caller]
pub(super) fn wait(client: Client, name: &str, what: impl Fn(&Pod) -> bool + Send) -> impl Future<Output = Pod> {
    let place = std::panic::Location::caller();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    async move {
        let api: Api<Pod> = Api::default_namespaced(client);
        let mut pods = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
        let mut last = None;
        let found = async {
            while let Some(pod) = pods.next().await {
                let Ok(pod) = pod else { continue };
                if what(&pod) {
                    return pod;
                }
                last = Some(pod);
            }
            panic!("the watch ended");
        };
        match tokio::time::timeout(PATIENCE * 60, found).await {
            Ok(pod) => pod,
            Err(_) => panic!(
                "{place}: the pod did not satisfy the condition. Its status: {:#}",
                json!(last.and_then(|p| p.status))
            ),
        }
    }
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub(super) fn status<'a>(pod: &'a Pod, container: &str) -> &'a ContainerStatus {
    let status = pod.status.as_ref().unwrap();
    let all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    all.into_iter()
        .find(|s| s.name == container)
        .unwrap_or_else(|| panic!("container {container} has no status"))
}

#[track_caller]
pub(super) fn ended<'a>(pod: &'a Pod, container: &str) -> &'a ContainerStateTerminated {
    let state = status(pod, container).state.as_ref().unwrap();
    state
        .terminated
        .as_ref()
        .unwrap_or_else(|| panic!("container {container} has not terminated: {state:?}"))
}

/// Returns reason and message of a waiting container.
pub(super) fn waiting<'a>(pod: &'a Pod, container: &str) -> (&'a str, &'a str) {
    let all = pod
        .status
        .as_ref()
        .map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    let waiting = all.into_iter().flatten().find(|s| s.name == container);
    let waiting = waiting.and_then(|s| s.state.as_ref()?.waiting.as_ref());
    waiting.map_or(("", ""), |w| {
        (w.reason.as_deref().unwrap_or(""), w.message.as_deref().unwrap_or(""))
    })
}

/// Returns status and reason of a condition.
pub(super) fn condition<'a>(pod: &'a Pod, type_: &str) -> (&'a str, &'a str) {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .find(|c| c.type_ == type_)
        .map_or(("", ""), |c| (c.status.as_str(), c.reason.as_deref().unwrap_or("")))
}
