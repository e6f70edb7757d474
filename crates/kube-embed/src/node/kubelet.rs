//! The kubelet's outer loop: it selects this node's pods and runs one task for each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node as NodeObject, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::pod::{self, Command};
use super::runtime::PodKey;
use super::writer;

/// All pods by uid, as last seen.
pub(crate) type PodTable = BTreeMap<String, Arc<Pod>>;

/// Creates or updates the Node object.
pub(crate) async fn register(ctx: &Context, ready: bool) -> Result<(), kube::Error> {
    let api: Api<NodeObject> = Api::all(ctx.client.clone());
    let options = &ctx.options;
    let name = &options.name;
    let mut labels = options.labels.clone();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    for (key, value) in [
        ("kubernetes.io/hostname", name.as_str()),
        ("kubernetes.io/os", std::env::consts::OS),
        ("kubernetes.io/arch", arch),
    ] {
        labels.insert(key.into(), value.into());
    }
    let existing = api.get_opt(name).await?;
    if existing.is_none() {
        let node: NodeObject = serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": labels}, "spec": {}
        }))
        .map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &node).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    let now = Time(ctx.clock.now());
    let status = if ready { "True" } else { "Unknown" };
    let (reason, message) = if ready {
        ("KubeletReady", "kubelet is posting ready status")
    } else {
        ("NodeStatusUnknown", "Kubelet stopped posting node status.")
    };
    let before = existing
        .and_then(|n| n.status?.conditions?.into_iter().find(|c| c.type_ == "Ready"))
        .filter(|c| c.status == status)
        .and_then(|c| c.last_transition_time);
    let capacity = serde_json::json!({
        "cpu": format!("{}m", options.cpu_milli), "memory": options.memory.to_string(), "pods": options.pods.to_string()
    });
    let patch = serde_json::json!({
        "metadata": {"labels": labels},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": before.unwrap_or_else(|| now.clone()),
            }],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {
                "architecture": arch, "operatingSystem": std::env::consts::OS, "osImage": "", "kernelVersion": "",
                "containerRuntimeVersion": format!("{}://{}", ctx.runtime.name(), env!("CARGO_PKG_VERSION")),
                "kubeletVersion": "v1.37.0", "kubeProxyVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
            },
        },
    });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(|_| ())
}

/// Watches the objects that pods wait for.
pub(crate) async fn watch_configuration(ctx: Arc<Context>) {
    let config = watcher::Config::default;
    let maps = watcher(Api::<ConfigMap>::all(ctx.client.clone()), config())
        .default_backoff()
        .map(|e| e.is_ok());
    let secrets = watcher(Api::<Secret>::all(ctx.client.clone()), config())
        .default_backoff()
        .map(|e| e.is_ok());
    let claims = watcher(Api::<PersistentVolumeClaim>::all(ctx.client.clone()), config())
        .default_backoff()
        .map(|e| e.is_ok());
    let mut all = futures::stream::select_all([maps.boxed(), secrets.boxed(), claims.boxed()]);
    while let Some(changed) = all.next().await {
        if changed {
            ctx.note_change();
        }
    }
}

/// Handles a lost node, like the node lifecycle controller.
pub(crate) async fn evict_when_lost(ctx: Arc<Context>, pods: watch::Receiver<PodTable>) {
    let mut connected = ctx.connected.subscribe();
    loop {
        if connected.wait_for(|connected| !*connected).await.is_err() {
            return;
        }
        let back = tokio::time::timeout(ctx.options.eviction_after, connected.wait_for(|connected| *connected));
        let back = back.await.is_ok();
        if back {
            continue;
        }
        let table = pods.borrow().clone();
        for pod in table
            .values()
            .filter(|p| mine(&ctx, p) && p.metadata.deletion_timestamp.is_none())
        {
            if let Err(error) = taint_eviction(&ctx, pod).await {
                tracing::warn!(%error, pod = pod.name_any(), "pod of the lost node not marked for deletion");
            }
        }
        if connected.wait_for(|connected| *connected).await.is_err() {
            return;
        }
    }
}

async fn taint_eviction(ctx: &Context, pod: &Pod) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let condition = serde_json::json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(ctx.clock.now()),
    }]}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&condition))
        .await?;
    let preconditions = Some(Preconditions {
        uid: pod.uid(),
        resource_version: None,
    });
    api.delete(
        &name,
        &DeleteParams {
            preconditions,
            ..DeleteParams::default()
        },
    )
    .await
    .map(|_| ())
}

fn mine(ctx: &Context, pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(ctx.options.name.as_str())
}

pub(crate) fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.is_some_and(super::status::is_terminal)
}

struct Kubelet {
    ctx: Arc<Context>,
    pods: watch::Sender<PodTable>,
    workers: HashMap<String, mpsc::UnboundedSender<Command>>,
    /// Tasks of pods. Each returns the uid of its pod.
    tasks: JoinSet<String>,
    /// Deleted objects whose task is still stopping containers.
    leaving: BTreeSet<String>,
    /// Pods that have ended on this node. The watch may still deliver an older state of them, and they must not run
    /// again.
    done: BTreeSet<String>,
    listing: Option<BTreeSet<String>>,
    started: bool,
    draining: bool,
}

/// Runs the loop until the node is stopped or drained.
pub(crate) async fn run(
    ctx: Arc<Context>,
    pods: watch::Sender<PodTable>,
    stopping: CancellationToken,
    mut drain: watch::Receiver<Option<Duration>>,
) {
    let stream = watcher(Api::<Pod>::all(ctx.client.clone()), watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut kubelet = Kubelet {
        ctx: Arc::clone(&ctx),
        pods,
        workers: HashMap::new(),
        tasks: JoinSet::new(),
        leaving: BTreeSet::new(),
        done: BTreeSet::new(),
        listing: None,
        started: false,
        draining: false,
    };
    loop {
        if kubelet.draining && kubelet.tasks.is_empty() {
            return;
        }
        let reporting = ctx.is_reporting();
        tokio::select! {
            biased;
            () = stopping.cancelled() => {
                kubelet.tasks.shutdown().await;
                return;
            }
            Ok(()) = drain.changed(), if !kubelet.draining => {
                if let Some(grace) = *drain.borrow_and_update() {
                    kubelet.drain(grace);
                }
            }
            Some(ended) = kubelet.tasks.join_next() => match ended {
                Ok(uid) => kubelet.ended(uid).await,
                Err(error) if error.is_panic() => tracing::error!(%error, "a pod's task ended unexpectedly"),
                Err(_) => {}
            },
            () = ctx.reporting(), if !reporting => {}
            event = stream.next(), if reporting => match event {
                Some(Ok(event)) => kubelet.event(event).await,
                Some(Err(error)) => tracing::debug!(%error, "pod watch interrupted"),
                None => return,
            },
        }
    }
}

impl Kubelet {
    async fn event(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listing = Some(BTreeSet::new()),
            Event::InitApply(pod) => {
                if let (Some(listing), Some(uid)) = (&mut self.listing, pod.uid()) {
                    listing.insert(uid);
                }
                self.apply(pod).await;
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let known: Vec<_> = self
                    .pods
                    .borrow()
                    .keys()
                    .filter(|uid| !listed.contains(*uid))
                    .cloned()
                    .collect();
                for uid in known {
                    self.gone(&uid).await;
                }
                if !std::mem::replace(&mut self.started, true) {
                    // Pods that no longer exist may have left something behind in an earlier run.
                    for uid in self.ctx.runtime.pods().await {
                        if !listed.contains(&uid) {
                            self.ctx.runtime.remove(&uid).await;
                        }
                    }
                }
                self.ctx.reschedule.notify_one();
            }
            Event::Apply(pod) => self.apply(pod).await,
            Event::Delete(pod) => self.gone(&pod.uid().unwrap_or_default()).await,
        }
    }

    async fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let pod = Arc::new(pod);
        self.pods.send_modify(|pods| {
            pods.insert(uid.clone(), Arc::clone(&pod));
        });
        if !mine(&self.ctx, &pod) || self.leaving.contains(&uid) {
            return;
        }
        if let Some(worker) = self.workers.get(&uid) {
            // A closed channel means that the task has just ended. `ended` handles that.
            let _ = worker.send(Command::Update(pod));
        } else if is_terminal(&pod) {
            if pod.metadata.deletion_timestamp.is_some() {
                self.remove_object(&pod).await;
            }
        } else if !self.draining && !self.done.contains(&uid) {
            let (worker, inbox) = mpsc::unbounded_channel();
            self.workers.insert(uid.clone(), worker);
            let life = pod::run(Arc::clone(&self.ctx), pod, inbox);
            self.tasks.spawn(async move {
                life.await;
                uid
            });
        }
    }

    async fn gone(&mut self, uid: &str) {
        self.done.remove(uid);
        let known = self.pods.borrow().get(uid).cloned();
        self.pods.send_modify(|pods| {
            pods.remove(uid);
        });
        match self.workers.get(uid) {
            Some(worker) => {
                self.leaving.insert(uid.to_owned());
                // As in `apply`.
                let _ = worker.send(Command::Gone);
            }
            None if known.is_some_and(|pod| mine(&self.ctx, &pod)) => self.ctx.runtime.remove(uid).await,
            None => {}
        }
        self.ctx.reschedule.notify_one();
    }

    async fn ended(&mut self, uid: String) {
        self.workers.remove(&uid);
        if self.leaving.remove(&uid) {
            self.ctx.runtime.remove(&uid).await;
            return;
        }
        let pod = self.pods.borrow().get(&uid).cloned();
        self.done.insert(uid);
        if let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            self.remove_object(&pod).await;
        }
    }

    async fn remove_object(&self, pod: &Pod) {
        let key = PodKey {
            uid: pod.uid().unwrap_or_default(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
        };
        if let Err(error) = writer::remove(&self.ctx, &key).await {
            // A later event of the pod or the next list leads here again.
            tracing::warn!(%error, namespace = key.namespace, pod = key.name, "pod object not removed");
        }
    }

    fn drain(&mut self, grace: Duration) {
        self.draining = true;
        for worker in self.workers.values() {
            // As in `apply`.
            let _ = worker.send(Command::Shutdown { grace });
        }
    }
}
