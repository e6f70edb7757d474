//! The message of the main container `publish`.

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
    /// The result is in the store, and so is the success record.
    Published,
    /// The trainer failed; what it left of use was uploaded.
    Failed,
    /// An earlier attempt of this run had published: its facts are repeated.
    Skipped,
    /// The trainer succeeded and its result could not be published.
    Error,
}

/// The artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Artifact")]
pub struct WireArtifact {
    /// Its digest, which is its identity.
    pub digest: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// Its address. In a head it is left out when it does not fit: it follows from the output path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
}

/// How many facts of each kind there are, whether they fitted into the message or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Metrics.
    pub metrics: u64,
    /// Parameters.
    pub parameters: u64,
    /// Tags.
    pub tags: u64,
}

/// An error in the room that a head has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadError {
    /// The reason.
    pub reason: StepReason,
    /// The field it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What happened, perhaps shortened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl HeadError {
    /// The lengths that are tried for the texts of an error.
    pub(super) const LIMITS: [usize; 5] = [320, 200, 100, 40, 0];

    /// The head's form of an error.
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

    /// The error again, with the reason's own remedy.
    pub fn to_step_error(&self) -> StepError {
        StepError::new(self.reason, self.message.clone()).field(self.field.clone())
    }
}

/// The first line of `publish`'s message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishHead {
    /// How it ended.
    pub outcome: PublishOutcome,
    /// How the command ended; absent when no record was left, as after the kernel killed the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitRecord>,
    /// The artifact, once it is in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<WireArtifact>,
    /// Last value of the objective's metric; absent when the project never logged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// How many facts there are.
    #[serde(default)]
    pub counts: Counts,
    /// The error of this step, shortened; the tail has it in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HeadError>,
}

/// Something that was stored beside the artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Stored")]
pub struct WireStoredFile {
    /// Its address.
    pub uri: String,
    /// Its bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// Whether the middle was left out (logs).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Number of metric points in it (series).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<u64>,
}

/// The tail of `publish`'s message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishTail {
    /// The error of this step in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// What the toolchain says about its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_error: Option<ToolError>,
    /// The last lines of the log of a failed run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
    /// Address of the artifact.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_uri: String,
    /// Format of the artifact, `name/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Name of the model within the toolchain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Whether the model declares its inputs and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<bool>,
    /// The stored log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<WireStoredFile>,
    /// The stored series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<WireStoredFile>,
    /// The stored run files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<WireStoredFile>,
    /// The metrics, the objective's first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "columns")]
    #[schemars(with = "Option<MetricColumns>")]
    pub metrics: Vec<MetricSummary>,
    /// The parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "pairs")]
    #[schemars(with = "Vec<(String, String)>")]
    pub parameters: Vec<NamedValue>,
    /// The tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "pairs")]
    #[schemars(with = "Vec<(String, String)>")]
    pub tags: Vec<NamedValue>,
    /// How many facts are not in this tail.
    #[serde(default)]
    pub omitted: WireOmitted,
    /// The run as an external system knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<WireExternalRun>,
    /// What the command ran in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// What users should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<WireNotice>,
}

mod pairs {
    //! Names and values as arrays of two: no keys to repeat.

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

/// The whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishMessage {
    /// What correctness needs.
    pub head: PublishHead,
    /// Everything else.
    pub tail: PublishTail,
}

impl PublishMessage {
    /// The text, in at most `budget` bytes (and never less than the head needs). What does not fit is left out in this
    /// order: times of metrics, metrics of the system, parameters from the end, tags, metrics; then what a failed step
    /// can spare. The objective, the artifact, the exit record and the error are in the head and always there.
    pub fn encode(&self, budget: usize) -> String {
        frame::encode(
            &self.fitting_head(),
            self.steps(),
            |steps| self.shortened(steps),
            budget,
        )
    }

    /// Reads a message.
    pub fn decode(text: &str) -> Result<Decoded<PublishHead, PublishTail>, MessageError> {
        frame::decode(text)
    }

    /// The head in [`super::HEAD_LIMIT`] bytes: the address of the artifact gives way first, then the words of errors.
    fn fitting_head(&self) -> PublishHead {
        let mut head = self.head.clone();
        head.exit = head.exit.map(ExitRecord::sanitised);
        // The text of a number has at most 24 bytes; anything longer was not written by this crate.
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

    /// How many steps [`Self::shortened`] knows.
    fn steps(&self) -> usize {
        let t = &self.tail;
        2 + t.parameters.len() + t.tags.len() + t.metrics.len() + 1 + t.notices.len() + 2
    }

    /// The tail after the first `steps` steps of leaving out.
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
        // The objective comes first and stays, even if it is a metric of the system.
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
    /// The error of the step, as completely as it arrived.
    pub fn error(&self) -> Option<StepError> {
        match &self.tail {
            super::Tail::Whole(PublishTail { error: Some(error), .. }) => Some(error.clone()),
            _ => self.head.error.as_ref().map(HeadError::to_step_error),
        }
    }
}
