//! Names of the environment variables and control files that the containers of a training pod share.
//!
//! No path is a constant of the protocol: every directory and file reaches a process through one of these variables.

/// JSON of the task of a Legion container ([`crate::task`]).
pub const TASK: &str = "LEGION_TASK";
/// Version of the toolchain protocol, for the trainer.
pub const PROTOCOL: &str = "LEGION_PROTOCOL";
/// Directory where `fetch` puts `legion-entry`.
pub const BIN: &str = "LEGION_BIN";
/// Directory of the control files ([`files`]).
pub const RUN: &str = "LEGION_RUN";
/// The workspace: source, data, output, home and tmp live below it.
pub const WORK: &str = "LEGION_WORK";
/// Mounted ConfigMap of a `configMap` source.
pub const SOURCE_CONFIG: &str = "LEGION_SOURCE_CONFIG";
/// Directory with one directory of secret keys per slot (`source`, `output`, `data-0`, ...).
pub const SECRETS: &str = "LEGION_SECRETS";
/// Directory with one mounted directory per slot that is a volume.
pub const STORAGE: &str = "LEGION_STORAGE";
/// The file whose content becomes the container's termination message.
pub const TERMINATION_LOG: &str = "LEGION_TERMINATION_LOG";
/// File that holds the [`crate::training::TrainingDocument`].
pub const TRAINING: &str = "LEGION_TRAINING";
/// The project directory, which is also the working directory of the trainer.
pub const SOURCE: &str = "LEGION_SOURCE";
/// Directory with one entry per data binding.
pub const DATA: &str = "LEGION_DATA";
/// Directory where the trainer leaves its files.
pub const OUTPUT: &str = "LEGION_OUTPUT";
/// Append-only file of JSON lines ([`crate::events`]).
pub const EVENTS: &str = "LEGION_EVENTS";
/// The result document ([`crate::result`]).
pub const RESULT: &str = "LEGION_RESULT";
/// Directory that outlives the attempt, for what a toolchain can make again; absent where there is no such place. Its
/// value belongs to the machine, so it comes with the image and not with the pod.
pub const CACHE: &str = "LEGION_CACHE";
/// Longest time the command may run, in seconds; absent or 0 means no limit.
pub const TIMEOUT_SECONDS: &str = "LEGION_TIMEOUT_SECONDS";
/// Time between TERM and KILL, in seconds.
pub const GRACE_SECONDS: &str = "LEGION_GRACE_SECONDS";
/// Size limit of the stored copy of the command's output, in bytes.
pub const LOG_LIMIT_BYTES: &str = "LEGION_LOG_LIMIT_BYTES";
/// The `legion-entry` binary that `fetch` installs; the default is the one beside the agent.
pub const ENTRY_BINARY: &str = "LEGION_ENTRY_BINARY";

/// Names of the control files in `$LEGION_RUN`.
pub mod files {
    /// Locked by `legion-entry` for its whole life.
    pub const LOCK: &str = "lock";
    /// Written once the lock is held, just before the command starts.
    pub const STARTED: &str = "started";
    /// The exit record.
    pub const EXIT: &str = "exit.json";
    /// Bounded copy of the command's output.
    pub const LOG: &str = "log";
    /// The training document.
    pub const TRAINING: &str = "training.json";
    /// The event stream of the toolchain.
    pub const EVENTS: &str = "events.jsonl";
    /// The result document of the toolchain.
    pub const RESULT: &str = "result.json";
    /// Present when this run already succeeded: the command is not run again.
    pub const SKIP: &str = "skip";
}

/// Names of the objects below an output path.
pub mod objects {
    /// The artifact: a deterministic tar of the model directory.
    pub const MODEL: &str = "model.tar";
    /// The command's output.
    pub const LOG: &str = "log.txt";
    /// Every event of the run.
    pub const SERIES: &str = "series.jsonl";
    /// Other files of the run.
    pub const FILES: &str = "files.tar";
}
