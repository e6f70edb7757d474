//! How the trainer's command ended, as its PID 1 saw it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{reason::StepReason, text, time};

/// Longest message of an [`ExitError`], in bytes.
pub const MAX_MESSAGE: usize = 512;

/// The exit record, `exit.json`. Absent when the kernel killed `legion-entry` itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// Version of this document.
    pub version: u32,
    /// Exit code of the command, when it exited on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// First TERM or INT that came to `legion-entry` from outside: the run was interrupted, whatever the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_signal: Option<i32>,
    /// Whether the command outlived its timeout.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// When the command was started, RFC 3339 with milliseconds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub started_at: String,
    /// When the command ended, RFC 3339 with milliseconds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub finished_at: String,
    /// Milliseconds from the start of `legion-entry` to the start of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_delay_ms: Option<u32>,
    /// Largest resident set of any process of the command, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rss_bytes: Option<u64>,
    /// Why the command could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ExitError>,
}

/// Why the command could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitError {
    /// The reason.
    pub reason: StepReason,
    /// What happened and what to do about it.
    pub message: String,
}

impl ExitRecord {
    /// Returns whether the command succeeded: it exited with 0, in time, without an outside signal.
    pub fn succeeded(&self) -> bool {
        self.exit_code == Some(0) && self.outside_signal.is_none() && !self.timed_out && self.error.is_none()
    }

    /// The same record with every text bounded and every time in the one form this crate writes. The file lies where
    /// the trainer may write, so its content is a claim, not a fact.
    #[must_use]
    pub fn sanitised(mut self) -> Self {
        for at in [&mut self.started_at, &mut self.finished_at] {
            if !time::is_rfc3339_millis(at) {
                at.clear();
            }
        }
        if let Some(error) = &mut self.error {
            error.message = text::bounded(&error.message, MAX_MESSAGE);
        }
        self
    }
}
