//! The termination message of the init container `fetch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::frame::{self, Decoded, HEAD_ROOM, MessageError, json};
use super::publish::HeadError;
use crate::reason::StepError;
use crate::result::WireNotice;

/// How `fetch` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FetchOutcome {
    /// The source and all data are in the workspace.
    Ready,
    /// This run has already published its result. The command does not run.
    Skip,
    /// A part of the source or of the data could not be fetched.
    Error,
}

/// The exact version of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchedSource {
    /// Full hash of the commit that was checked out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Digest of the files, if the source has no commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Number of files in the source.
    #[serde(default)]
    pub files: u64,
    /// Total size of the files, in bytes.
    #[serde(default)]
    pub size_bytes: u64,
}

/// The first line of the message of `fetch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchHead {
    /// How `fetch` ended.
    pub outcome: FetchOutcome,
    /// The exact version of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FetchedSource>,
    /// The shortened error. The tail has the complete one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HeadError>,
}

/// The exact version of the data of one binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchedData {
    /// Name of the data binding in `spec.data`.
    pub name: String,
    /// Digest of the file, or of the set of files.
    pub digest: String,
    /// Number of files in the binding.
    pub files: u64,
    /// Total size of the files, in bytes.
    pub size_bytes: u64,
}

/// The part of the message of `fetch` after the first line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchTail {
    /// The complete error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// The data bindings, in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<FetchedData>,
    /// What the user should know about the source and the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<WireNotice>,
    /// Number of data bindings that did not fit into the message.
    #[serde(default)]
    pub omitted_data: u64,
    /// Duration of the step, in milliseconds.
    #[serde(default)]
    pub elapsed_ms: u64,
}

/// The termination message of `fetch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchMessage {
    /// Always arrives: everything that correctness depends on.
    pub head: FetchHead,
    /// May be shortened or lost.
    pub tail: FetchTail,
}

impl FetchMessage {
    /// Creates a message with the outcome `error`.
    pub fn failed(error: StepError, elapsed_ms: u64) -> Self {
        Self {
            head: FetchHead {
                outcome: FetchOutcome::Error,
                source: None,
                error: Some(HeadError::of(&error)),
            },
            tail: FetchTail {
                error: Some(error),
                elapsed_ms,
                ..FetchTail::default()
            },
        }
    }

    /// Returns the text. It has at most `budget` bytes, or the length of the head if that is more.
    pub fn encode(&self, budget: usize) -> String {
        let mut head = self.head.clone();
        if let Some(error) = &mut head.error {
            let full = error.clone();
            for limit in HeadError::LIMITS {
                let error = full.shortened(limit);
                head.error = Some(error);
                if json(&head).len() <= HEAD_ROOM {
                    break;
                }
            }
        }
        // The data bindings are left out first, then the notices, and the error last.
        let (data, notices) = (self.tail.data.len(), self.tail.notices.len());
        let shortened = |steps: usize| FetchTail {
            data: self.tail.data[..data.saturating_sub(steps)].to_vec(),
            notices: self.tail.notices[..notices.min((data + notices).saturating_sub(steps))].to_vec(),
            omitted_data: self.tail.omitted_data + steps.min(data) as u64,
            error: self.tail.error.clone().filter(|_| steps <= data + notices),
            ..self.tail
        };
        frame::encode(&head, data + notices + 1, shortened, budget)
    }

    /// Parses the text of a message. A lost tail is not an error.
    pub fn decode(text: &str) -> Result<Decoded<FetchHead, FetchTail>, MessageError> {
        frame::decode(text)
    }
}

impl Decoded<FetchHead, FetchTail> {
    /// Returns the error from the tail, or the shortened error from the head if the tail was lost.
    pub fn error(&self) -> Option<StepError> {
        match &self.tail {
            super::Tail::Whole(FetchTail { error: Some(error), .. }) => Some(error.clone()),
            _ => self.head.error.as_ref().map(HeadError::to_step_error),
        }
    }
}
