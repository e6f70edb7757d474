//! The status of a ModelTraining.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::{Artifact, Failure, HistoryEntry, Notice, PinnedToolchain, RunStatus, StoredFile};

/// The observed state of a ModelTraining.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelTrainingStatus {
    /// The generation that this status describes, or -1 before the operator has seen the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` is the main condition. `Ready`, `Reconciling` and `Stalled` are for tools that wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The current run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
    /// The pinned toolchain of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<PinnedToolchain>,
    /// The pinned source of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFacts>,
    /// Location of the run's results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputFacts>,
    /// The objective's metric as NAME=VALUE, rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// Time from the first attempt's pod to the end of the run, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Logged metrics, at most 64. The objective is always among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub metrics: Vec<Metric>,
    /// Logged parameters, with defaults and autologged parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Tags of the training code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How much was logged but is not shown here. The series has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Omitted>,
    /// The run in the toolchain's tracking system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRun>,
    /// The environment of the training code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentFacts>,
    /// The last successful artifact, with its run. It stays when a later run fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// The log, stored next to the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<StoredFile>,
    /// Every logged point, stored next to the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<StoredSeries>,
    /// Plots and other files of the run, stored next to the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<StoredFile>,
    /// Notices that do not mean a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub notices: Vec<Notice>,
    /// Why the run or its last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Earlier runs, at most 5, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub history: Vec<HistoryEntry>,
}

/// The pinned source of a run.
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
    /// The requested git reference.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The resolved git commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// SHA-256 digest of paths and contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Location of a run's results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputFacts {
    /// Name of the Connection.
    pub connection: String,
    /// Path below the connection's URI.
    pub path: String,
}

/// A logged metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// Name of the metric.
    pub name: String,
    /// The last value: a decimal number, `NaN`, `Infinity` or `-Infinity`. It is text, because JSON numbers have no NaN
    /// and no infinity.
    pub value: String,
    /// Step of the last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
    /// Time of the last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Number of logged points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// The smallest value, without NaN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// The greatest value, without NaN.
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

/// The run in the toolchain's tracking system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRun {
    /// The system: `mlflow`.
    pub system: String,
    /// Version of the system's client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Id of the run in that system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the run in that system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Experiment of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// URI of the run, when the system is a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Number of further runs of the same tree.
    #[serde(default)]
    pub other_runs: i64,
}

/// The environment of the training code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentFacts {
    /// Version of Python, if it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Origin of the environment: `project` or `toolchain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Digest of the list of installed packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
}

/// Every logged point, as JSON Lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredSeries {
    /// URI of the series.
    pub uri: String,
    /// Number of points.
    pub points: i64,
}
