//! The runtime that runs the containers of pods: the interface between the pod lifecycle and the machine.
//!
//! The lifecycle (phases, conditions, order, restarts, grace periods, termination messages) is above this trait and
//! is the same for all runtimes. A runtime only starts, signals, observes and removes containers, and keeps their
//! logs.

pub mod process;
pub mod scripted;

use std::path::PathBuf;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;

use super::launch::Declaration;

/// A pod's identity for a runtime.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Uid.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Identity of one instance of a container. A restart is a new attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey {
    /// Uid of the pod.
    pub pod: String,
    /// Name of the container.
    pub name: String,
    /// Number of restarts before this instance.
    pub attempt: u32,
}

/// Content of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeContent {
    /// A new directory that exists as long as the pod.
    Empty {
        /// Bytes that the pod may store in it before it is evicted.
        size_limit: Option<u64>,
    },
    /// Files from ConfigMaps, Secrets and the pod's own fields.
    Files(Vec<VolumeFile>),
    /// A path on the machine.
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
    /// Its content.
    pub content: VolumeContent,
}

/// The mount of a volume in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Name of the volume.
    pub volume: String,
    /// Path in the container.
    pub path: String,
    /// Path below the volume's root.
    pub sub_path: String,
}

/// All input for starting a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Identity of the instance.
    pub key: ContainerKey,
    /// The pod, for messages.
    pub pod: PodKey,
    /// Command, environment and directory before expansion.
    pub declaration: Declaration,
    /// Volume mounts.
    pub mounts: Vec<Mount>,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// CPU limit in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
}

/// The end of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; `128 + signal` after a signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was killed because of its memory limit.
    pub oom_killed: bool,
    /// Whether the end is unknown because the runtime lost the container.
    pub lost: bool,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Its termination message file (at least the last 4 KiB).
    pub message: Vec<u8>,
}

/// A running container.
pub struct Running {
    /// The runtime's ID for it, used in `containerID`.
    pub id: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Resolves when no process of the container is left.
    pub exit: BoxFuture<'static, Exit>,
}

/// A container that a runtime found after a restart of the node.
pub enum Recovered {
    /// It runs, and its end will be reported.
    Running(Running),
    /// It has ended.
    Exited {
        /// The runtime's ID for it.
        id: String,
        /// Its end.
        exit: Exit,
    },
}

/// The reason why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// The kubelet's message.
    pub message: String,
}

/// The way to stop a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// SIGTERM to its main process.
    Term,
    /// SIGKILL to all its processes.
    Kill,
}

/// A chunk of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// A line, or a part of a very long line.
    Line {
        /// Time of writing.
        time: Timestamp,
        /// The bytes. They end with a newline unless the line continues.
        data: Bytes,
    },
    /// Everything that was written before the log was opened has been sent.
    CaughtUp,
}

/// A volume that exceeds its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgrown {
    /// Name of the volume.
    pub volume: String,
}

/// Runs containers.
pub trait PodRuntime: Send + Sync + 'static {
    /// Returns the name for `containerID` and the node's info.
    fn name(&self) -> &'static str;

    /// Creates a pod's volumes. It is called again (with all volumes) after a restart of the node. Existing
    /// directories stay.
    fn prepare(&self, pod: &PodKey, volumes: Vec<Volume>) -> BoxFuture<'static, Result<(), String>>;

    /// Starts a container. It never starts a second instance with the same key.
    fn start(&self, spec: ContainerSpec) -> BoxFuture<'static, Result<Running, StartFailure>>;

    /// Stops a container. A container that has already ended is not an error.
    fn stop(&self, container: &ContainerKey, stop: Stop);

    /// Returns the latest attempt of a pod's container from before a restart of the node.
    fn recover(&self, pod: &PodKey, container: &str) -> BoxFuture<'static, Option<(u32, Recovered)>>;

    /// Returns the uids of the pods of which this runtime has any data.
    fn pods(&self) -> BoxFuture<'static, Vec<String>>;

    /// Kills everything of a pod that still runs and deletes its data, including logs and volumes.
    fn remove(&self, uid: &str) -> BoxFuture<'static, ()>;

    /// Opens a container's log at its beginning. With `follow`, reads until the container has ended. Returns `None`
    /// without a log.
    fn log(
        &self,
        container: &ContainerKey,
        follow: bool,
    ) -> BoxFuture<'static, Option<BoxStream<'static, std::io::Result<LogItem>>>>;

    /// Returns the end of a container's log without timestamps: at least [`super::termination::LOG_LIMIT`] bytes if
    /// there are as many.
    fn log_tail(&self, container: &ContainerKey) -> BoxFuture<'static, Vec<u8>>;

    /// Resolves when a volume of the pod exceeds its limit. Without a limit it never resolves.
    fn outgrown(&self, pod: &PodKey, volumes: &[Volume]) -> BoxFuture<'static, Outgrown>;

    /// Creates the directory of a PersistentVolumeClaim.
    fn provision(&self, claim: &str) -> BoxFuture<'static, Result<(), String>>;

    /// Removes the directory of a deleted PersistentVolumeClaim.
    fn release(&self, claim: &str) -> BoxFuture<'static, ()>;
}
