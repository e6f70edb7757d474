//! What a supervisor and the node tell each other: one document at the start, and two files in the container's
//! directory that outlive both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Written once the command runs.
pub(super) const STARTED: &str = "started.json";
/// Written once nothing of the container is left.
pub(super) const EXIT: &str = "exit.json";
/// Held for as long as the supervisor lives.
pub(super) const LOCK: &str = "lock";
/// Where the container's termination message path leads.
pub(super) const TERMINATION: &str = "termination-log";
/// The log; `log.1` is the part before.
pub(super) const LOG: &str = "log";
/// In the environment of every process of a container: finds what is left of it should its supervisor be killed.
pub(super) const MARKER: &str = "KUBE_EMBED_CONTAINER";

/// One line of JSON on a supervisor's standard input. It never touches the disk: environments hold secrets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    /// The container's directory.
    pub(super) dir: PathBuf,
    /// The program, an absolute path.
    pub(super) program: PathBuf,
    /// Arguments, the first being what the program is called.
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: PathBuf,
    /// The inherited descriptor of the held [`LOCK`].
    pub(super) lock_fd: i32,
    /// Bytes after which the log is rotated.
    pub(super) log_limit: u64,
    /// Memory limit in bytes.
    pub(super) memory_limit: Option<u64>,
    pub(super) cgroup: Option<super::cgroup::Cgroup>,
    /// Whether the container ends when the node's process does.
    pub(super) die_with_host: bool,
}

/// A supervisor's answer, one line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// The command runs.
    Started(Started),
    /// It does not, and why.
    Failed(String),
}

/// [`STARTED`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    pub(super) supervisor: Process,
    pub(super) main: Process,
    pub(super) started_at: Timestamp,
}

/// A process, told from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
}

/// [`EXIT`].
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

/// Reads a record; `None` when it is not there (or not whole, which a rename rules out).
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a record so that it appears whole or not at all.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(value)?)?;
    std::fs::rename(temporary, path)
}
