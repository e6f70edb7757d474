//! Parts of the status that all kinds of runs share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The current run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Id of the run: 8 hexadecimal digits. It is a hash over the fields that mean work.
    pub id: String,
    /// Number of the run, counted from 1.
    pub sequence: i64,
    /// `metadata.generation` of the id.
    pub generation: i64,
    /// Hash of everything that means work, the content of the source included. An object that is created again with its
    /// status trains again only if this hash differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
    /// Digest of the ConfigMap source of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_digest: Option<String>,
    /// resourceVersion of the ConfigMap with this digest. While it stays the same, the ConfigMap is not read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// The current attempt, counted from 1.
    pub attempt: i32,
    /// Number of attempts in which the user's code failed. It is compared with `spec.retries`.
    #[serde(default)]
    pub failures: i32,
    /// Number of attempts that were interrupted from outside.
    #[serde(default)]
    pub disruptions: i32,
    /// Number of attempts that the kubelet refused or that did not start in time.
    #[serde(default)]
    pub rejections: i32,
    /// Number of attempts in which one of Legion's own steps failed for a reason that may pass.
    #[serde(default)]
    pub step_failures: i32,
    /// Name of the current attempt's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// uid of the current attempt's pod, once the pod was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The next attempt's pod is not created before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Time at which the first attempt's pod was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Time at which the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What the run waits for, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Result of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
    /// Reason of the result, as in conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The pinned inputs of all attempts, each as PATH=JSON: toolchain, connections, digests, and the commit once
    /// fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// Reason, as in conditions.
    pub reason: String,
    /// Start of the wait.
    pub since: Time,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunResult {
    /// The artifact is stored.
    Succeeded,
    /// The run failed, and no attempt follows.
    Failed,
    /// A newer run replaced it.
    Superseded,
}

/// The pinned toolchain of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedToolchain {
    /// Namespace of the toolchain.
    pub namespace: String,
    /// Name of the toolchain.
    pub name: String,
    /// `metadata.generation` of the toolchain.
    pub generation: i64,
    /// Image of the trainer, with its digest once the node has reported it.
    pub image: String,
}

/// A stored artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Id of the run.
    pub run_id: String,
    /// URI of the archive.
    pub uri: String,
    /// SHA-256 digest of the archive. It identifies the artifact.
    pub digest: String,
    /// Size of the archive in bytes.
    pub size_bytes: i64,
    /// Format, as NAME/VERSION.
    pub format: String,
    /// The toolchain's name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the model has a signature: a description of its inputs and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<bool>,
}

/// A file that is stored next to the artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// URI of the file.
    pub uri: String,
    /// Size in bytes.
    pub size_bytes: i64,
    /// Whether the middle of the file is missing, because the file was too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

/// A notice that does not mean a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// Machine-readable: `NoSignature`, `ObjectiveMetricMissing`, `UndeclaredParameter`, ...
    pub reason: String,
    /// The message, for people.
    pub message: String,
}

/// Why a run or its last attempt failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The step that failed: `fetch`, `train`, `publish` or `pod`.
    pub step: String,
    /// Machine-readable cause.
    pub reason: String,
    /// The field that caused the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Exit code of the user's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the user's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The message, for people.
    pub message: String,
    /// What a user can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The last lines of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    /// The failed attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
}

/// An earlier run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Id of the run.
    pub run_id: String,
    /// Number of the run.
    pub sequence: i64,
    /// `metadata.generation` of the run.
    pub generation: i64,
    /// Result of the run.
    pub result: RunResult,
    /// Reason of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Score of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// Digest of the run's artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_digest: Option<String>,
    /// Time at which the first attempt's pod was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Time at which the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}
