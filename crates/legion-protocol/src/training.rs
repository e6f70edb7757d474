//! The training document: all input of a toolchain. It is resolved and contains no secrets.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The content of the file `LEGION_TRAINING`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingDocument {
    /// Version of the toolchain protocol. It is 1.
    pub protocol: u32,
    /// Name of the ModelTraining.
    pub name: String,
    /// Namespace of the ModelTraining.
    pub namespace: String,
    /// Uid of the ModelTraining.
    pub uid: String,
    /// Id of the run: eight hexadecimal digits.
    pub run_id: String,
    /// Number of the run of this training, from 1.
    pub sequence: u32,
    /// Number of the attempt of this run, from 1.
    pub attempt: u32,
    /// Name of the pod of this attempt.
    pub pod: String,
    /// Name and version of the model.
    pub model: WireModel,
    /// `format` of the toolchain, `name/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// `spec.entrypoint`, as in the manifest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entrypoint: String,
    /// `spec.args`, as in the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `spec.arguments`, with the defaults of the toolchain's schema.
    #[serde(default)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// `spec.hyperParameters`. The values are always strings.
    #[serde(default)]
    pub hyper_parameters: BTreeMap<String, String>,
    /// `spec.objective`, if it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<WireObjective>,
    /// `spec.workDir`, relative to the root of the source. Empty for the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub work_dir: String,
    /// Address and exact version of the source.
    pub source: WireSource,
    /// The data bindings of `spec.data`, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<WireData>,
}

/// Name and version of the model that a training creates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ModelName")]
pub struct WireModel {
    /// `spec.model.name`, as in the manifest.
    pub name: String,
    /// `spec.model.version`, as in the manifest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// The metric that evaluates a training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Objective")]
pub struct WireObjective {
    /// Name of the metric, as the project logs it.
    pub metric: String,
    /// Whether larger or smaller values are better.
    pub goal: WireGoal,
}

/// Whether larger or smaller values of the objective's metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Goal")]
pub enum WireGoal {
    /// Larger values are better.
    Maximize,
    /// Smaller values are better.
    Minimize,
}

/// Which field of `spec.source` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceKind {
    /// A commit of a git repository.
    #[default]
    Git,
    /// Items of a ConfigMap.
    ConfigMap,
    /// Objects of an S3-compatible store.
    ObjectStore,
    /// A directory of a volume.
    Volume,
}

/// Address and exact version of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SourceFacts")]
pub struct WireSource {
    /// Which field of `spec.source` is set.
    pub kind: SourceKind,
    /// Address without credentials, or the name of the ConfigMap.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// The branch, tag or commit of the manifest.
    #[serde(default, rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Full hash of the commit that was checked out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Digest of the files, if the source has no commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// One data binding of `spec.data` for the trainer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DataFacts")]
pub struct WireData {
    /// Name of the binding. The data is at `$LEGION_DATA/<name>`.
    pub name: String,
    /// Address without credentials.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Path of the data in the project directory, if `localPath` is set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_path: String,
    /// Absolute path of the data in the trainer's container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Digest of the file, or of the set of files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}
