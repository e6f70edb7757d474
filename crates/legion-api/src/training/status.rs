//! What comes back.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator says about a ModelTraining.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelTrainingStatus {
    /// The generation that this status speaks of; -1 before the operator has seen the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` is the truth; `Ready`, `Reconciling` and `Stalled` serve tools that wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The current run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
    /// Which toolchain the run uses, pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<PinnedToolchain>,
    /// Which source the run uses, pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFacts>,
    /// Where the run's results go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputFacts>,
    /// The objective's metric as NAME=VALUE, rounded for reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// From the first attempt's pod to the end of the run, for reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Metrics that the training code logged; at most 64, the objective always among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub metrics: Vec<Metric>,
    /// Parameters as logged: defaults and autologged ones too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Tags that the training code set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How much was logged but is not shown here; all of it is in the series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Omitted>,
    /// The run in the tracking system that the toolchain used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRun>,
    /// The environment that the training code ran in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentFacts>,
    /// The last successful artifact. It stays when a later run fails, and names its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// The whole log, stored beside the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<StoredFile>,
    /// Every logged point, stored beside the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<StoredSeries>,
    /// Plots and other files that the run wrote, stored beside the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<StoredFile>,
    /// What is worth knowing although nothing failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub notices: Vec<Notice>,
    /// Why the run failed, or why its last attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Earlier runs, the latest first; at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub history: Vec<HistoryEntry>,
}

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

/// Which source a run uses, pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceFacts {
    /// `Git`, `ConfigMap`, `ObjectStore` or `Volume`.
    pub kind: String,
    /// Name of the ConfigMap, Connection or PersistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// URI of the repository or store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The git reference that was asked for.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The git commit that it stood for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// sha256 over paths and contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Where a run's results go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputFacts {
    /// Name of the Connection.
    pub connection: String,
    /// Path below the connection's URI.
    pub path: String,
}

/// A metric that the training code logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// The last value as a decimal number, `NaN`, `Infinity` or `-Infinity`: text, because JSON numbers cannot hold those.
    pub value: String,
    /// Step of the last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
    /// Time of the last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// How many points were logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// The least value; NaN left aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// The greatest value; NaN left aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

/// How much was logged but is not shown in the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Omitted {
    /// Metrics.
    pub metrics: i64,
    /// Parameters.
    pub parameters: i64,
    /// Tags.
    pub tags: i64,
}

/// The run in the tracking system that the toolchain used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRun {
    /// The system: `mlflow`.
    pub system: String,
    /// Version of the system's client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Id of the run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The experiment that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Where it can be looked at, when the system is a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Further runs of the same tree.
    #[serde(default)]
    pub other_runs: i64,
}

/// The environment that the training code ran in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentFacts {
    /// Version of Python, where it was Python.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Whose environment it was: `project` or `toolchain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Digest of the list of installed packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
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

/// Every logged point, as JSON lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredSeries {
    /// Where it is.
    pub uri: String,
    /// How many points it holds.
    pub points: i64,
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
