//! What comes back.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::{Artifact, Failure, HistoryEntry, Notice, PinnedToolchain, RunStatus, StoredFile};

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

/// Every logged point, as JSON lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredSeries {
    /// Where it is.
    pub uri: String,
    /// How many points it holds.
    pub points: i64,
}
