//! The success record: proves, outside the pod, that a run has published its result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{PublishHead, PublishTail};

/// Size limit of a success record, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The content of `.legion/<training uid>/<runId>.json`. It is created after all other objects, and never overwritten.
/// A later attempt that finds it reports its content instead of training again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRecord {
    /// Version of the document. It is 1.
    pub version: u32,
    /// Namespace of the training.
    pub namespace: String,
    /// Name of the training.
    pub name: String,
    /// Uid of the training.
    pub uid: String,
    /// Id of the run: eight hexadecimal digits.
    pub run_id: String,
    /// Number of the run of this training, from 1.
    pub sequence: u32,
    /// Number of the attempt that published, from 1.
    pub attempt: u32,
    /// The rendered path template: the prefix of the objects.
    pub path: String,
    /// When the record was created, RFC 3339 with milliseconds.
    pub created_at: String,
    /// The head of the message that reported the result.
    pub head: PublishHead,
    /// The complete tail of that message, without omissions.
    pub facts: PublishTail,
}

impl SuccessRecord {
    /// Returns whether this is the record of the given run.
    pub fn is_about(&self, uid: &str, run_id: &str) -> bool {
        self.version == crate::WIRE_VERSION && self.uid == uid && self.run_id == run_id
    }
}
