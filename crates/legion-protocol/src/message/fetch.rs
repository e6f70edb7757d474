//! The message of the init container `fetch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::frame::{self, Decoded, HEAD_ROOM, MessageError, json};
use super::publish::HeadError;
use crate::reason::StepError;

/// How `fetch` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FetchOutcome {
    /// Everything is in place.
    Ready,
    /// This run already published its result: the command is not run again.
    Skip,
    /// Something could not be brought in.
    Error,
}

/// What pins the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchedSource {
    /// The commit that was checked out, in full.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Digest of the files, where they have no commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Number of files.
    #[serde(default)]
    pub files: u64,
    /// Their bytes.
    #[serde(default)]
    pub size_bytes: u64,
}

/// The first line of `fetch`'s message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchHead {
    /// How it ended.
    pub outcome: FetchOutcome,
    /// What pins the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FetchedSource>,
    /// The error, shortened; the tail has it in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HeadError>,
}

/// What a data binding turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchedData {
    /// Name of the binding.
    pub name: String,
    /// Digest of the file, or of the set of files.
    pub digest: String,
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

/// The tail of `fetch`'s message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchTail {
    /// The error in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// The data bindings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<FetchedData>,
    /// How many data bindings did not fit.
    #[serde(default)]
    pub omitted_data: u64,
    /// Milliseconds that the step took.
    #[serde(default)]
    pub elapsed_ms: u64,
}

/// The whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchMessage {
    /// What correctness needs.
    pub head: FetchHead,
    /// Everything else.
    pub tail: FetchTail,
}

impl FetchMessage {
    /// A message of failure.
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

    /// The text, in at most `budget` bytes (and never less than the head needs).
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
        let data = self.tail.data.len();
        let shortened = |steps: usize| FetchTail {
            data: self.tail.data[..data.saturating_sub(steps)].to_vec(),
            omitted_data: self.tail.omitted_data + steps.min(data) as u64,
            error: self.tail.error.clone().filter(|_| steps <= data),
            ..self.tail
        };
        frame::encode(&head, data + 1, shortened, budget)
    }

    /// Reads a message.
    pub fn decode(text: &str) -> Result<Decoded<FetchHead, FetchTail>, MessageError> {
        frame::decode(text)
    }
}

impl Decoded<FetchHead, FetchTail> {
    /// The error, as completely as it arrived.
    pub fn error(&self) -> Option<StepError> {
        match &self.tail {
            super::Tail::Whole(FetchTail { error: Some(error), .. }) => Some(error.clone()),
            _ => self.head.error.as_ref().map(HeadError::to_step_error),
        }
    }
}
