//! Names of the environment variables, control files and stored objects that the containers of a training pod share.
//!
//! The protocol has no constant paths. A process gets each directory and file from one of these variables.

/// The task of a Legion container, as JSON ([`crate::task`]).
pub const TASK: &str = "LEGION_TASK";
/// [`crate::PROTOCOL_VERSION`], for the trainer.
pub const PROTOCOL: &str = "LEGION_PROTOCOL";
/// Directory where `fetch` puts `legion-entry`.
pub const BIN: &str = "LEGION_BIN";
/// Directory of the control files ([`files`]).
pub const RUN: &str = "LEGION_RUN";
/// Directory of the workspace: it contains source, data, output, home and tmp.
pub const WORK: &str = "LEGION_WORK";
/// Directory with the mounted ConfigMap of a `configMap` source.
pub const SOURCE_CONFIG: &str = "LEGION_SOURCE_CONFIG";
/// Directory with one directory of secret keys per slot (`source`, `output`, `data-0`, ...).
pub const SECRETS: &str = "LEGION_SECRETS";
/// Directory with one mount per slot that is a volume.
pub const STORAGE: &str = "LEGION_STORAGE";
/// File whose content becomes the termination message of the container.
pub const TERMINATION_LOG: &str = "LEGION_TERMINATION_LOG";
/// File that holds the [`crate::training::TrainingDocument`].
pub const TRAINING: &str = "LEGION_TRAINING";
/// The project directory, which is also the working directory of the trainer.
pub const SOURCE: &str = "LEGION_SOURCE";
/// Directory with one entry per data binding.
pub const DATA: &str = "LEGION_DATA";
/// Directory for the files that the trainer writes.
pub const OUTPUT: &str = "LEGION_OUTPUT";
/// Append-only file of JSON lines ([`crate::events`]).
pub const EVENTS: &str = "LEGION_EVENTS";
/// File for the result document ([`crate::result`]).
pub const RESULT: &str = "LEGION_RESULT";
/// Directory for files that a toolchain can recreate. It outlives the attempt. The variable is optional. Its value
/// depends on the machine, so the image sets it, not the pod.
pub const CACHE: &str = "LEGION_CACHE";
/// Time limit of the command, in seconds. No value, or 0, means no limit.
pub const TIMEOUT_SECONDS: &str = "LEGION_TIMEOUT_SECONDS";
/// Time between SIGTERM and SIGKILL, in seconds.
pub const GRACE_SECONDS: &str = "LEGION_GRACE_SECONDS";
/// Size limit of the stored copy of the command's output, in bytes.
pub const LOG_LIMIT_BYTES: &str = "LEGION_LOG_LIMIT_BYTES";
/// The `legion-entry` binary that `fetch` installs. The default is the one in the directory of the agent.
pub const ENTRY_BINARY: &str = "LEGION_ENTRY_BINARY";

/// Names of the control files in `$LEGION_RUN`.
pub mod files {
    /// `legion-entry` holds a lock on this file until it ends.
    pub const LOCK: &str = "lock";
    /// `legion-entry` creates this file when it holds the lock, just before it starts the command.
    pub const STARTED: &str = "started";
    /// The exit record ([`crate::exit::ExitRecord`]).
    pub const EXIT: &str = "exit.json";
    /// The bounded copy of the command's output ([`crate::log`]).
    pub const LOG: &str = "log";
    /// The training document ([`crate::training::TrainingDocument`]).
    pub const TRAINING: &str = "training.json";
    /// The event stream of the toolchain ([`crate::events`]).
    pub const EVENTS: &str = "events.jsonl";
    /// The result document of the toolchain ([`crate::result`]).
    pub const RESULT: &str = "result.json";
    /// Exists if this run has already succeeded: the command does not run.
    pub const SKIP: &str = "skip";
}

/// Names of the objects below an output path.
pub mod objects {
    /// The artifact: a deterministic tar of the model directory.
    pub const MODEL: &str = "model.tar";
    /// The bounded copy of the command's output.
    pub const LOG: &str = "log.txt";
    /// The event stream of the run, as JSON lines.
    pub const SERIES: &str = "series.jsonl";
    /// A tar of the other files of the run ([`crate::result::RunFile`]).
    pub const FILES: &str = "files.tar";
}
