//! What runs the containers of pods: the seam between the pod life cycle and the machine.
//!
//! The life cycle (phases, conditions, order, restarts, grace periods, termination messages) lives above this trait
//! and is the same for all runtimes; a runtime only starts, signals, observes and forgets containers, and keeps their
//! logs.

pub mod process;
pub mod scripted;

use std::path::PathBuf;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;

use super::launch::Declaration;

/// A pod as a runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Uid.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// One instance of a container: a restart is a new attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey {
    /// Uid of the pod.
    pub pod: String,
    /// Name of the container.
    pub name: String,
    /// 0 for the first instance, then counting restarts.
    pub attempt: u32,
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeContent {
    /// A new directory that lives as long as the pod.
    Empty {
        /// Bytes the pod may keep in it before it is evicted.
        size_limit: Option<u64>,
    },
    /// Files from ConfigMaps, Secrets and the pod's own fields.
    Files(Vec<VolumeFile>),
    /// A path of the machine.
    Host {
        /// The path.
        path: PathBuf,
        /// `hostPath.type`.
        kind: String,
    },
    /// The directory of a PersistentVolumeClaim.
    Claim {
        /// Uid of the claim.
        uid: String,
    },
}

/// A file in a [`VolumeContent::Files`] volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// Relative path, without `..`.
    pub path: String,
    /// Contents.
    pub data: Bytes,
    /// Permission bits.
    pub mode: u32,
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it holds.
    pub content: VolumeContent,
}

/// Where a container sees a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Name of the volume.
    pub volume: String,
    /// Path in the container.
    pub path: String,
    /// Path below the volume's root.
    pub sub_path: String,
}

/// Everything a runtime needs to start a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Which instance.
    pub key: ContainerKey,
    /// The pod, for messages.
    pub pod: PodKey,
    /// Command, environment and directory, not yet expanded.
    pub declaration: Declaration,
    /// Volume mounts.
    pub mounts: Vec<Mount>,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// CPU limit in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; `128 + signal` after a signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether its memory limit ended it.
    pub oom_killed: bool,
    /// Whether nothing is known about the end (the runtime lost sight of the container).
    pub lost: bool,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What it wrote to its termination message file (at least the last 4 KiB).
    pub message: Vec<u8>,
}

/// A container that runs.
pub struct Running {
    /// The runtime's name for it, for `containerID`.
    pub id: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Resolves when nothing of the container is left.
    pub exit: BoxFuture<'static, Exit>,
}

/// What a runtime found of a pod's container after a restart of the node.
pub enum Recovered {
    /// It runs, and its end will be known.
    Running(Running),
    /// It ended meanwhile.
    Exited {
        /// The runtime's name for it.
        id: String,
        /// How.
        exit: Exit,
    },
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// What a kubelet would say.
    pub message: String,
}

/// How to end a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// SIGTERM to its main process.
    Term,
    /// SIGKILL to everything in it.
    Kill,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// A line, or a part of an overlong one.
    Line {
        /// When it was written.
        time: Timestamp,
        /// Its bytes; they end with a newline unless more of the line follows.
        data: Bytes,
    },
    /// Everything written before the log was opened has been sent.
    CaughtUp,
}

/// A volume that has outgrown its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgrown {
    /// Name of the volume.
    pub volume: String,
}

/// Runs containers.
pub trait PodRuntime: Send + Sync + 'static {
    /// Name for `containerID` and node info.
    fn name(&self) -> &'static str;

    /// Makes a pod's volumes. Called again (with all volumes) after a restart of the node: existing directories stay.
    fn prepare(&self, pod: &PodKey, volumes: Vec<Volume>) -> BoxFuture<'static, Result<(), String>>;

    /// Starts a container; never a second instance under the same key.
    fn start(&self, spec: ContainerSpec) -> BoxFuture<'static, Result<Running, StartFailure>>;

    /// Asks a container to end. A container that has ended already is no error.
    fn stop(&self, container: &ContainerKey, stop: Stop);

    /// What is left of a pod's container from before a restart of the node: its latest attempt.
    fn recover(&self, pod: &PodKey, container: &str) -> BoxFuture<'static, Option<(u32, Recovered)>>;

    /// Uids of the pods this runtime holds anything of.
    fn pods(&self) -> BoxFuture<'static, Vec<String>>;

    /// Ends whatever still runs of a pod and forgets it, logs and volumes included.
    fn remove(&self, uid: &str) -> BoxFuture<'static, ()>;

    /// A container's log from its beginning; with `follow`, until the container has ended. `None` without a log.
    fn log(
        &self,
        container: &ContainerKey,
        follow: bool,
    ) -> BoxFuture<'static, Option<BoxStream<'static, std::io::Result<LogItem>>>>;

    /// The last bytes of a container's log, without timestamps (at least [`super::termination::LOG_LIMIT`], if there
    /// are as many).
    fn log_tail(&self, container: &ContainerKey) -> BoxFuture<'static, Vec<u8>>;

    /// Resolves when a volume of the pod has outgrown its limit; never, where there is nothing to watch.
    fn outgrown(&self, pod: &PodKey, volumes: &[Volume]) -> BoxFuture<'static, Outgrown>;

    /// Makes the directory of a PersistentVolumeClaim.
    fn provision(&self, claim: &str) -> BoxFuture<'static, Result<(), String>>;

    /// Removes the directory of a PersistentVolumeClaim that was deleted.
    fn release(&self, claim: &str) -> BoxFuture<'static, ()>;
}
