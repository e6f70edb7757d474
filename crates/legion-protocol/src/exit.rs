//! The exit record: how the command of the trainer ended. `legion-entry`, its PID 1, writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{reason::StepReason, text, time};

/// Longest message of an [`ExitError`], in bytes.
pub const MAX_MESSAGE: usize = 512;

/// The exit record, `exit.json`. It does not exist if the kernel killed `legion-entry` itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// Version of the document. It is 1.
    pub version: u32,
    /// Exit code of the command. Absent if a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Number of the signal that ended the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Number of the first SIGTERM or SIGINT that `legion-entry` received. It means that the run was interrupted, with
    /// any exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_signal: Option<i32>,
    /// Whether the command exceeded its timeout.
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
    /// Why, as users read it.
    pub reason: StepReason,
    /// What happened, and how to fix it. At most 512 bytes.
    pub message: String,
}

impl ExitRecord {
    /// Returns whether the command succeeded: it exited with 0, in time, without an outside signal.
    pub fn succeeded(&self) -> bool {
        self.exit_code == Some(0) && self.outside_signal.is_none() && !self.timed_out && self.error.is_none()
    }

    /// Returns the record with bounded texts, and without times of another form than this crate's. The trainer can
    /// write to the directory of the file, so the content is not trusted.
    #[must_use]
    pub fn sanitized(mut self) -> Self {
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
