//! The training document: everything a toolchain may know about the run, resolved and free of secrets.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the file named by `LEGION_TRAINING` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingDocument {
    /// Version of the toolchain protocol.
    pub protocol: u32,
    /// Name of the ModelTraining.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Id of the run: eight hexadecimal digits.
    pub run_id: String,
    /// Number of the run of this training, from 1.
    pub sequence: u32,
    /// Number of the attempt of this run, from 1.
    pub attempt: u32,
    /// Name of the pod.
    pub pod: String,
    /// The model to be made.
    pub model: WireModel,
    /// `format` of the toolchain, `name/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// `spec.entrypoint`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entrypoint: String,
    /// `spec.args`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `spec.arguments` with the defaults of the toolchain's schema.
    #[serde(default)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// `spec.hyperParameters`, always strings.
    #[serde(default)]
    pub hyper_parameters: BTreeMap<String, String>,
    /// `spec.objective`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<WireObjective>,
    /// `spec.workDir`, relative to the root of the source; empty for the root itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub work_dir: String,
    /// Where the source came from, with what pins it.
    pub source: WireSource,
    /// The data bindings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<WireData>,
}

/// Name and version of the model that a training makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ModelName")]
pub struct WireModel {
    /// Name.
    pub name: String,
    /// Version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// The metric that a training is judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Objective")]
pub struct WireObjective {
    /// Name of the metric.
    pub metric: String,
    /// Which values are better.
    pub goal: WireGoal,
}

/// Which values of the objective's metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Goal")]
pub enum WireGoal {
    /// Larger ones.
    Maximize,
    /// Smaller ones.
    Minimize,
}

/// Kind of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceKind {
    /// A git repository.
    #[default]
    Git,
    /// A ConfigMap.
    ConfigMap,
    /// Objects of an S3-compatible store.
    ObjectStore,
    /// A volume.
    Volume,
}

/// Where the source came from and what pins it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SourceFacts")]
pub struct WireSource {
    /// Kind of the source.
    pub kind: SourceKind,
    /// Address, without credentials; the name of a ConfigMap.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// The branch, tag or commit that was asked for.
    #[serde(default, rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// The commit that was checked out, in full.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Digest of the files, where they have no commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// One data binding as the trainer sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DataFacts")]
pub struct WireData {
    /// Name of the binding: `$LEGION_DATA/<name>` is the data.
    pub name: String,
    /// Where it came from, without credentials.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Where it lies below the project directory, when the binding asked for a place there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_path: String,
    /// Absolute path of the data in the trainer's container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Digest of the file, or of the set of files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}
