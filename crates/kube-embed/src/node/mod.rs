//! One node: a scheduler that binds pods to it, and a kubelet that runs them.
//!
//! The node is an ordinary client of the API server. It watches pods, binds them, runs their containers through a
//! [`PodRuntime`](runtime::PodRuntime) and writes their status. [`runtime::process`] runs containers as local
//! processes. [`runtime::scripted`] runs nothing and simulates containers from a test's script, under tokio's paused
//! time.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use kube_embed::node::images::{ImageEnvironment, StaticImages};
//! use kube_embed::node::{Node, NodeOptions};
//! use kube_embed::node::runtime::process::{ProcessOptions, ProcessRuntime};
//!
//! let embedded = kube_embed::Embedded::builder().build().await?;
//! let runtime = ProcessRuntime::open(ProcessOptions::new("/var/lib/example/pods"))?;
//! let images = StaticImages::new().otherwise(ImageEnvironment::system());
//! let node = Node::start(
//!     embedded.client("default"), NodeOptions::new(embedded.clock()), Arc::new(runtime), Arc::new(images),
//! ).await?;
//! embedded.set_pod_logs(node.logs());
//! # node.shutdown(std::time::Duration::from_secs(10)).await;
//! # Ok(()) }
//! ```
//!
//! # What differs from a kubelet
//!
//! * There is no container isolation with the process runtime: see [`runtime::process`].
//! * Containers share the machine's network: `podIP` and `hostIP` are 127.0.0.1, and ports may collide.
//! * Probes, lifecycle hooks, ephemeral containers, `exec`, `attach` and `port-forward` do not exist. A running
//!   container is ready.
//! * The node writes no heartbeats, because it runs in the same process as the API server. [`Node::lose`] simulates a
//!   node that stops reporting.
//! * PersistentVolumeClaims are directories on the node. They are bound immediately, whatever their class. They have
//!   no PersistentVolumes.
//!
//! What is the same: phases, conditions, init containers and native sidecars, restart policies with their back-off,
//! termination messages with their limits, `activeDeadlineSeconds`, deletion with a grace period, eviction by
//! `emptyDir.sizeLimit`, image and configuration errors, events.

mod claims;
mod environment;
mod events;
mod fields;
pub mod images;
mod kubelet;
pub mod launch;
mod logs;
mod pod;
mod prepare;
pub mod quantity;
pub mod runtime;
mod scheduler;
mod status;
pub mod termination;
mod volumes;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::events::Recorder;
use self::images::ImageTable;
use self::runtime::PodRuntime;
use crate::clock::Clock;
use crate::logs::PodLogs;

/// Settings of a node.
#[derive(Clone)]
pub struct NodeOptions {
    /// Name of the node.
    pub name: String,
    /// Labels besides the usual `kubernetes.io/hostname`, `kubernetes.io/os` and `kubernetes.io/arch`.
    pub labels: BTreeMap<String, String>,
    /// Thousandths of a core that pods may request together.
    pub cpu_milli: u64,
    /// Bytes of memory that pods may request together.
    pub memory: u64,
    /// Maximum number of pods.
    pub pods: u32,
    /// Source of timestamps: the API server's clock.
    pub clock: Arc<dyn Clock>,
    /// Time from [`Node::lose`] until pods are marked for deletion (Kubernetes' default toleration: 5 minutes).
    pub eviction_after: Duration,
}

impl NodeOptions {
    /// Returns options for a node named `local` with this machine's capacity.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            name: "local".into(),
            labels: BTreeMap::new(),
            cpu_milli: machine_cpu_milli(),
            memory: machine_memory(),
            pods: 110,
            clock,
            eviction_after: Duration::from_secs(300),
        }
    }
}

/// Returns this machine's cores, in thousandths.
pub(crate) fn machine_cpu_milli() -> u64 {
    std::thread::available_parallelism().map_or(1000, |n| n.get() as u64 * 1000)
}

/// Returns this machine's memory in bytes.
pub(crate) fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    // The field types differ between architectures.
    #[allow(clippy::useless_conversion)]
    u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit))
}

/// The error of a node that could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The API server refused a request that the node needs.
    #[error("the node cannot register itself: {0}")]
    Register(#[from] kube::Error),
}

/// Data that all parts of a node use.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) options: NodeOptions,
    pub(crate) runtime: Arc<dyn PodRuntime>,
    pub(crate) images: Arc<dyn ImageTable>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    /// Whether the node reports to the API server (see [`Node::lose`]).
    connected: watch::Sender<bool>,
    /// Number of changes of ConfigMaps, Secrets and claims, for tasks that wait for a change.
    changes: watch::Sender<u64>,
    /// Notified when the scheduler must run again.
    pub(crate) reschedule: Notify,
}

impl Context {
    /// Waits until the node reports.
    pub(crate) async fn reporting(&self) {
        let mut connected = self.connected.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = connected.wait_for(|connected| *connected).await;
    }

    pub(crate) fn is_reporting(&self) -> bool {
        *self.connected.borrow()
    }

    /// Resolves at the next change of a ConfigMap, Secret or claim, and at the latest after `limit`.
    pub(crate) fn changed_or_after(&self, limit: Duration) -> BoxFuture<'static, ()> {
        let mut changes = self.changes.subscribe();
        async move {
            // Both outcomes mean the same: it is time to check again.
            let _ = tokio::time::timeout(limit, changes.changed()).await;
        }
        .boxed()
    }

    pub(crate) fn note_change(&self) {
        self.changes.send_modify(|count| *count += 1);
        self.reschedule.notify_one();
    }
}

/// A running node.
pub struct Node {
    ctx: Arc<Context>,
    stopping: CancellationToken,
    draining: watch::Sender<Option<Duration>>,
    kubelet: Option<tokio::task::JoinHandle<()>>,
    tasks: JoinSet<()>,
}

impl Node {
    /// Registers the node, adopts containers that still run, and starts to schedule and run pods.
    pub async fn start(
        client: Client,
        options: NodeOptions,
        runtime: Arc<dyn PodRuntime>,
        images: Arc<dyn ImageTable>,
    ) -> Result<Self, NodeError> {
        let clock = Arc::clone(&options.clock);
        let (recorder, record) = Recorder::new(client.clone(), options.name.clone(), Arc::clone(&clock));
        let ctx = Arc::new(Context {
            client,
            options,
            runtime,
            images,
            clock,
            recorder,
            connected: watch::channel(true).0,
            changes: watch::channel(0).0,
            reschedule: Notify::new(),
        });
        kubelet::register(&ctx, true).await?;
        let stopping = CancellationToken::new();
        let (draining, drain) = watch::channel(None);
        let (pods, seen) = watch::channel(kubelet::PodTable::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(record);
        tasks.spawn(scheduler::run(Arc::clone(&ctx), seen.clone()));
        tasks.spawn(claims::run(Arc::clone(&ctx)));
        tasks.spawn(kubelet::watch_configuration(Arc::clone(&ctx)));
        tasks.spawn(kubelet::evict_when_lost(Arc::clone(&ctx), seen));
        let kubelet = tokio::spawn(kubelet::run(Arc::clone(&ctx), pods, stopping.clone(), drain));
        Ok(Self {
            ctx,
            stopping,
            draining,
            kubelet: Some(kubelet),
            tasks,
        })
    }

    /// Returns the name of the node.
    pub fn name(&self) -> &str {
        &self.ctx.options.name
    }

    /// Returns the source of `pods/log` answers for [`Embedded::set_pod_logs`](crate::Embedded::set_pod_logs).
    pub fn logs(&self) -> Arc<dyn PodLogs> {
        Arc::new(logs::NodeLogs::new(Arc::clone(&self.ctx)))
    }

    /// Simulates a node without a connection. Containers keep running, nothing is reported, and changes do not
    /// arrive. The node becomes `NotReady`. After [`NodeOptions::eviction_after`], its pods are marked for deletion
    /// and stay.
    pub async fn lose(&self) -> Result<(), NodeError> {
        self.ctx.connected.send_replace(false);
        kubelet::register(&self.ctx, false).await?;
        Ok(())
    }

    /// Ends [`Node::lose`]. The node reports what has happened since then and handles all changes that it missed.
    pub async fn recover(&self) -> Result<(), NodeError> {
        kubelet::register(&self.ctx, true).await?;
        self.ctx.connected.send_replace(true);
        self.ctx.reschedule.notify_one();
        Ok(())
    }

    /// Shuts the node down gracefully. Every pod is stopped, with its own grace period but at most `grace`. It is
    /// reported as `Failed` with reason `Terminated` and condition `DisruptionTarget`, as a kubelet does before a
    /// reboot.
    pub async fn shutdown(mut self, grace: Duration) {
        self.draining.send_replace(Some(grace));
        if let Some(kubelet) = self.kubelet.take() {
            // An error means that the task was canceled with its tokio runtime, and then there is nothing to wait
            // for.
            let _ = kubelet.await;
        }
        self.tasks.shutdown().await;
    }

    /// Stops the node but not the containers, like stopping a kubelet. A node that is started later with the same
    /// runtime and API server adopts them.
    pub async fn detach(mut self) {
        self.stopping.cancel();
        if let Some(kubelet) = self.kubelet.take() {
            // As in `shutdown`.
            let _ = kubelet.await;
        }
        self.tasks.shutdown().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}
