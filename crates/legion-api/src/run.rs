//! What the status of every kind of run shares.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The current run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Id of the run: 8 hexadecimal digits, a hash over what makes it this run.
    pub id: String,
    /// Which run of this training it is, counted from 1.
    pub sequence: i64,
    /// `metadata.generation` that the id was computed for.
    pub generation: i64,
    /// Digest of the ConfigMap source that the id was computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_digest: Option<String>,
    /// resourceVersion of the ConfigMap when its digest was taken: while it is the same, it need not be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// The current attempt, counted from 1.
    pub attempt: i32,
    /// Attempts that the training's own fault ended: compared with `spec.retries`.
    #[serde(default)]
    pub failures: i32,
    /// Attempts that were interrupted from outside.
    #[serde(default)]
    pub disruptions: i32,
    /// Attempts that the kubelet refused or that did not start in time.
    #[serde(default)]
    pub rejections: i32,
    /// Attempts in which a step of Legion's own failed for a reason that may pass.
    #[serde(default)]
    pub step_failures: i32,
    /// Name of the current attempt's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// uid of the current attempt's pod, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Not before this time is the next attempt's pod created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// When the first attempt's pod was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What the run waits for, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
    /// The reason that it ended with, as in conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The inputs that later attempts use too, as JSON: toolchain, connections, digests, the commit once fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The cause: a reason, as in conditions.
    pub reason: String,
    /// Since when.
    pub since: Time,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunResult {
    /// The artifact is stored.
    Succeeded,
    /// It failed for good.
    Failed,
    /// It was given up for a newer run.
    Superseded,
}

/// Which toolchain a run uses, pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedToolchain {
    /// Namespace that it was found in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// The image of the trainer; with the digest that the node reported, once it did.
    pub image: String,
}

/// A stored artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// The run that made it.
    pub run_id: String,
    /// Where it is.
    pub uri: String,
    /// sha256 of the archive: its identity.
    pub digest: String,
    /// Size of the archive in bytes.
    pub size_bytes: i64,
    /// What it is, as NAME/VERSION.
    pub format: String,
    /// Name of the model inside, as the toolchain calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the model says what it takes and gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<bool>,
}

/// A file that is stored beside the artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// Where it is.
    pub uri: String,
    /// Its size in bytes.
    pub size_bytes: i64,
    /// Whether its middle was left out, because it was longer than allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

/// Something worth knowing although nothing failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// Machine-readable: `NoSignature`, `ObjectiveMetricMissing`, `UndeclaredParameter`, ...
    pub reason: String,
    /// In words.
    pub message: String,
}

/// Why a run failed, or why its last attempt did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The step that failed: `fetch`, `train`, `publish` or `pod`.
    pub step: String,
    /// Why, in one word.
    pub reason: String,
    /// The field at fault, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Exit code of the training code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the training code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why, in words.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The last lines of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    /// The attempt that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
}

/// An earlier run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Id of the run.
    pub run_id: String,
    /// Which run of this training it was.
    pub sequence: i64,
    /// `metadata.generation` that it was of.
    pub generation: i64,
    /// How it ended.
    pub result: RunResult,
    /// Reason of the condition that it ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// Digest of its artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_digest: Option<String>,
    /// When its first attempt's pod was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}
