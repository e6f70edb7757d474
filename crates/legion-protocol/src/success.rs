//! The success record: the proof, outside the pod, that a run has published its result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{PublishHead, PublishTail};

/// Largest success record, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// What `.legion/<training uid>/<runId>.json` holds. It is created once, last, and never overwritten; an attempt that
/// finds it repeats its facts instead of training again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRecord {
    /// Version of this document.
    pub version: u32,
    /// Namespace of the training.
    pub namespace: String,
    /// Name of the training.
    pub name: String,
    /// Uid of the training.
    pub uid: String,
    /// Id of the run.
    pub run_id: String,
    /// Number of the run.
    pub sequence: u32,
    /// The attempt that published.
    pub attempt: u32,
    /// The rendered path template, below which the objects lie.
    pub path: String,
    /// When it was written, RFC 3339 with milliseconds.
    pub created_at: String,
    /// What correctness needs.
    pub head: PublishHead,
    /// Everything else, with nothing left out.
    pub facts: PublishTail,
}

impl SuccessRecord {
    /// Whether this record is about the given run.
    pub fn is_about(&self, uid: &str, run_id: &str) -> bool {
        self.version == crate::WIRE_VERSION && self.uid == uid && self.run_id == run_id
    }
}
