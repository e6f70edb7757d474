//! The termination message of the main container `publish`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::{self, MetricColumns};
use super::frame::{self, Decoded, HEAD_ROOM, MessageError, json};
use crate::exit::ExitRecord;
use crate::reason::{StepError, StepReason};
use crate::result::{ToolError, WireExternalRun, WireNotice};
use crate::summary::{MetricSummary, NamedValue, WireOmitted, is_system_metric};
use crate::text::bounded;

/// How `publish` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PublishOutcome {
    /// The result and the success record are in the store.
    Published,
    /// The trainer failed. Its log and its series were uploaded.
    Failed,
    /// An earlier attempt of this run has published. The message repeats its results.
    Skipped,
    /// The trainer succeeded, but its result could not be published.
    Error,
}

/// The stored model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Artifact")]
pub struct WireArtifact {
    /// Digest of the file. It identifies the artifact.
    pub digest: String,
    /// Size, in bytes.
    pub size_bytes: u64,
    /// Address. A head omits it if it does not fit, because it follows from the output path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
}

/// Numbers of metrics, parameters and tags. They include those that did not fit into the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Number of metrics.
    pub metrics: u64,
    /// Number of parameters.
    pub parameters: u64,
    /// Number of tags.
    pub tags: u64,
}

/// An error that fits into a head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadError {
    /// Why, as users read it in `status.failure.reason`.
    pub reason: StepReason,
    /// Path of the field in the manifest, such as `spec.source.git.ref`. Empty if it does not fit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What happened. It may be shortened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl HeadError {
    /// The lengths to try for the texts of an error, in bytes.
    pub(super) const LIMITS: [usize; 5] = [320, 200, 100, 40, 0];

    /// Creates the head's form of an error, not shortened yet.
    pub fn of(error: &StepError) -> Self {
        Self {
            reason: error.reason,
            field: error.field.clone(),
            message: error.message.clone(),
        }
    }

    pub(super) fn shortened(&self, limit: usize) -> Self {
        let field = if self.field.len() <= limit.min(100) {
            self.field.clone()
        } else {
            String::new()
        };
        Self {
            reason: self.reason,
            field,
            message: bounded(&self.message, limit),
        }
    }

    /// Returns the error with the default remedy of its reason.
    pub fn to_step_error(&self) -> StepError {
        StepError::new(self.reason, self.message.clone()).field(self.field.clone())
    }
}

/// The first line of the message of `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishHead {
    /// How `publish` ended.
    pub outcome: PublishOutcome,
    /// How the command ended. Absent if there is no exit record, for example because the kernel killed the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitRecord>,
    /// The artifact, if it is in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<WireArtifact>,
    /// Last value of the objective's metric. Absent if the project did not log it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// Numbers of metrics, parameters and tags.
    #[serde(default)]
    pub counts: Counts,
    /// The shortened error of this step. The tail has the complete one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HeadError>,
}

/// A file that is stored next to the artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Stored")]
pub struct WireStoredFile {
    /// Address without credentials.
    pub uri: String,
    /// Size, in bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// Whether the middle is omitted. Only for logs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Number of metric points in the file. Only for series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<u64>,
}

/// The part of the message of `publish` after the first line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishTail {
    /// The complete error of this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// The error that the toolchain reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_error: Option<ToolError>,
    /// The last lines of the log of a failed run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
    /// Address of the artifact, without credentials.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_uri: String,
    /// Format of the artifact, `name/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Name of the model in the toolchain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Whether the model declares its inputs and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<bool>,
    /// The command's output in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<WireStoredFile>,
    /// The event stream in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<WireStoredFile>,
    /// The archive of the run's other files in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<WireStoredFile>,
    /// The metrics, the objective's first. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "columns")]
    #[schemars(with = "Option<MetricColumns>")]
    pub metrics: Vec<MetricSummary>,
    /// Pairs of name and value. At most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "pairs")]
    #[schemars(with = "Vec<(String, String)>")]
    pub parameters: Vec<NamedValue>,
    /// Pairs of name and value. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "pairs")]
    #[schemars(with = "Vec<(String, String)>")]
    pub tags: Vec<NamedValue>,
    /// Numbers of metrics, parameters and tags that are not in this tail.
    #[serde(default)]
    pub omitted: WireOmitted,
    /// The run in an external system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<WireExternalRun>,
    /// Software that the command ran with, such as `python`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Messages for users that are not errors. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<WireNotice>,
}

mod pairs {
    //! Names and values as arrays of two, which repeat no keys.

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::summary::NamedValue;

    pub(super) fn serialize<S: Serializer>(pairs: &[NamedValue], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(pairs.iter().map(|p| (&p.name, &p.value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedValue>, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(deserializer)?;
        Ok(pairs
            .into_iter()
            .map(|(name, value)| NamedValue { name, value })
            .collect())
    }
}

/// The termination message of `publish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishMessage {
    /// Always arrives: everything that correctness depends on.
    pub head: PublishHead,
    /// May be shortened or lost.
    pub tail: PublishTail,
}

impl PublishMessage {
    /// Returns the text. It has at most `budget` bytes, or the length of the head if that is more.
    ///
    /// If necessary, the tail omits in this order: times of metrics, metrics of the system, parameters from the end,
    /// tags, metrics, the end of the log, notices, the environment, the external run. The head always contains the
    /// objective, the artifact, the exit record and the error.
    pub fn encode(&self, budget: usize) -> String {
        frame::encode(
            &self.fitting_head(),
            self.steps(),
            |steps| self.shortened(steps),
            budget,
        )
    }

    /// Parses the text of a message. A lost tail is not an error.
    pub fn decode(text: &str) -> Result<Decoded<PublishHead, PublishTail>, MessageError> {
        frame::decode(text)
    }

    /// Returns the head, shortened to [`super::HEAD_LIMIT`] bytes. It first omits the address of the artifact, then
    /// shortens the texts of errors.
    fn fitting_head(&self) -> PublishHead {
        let mut head = self.head.clone();
        head.exit = head.exit.map(ExitRecord::sanitized);
        // The text of a number has at most 24 bytes. This crate writes nothing longer.
        head.objective = head.objective.map(|v| bounded(&v, 32));
        if let Some(artifact) = &mut head.artifact {
            artifact.digest = bounded(&artifact.digest, 80);
        }
        if json(&head).len() <= HEAD_ROOM {
            return head;
        }
        if let Some(artifact) = &mut head.artifact {
            artifact.uri.clear();
        }
        for limit in HeadError::LIMITS {
            if json(&head).len() <= HEAD_ROOM {
                break;
            }
            head.error = self.head.error.as_ref().map(|e| e.shortened(limit));
            if let Some(error) = head.exit.as_mut().and_then(|e| e.error.as_mut()) {
                error.message = bounded(&error.message, limit);
            }
        }
        head
    }

    /// Returns the largest number of steps for [`Self::shortened`].
    fn steps(&self) -> usize {
        let t = &self.tail;
        2 + t.parameters.len() + t.tags.len() + t.metrics.len() + 1 + t.notices.len() + 2
    }

    /// Returns the tail after the first `steps` omissions.
    fn shortened(&self, steps: usize) -> PublishTail {
        let mut left = steps;
        let mut take = |available: usize| {
            let taken = left.min(available);
            left -= taken;
            taken
        };
        let mut tail = self.tail.clone();
        if take(1) == 1 {
            tail.metrics.iter_mut().for_each(|m| m.timestamp = None);
        }
        // The objective is first. It stays even if it is a metric of the system.
        let kept = usize::from(self.head.objective.is_some()).min(tail.metrics.len());
        if take(1) == 1 {
            let first = tail.metrics.drain(..kept).collect::<Vec<_>>();
            tail.metrics.retain(|m| !is_system_metric(&m.name));
            tail.metrics.splice(..0, first);
        }
        tail.parameters
            .truncate(tail.parameters.len() - take(tail.parameters.len()));
        tail.tags.truncate(tail.tags.len() - take(tail.tags.len()));
        tail.metrics
            .truncate((tail.metrics.len() - take(tail.metrics.len())).max(kept));
        if take(1) == 1 {
            tail.log_tail.clear();
        }
        tail.notices.truncate(tail.notices.len() - take(tail.notices.len()));
        if take(1) == 1 {
            tail.environment.clear();
        }
        if take(1) == 1 {
            tail.external = None;
        }
        tail.omitted.metrics += (self.tail.metrics.len() - tail.metrics.len()) as u64;
        tail.omitted.parameters += (self.tail.parameters.len() - tail.parameters.len()) as u64;
        tail.omitted.tags += (self.tail.tags.len() - tail.tags.len()) as u64;
        tail
    }
}

impl Decoded<PublishHead, PublishTail> {
    /// Returns the error of the step from the tail, or the shortened error from the head if the tail was lost.
    pub fn error(&self) -> Option<StepError> {
        match &self.tail {
            super::Tail::Whole(PublishTail { error: Some(error), .. }) => Some(error.clone()),
            _ => self.head.error.as_ref().map(HeadError::to_step_error),
        }
    }
}
