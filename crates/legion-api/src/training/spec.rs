//! The spec of a ModelTraining.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, EnvVar, LocalObjectReference, Toleration},
    apimachinery::pkg::api::resource::Quantity,
};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Source, status::ModelTrainingStatus};
use crate::{
    duration::Span,
    json::JsonObject,
    names::{ConnectionName, DataName, ModelName, ObjectName, ToolchainName},
    resources::Resources,
};

/// The training of a model from source code, data and hyperparameters.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "legion-platform.org",
    version = "v1alpha1",
    kind = "ModelTraining",
    namespaced,
    status = "ModelTrainingStatus",
    derive = "PartialEq",
    shortname = "mt",
    category = "legion",
    doc = "ModelTraining trains a model from source code, data and hyperparameters. The status has the artifact, the metrics and the lineage.",
    crates(kube_core = "::kube_core"),
    selectable = ".spec.toolchain",
    selectable = ".spec.model.name",
    selectable = ".spec.source.configMap.name",
    selectable = ".spec.source.git.connection",
    selectable = ".spec.source.objectStore.connection",
    selectable = ".spec.source.volume.claimName",
    selectable = ".spec.output.connection",
    printcolumn(
        name = "Succeeded",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].status",
        description = "True: the run has succeeded; False: it failed; Unknown: working or waiting"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason",
        description = "What it is doing or waiting for, or why it failed"
    ),
    printcolumn(
        name = "Score",
        type_ = "string",
        json_path = ".status.score",
        description = "Value of the objective's metric"
    ),
    printcolumn(
        name = "Model",
        type_ = "string",
        json_path = ".spec.model.name",
        description = "Name of the model"
    ),
    printcolumn(
        name = "Attempt",
        type_ = "integer",
        json_path = ".status.run.attempt",
        description = "Attempt of the current run"
    ),
    printcolumn(
        name = "Duration",
        type_ = "string",
        json_path = ".status.duration",
        description = "Time from the first attempt's pod to the end of the run"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.model.version",
        description = "Version of the model",
        priority = "1"
    ),
    printcolumn(
        name = "Toolchain",
        type_ = "string",
        json_path = ".spec.toolchain",
        description = "Toolchain of the training",
        priority = "1"
    ),
    printcolumn(
        name = "Run",
        type_ = "string",
        json_path = ".status.run.id",
        description = "Id of the current run",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].message",
        description = "Message of the Succeeded condition",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ModelTrainingSpec {
    /// The model to train.
    pub model: ModelIdentity,

    /// Name of the ToolchainIntegration. Legion searches the training's namespace first, then the platform's.
    pub toolchain: ToolchainName,

    /// Source of the training code.
    pub source: Source,

    /// Directory of the project, relative to the source root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = crate::rules::path_below("the source root")
    )]
    pub work_dir: Option<String>,

    /// Entrypoint for the toolchain. For mlflow it is an MLproject entry point or a file such as train.py.
    #[serde(default = "default_entrypoint")]
    #[schemars(length(min = 1, max = 512))]
    pub entrypoint: String,

    /// Arguments that are appended to the toolchain's command, if the toolchain accepts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub args: Vec<String>,

    /// Settings of the toolchain. They are checked against its JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<JsonObject>,

    /// Hyperparameters of the training code. They are always strings, because YAML turns 1.0 into 1 and 1.10 into 1.1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub hyper_parameters: BTreeMap<String, String>,

    /// The metric that measures the quality of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,

    /// Data that is fetched before training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub data: Vec<DataBinding>,

    /// Location of the artifact. The default is the default output of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,

    /// Image of the trainer, instead of the toolchain's. It must contain the toolchain's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^[^\\s]+$"))]
    pub image: Option<String>,

    /// Environment variables of the trainer. They replace the toolchain's. `LEGION_*` is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = crate::rules::no_reserved_env()
    )]
    pub env: Vec<EnvVar>,

    /// Compute resources of the trainer. Each named resource replaces the toolchain's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Required labels of the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,

    /// Tolerations of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// Scheduling rules of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// PriorityClass of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<ObjectName>,

    /// Scheduler of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<ObjectName>,

    /// RuntimeClass of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<ObjectName>,

    /// ServiceAccount of the pod, for workload identities of clouds. Its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<ObjectName>,

    /// Secrets for pulling images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Labels and annotations of the pod. Legion's own keys are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<PodMetadata>,

    /// The volume with source, data and output during training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,

    /// Size of /dev/shm. Data loaders with worker processes need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<Quantity>,

    /// Time between TERM and KILL for the training code.
    #[serde(default = "default_grace_period")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("must be between 1s and 1h"))]
    pub grace_period: Span,

    /// Maximum run time of the training code.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub timeout: Span,

    /// Maximum time from scheduling until the training code runs. It covers images, volumes, source and data.
    #[serde(default = "default_start_timeout")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub start_timeout: Span,

    /// Maximum number of retries after the training code failed. Interruptions from outside do not count.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub retries: i32,

    /// Time until the pod of an ended attempt is deleted. The training itself is never deleted.
    #[serde(default = "default_ttl")]
    pub ttl_after_finished: Span,

    /// Deletes the pod and waits. Setting it to false starts the next attempt of the same run.
    #[serde(default)]
    pub suspend: bool,

    /// Any text. A change of it starts a new run of the same spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub trigger: Option<String>,
}

fn default_entrypoint() -> String {
    "main".to_owned()
}

fn default_grace_period() -> Span {
    Span::from_secs(60)
}

fn default_timeout() -> Span {
    Span::from_secs(24 * 3600)
}

fn default_start_timeout() -> Span {
    Span::from_secs(3600)
}

fn default_ttl() -> Span {
    Span::from_secs(600)
}

/// The model to train.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelIdentity {
    /// Name of the model.
    pub name: ModelName,
    /// Version of the model, as text.
    #[schemars(
        length(min = 1, max = 64),
        regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub version: String,
}

/// The metric that measures the quality of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Objective {
    /// Name of the metric.
    #[schemars(length(min = 1, max = 250))]
    pub metric: String,
    /// Direction of improvement.
    pub goal: Goal,
}

/// Direction of improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Goal {
    /// A greater value is better.
    Maximize,
    /// A smaller value is better.
    Minimize,
}

/// Data that is fetched before training.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct DataBinding {
    /// Name of the binding. The data is at `$LEGION_DATA/NAME`.
    pub name: DataName,
    /// A Connection of type s3, http, pvc or local.
    pub connection: ConnectionName,
    /// Object, prefix, file or directory, relative to the connection's URI. The default is everything below the URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = crate::rules::path_below("the connection's uri")
    )]
    pub remote_path: Option<String>,
    /// Path of the data, relative to the project's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = crate::rules::path_below("the project's directory")
    )]
    pub local_path: Option<String>,
    /// Expected hash of a single file: `sha256:` and 64 hexadecimal digits. It is checked before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}

/// Location of the artifact.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Output {
    /// A Connection of type s3, pvc or local.
    pub connection: ConnectionName,
    /// Path below the connection's URI. Placeholders: {namespace} {training} {model} {version} {runId}. {runId} is
    /// required, so that no run overwrites another run's artifact.
    #[serde(default = "default_path_template")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("self.contains('{runId}')").message("must contain {runId}, so that no run overwrites another run's artifact"),
        validation = Rule::new("self.matches('^([^{}]|[{](namespace|training|model|version|runId)[}])*$')").message("may contain only the placeholders {namespace}, {training}, {model}, {version} and {runId}"),
        validation = Rule::new("!self.startsWith('/') && !self.startsWith('.legion/') && !self.split('/').exists(part, part == '..' || part == '')").message("must be a relative path below the connection's uri, without \"..\" and outside .legion/")
    )]
    pub path_template: String,
}

fn default_path_template() -> String {
    "{namespace}/{training}/{runId}".to_owned()
}

/// Labels and annotations of the pod.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct PodMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(
        validation = Rule::new("self.all(key, !key.startsWith('legion-platform.org/') && !key.startsWith('app.kubernetes.io/'))").message("keys below legion-platform.org/ and app.kubernetes.io/ are reserved for Legion")
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 16384}))]
    #[x_kube(
        validation = Rule::new("self.all(key, !key.startsWith('legion-platform.org/'))").message("keys below legion-platform.org/ are reserved for Legion")
    )]
    pub annotations: BTreeMap<String, String>,
}

/// The volume with source, data and output during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Workspace {
    /// Size limit. A pod that writes more is evicted.
    pub size: Quantity,
}
