//! The messages between a supervisor and the node: one document at the start, and two files in the container's
//! directory that outlive both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// File that is written when the command runs.
pub(super) const STARTED: &str = "started.json";
/// File that is written when no process of the container is left.
pub(super) const EXIT: &str = "exit.json";
/// Lock file that is held while the supervisor is alive.
pub(super) const LOCK: &str = "lock";
/// File at the container's termination message path.
pub(super) const TERMINATION: &str = "termination-log";
/// The log file. `log.1` is the older part.
pub(super) const LOG: &str = "log";
/// Environment variable of every process of a container. It identifies remaining processes if the supervisor is
/// killed.
pub(super) const MARKER: &str = "KUBE_EMBED_CONTAINER";

/// One line of JSON on a supervisor's standard input. It is never written to disk, because environments contain
/// secrets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    /// The container's directory.
    pub(super) dir: PathBuf,
    /// The program, an absolute path.
    pub(super) program: PathBuf,
    /// Arguments. The first one is the program's name (`argv[0]`).
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: PathBuf,
    /// The inherited descriptor of the [`LOCK`].
    pub(super) lock_fd: i32,
    /// Size in bytes at which the log is rotated.
    pub(super) log_limit: u64,
    /// Memory limit in bytes.
    pub(super) memory_limit: Option<u64>,
    pub(super) cgroup: Option<super::cgroup::Cgroup>,
    /// Whether the container ends with the node's process.
    pub(super) die_with_host: bool,
}

/// A supervisor's answer, one line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// The command runs.
    Started(Started),
    /// The command does not run, with the reason.
    Failed(String),
}

/// Content of [`STARTED`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    pub(super) supervisor: Process,
    pub(super) main: Process,
    pub(super) started_at: Timestamp,
}

/// Identity of a process. The start time distinguishes it from a later process with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
}

/// Content of [`EXIT`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExitRecord {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) oom_killed: bool,
    pub(super) lost: bool,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
}

/// Reads a record. Returns `None` if it does not exist or is incomplete (which the rename rules out).
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a record atomically.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(value)?)?;
    std::fs::rename(temporary, path)
}
