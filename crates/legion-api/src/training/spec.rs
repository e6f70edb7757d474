//! What a user asks for.

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

/// Placeholders that `spec.output.pathTemplate` may hold.
pub const PLACEHOLDERS: [&str; 5] = ["namespace", "training", "model", "version", "runId"];

/// A model's training: source code, data and hyperparameters in; a trained model, its metrics and its lineage out.
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
    doc = "ModelTraining trains a model: source code, data and hyperparameters in; a trained model, its metrics and its lineage out.",
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
        description = "True: the model is trained; False: failed for good; Unknown: working or waiting"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason",
        description = "What it is doing, waits for, or failed of"
    ),
    printcolumn(
        name = "Score",
        type_ = "string",
        json_path = ".status.score",
        description = "The objective's metric"
    ),
    printcolumn(
        name = "Model",
        type_ = "string",
        json_path = ".spec.model.name",
        description = "The model that is trained"
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
        description = "From the first attempt's pod to the end of the run"
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
        description = "The toolchain that trains it",
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
        description = "In words",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ModelTrainingSpec {
    /// The model that is trained.
    pub model: ModelIdentity,

    /// Name of the ToolchainIntegration that trains it; looked up in the training's namespace, then in the platform's.
    pub toolchain: ToolchainName,

    /// Where the training code comes from.
    pub source: Source,

    /// Directory of the project, relative to the source root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = crate::rules::path_below("the source root")
    )]
    pub work_dir: Option<String>,

    /// What the toolchain runs: for mlflow an MLproject entry point, or a file such as train.py.
    #[serde(default = "default_entrypoint")]
    #[schemars(length(min = 1, max = 512))]
    pub entrypoint: String,

    /// Arguments appended to the toolchain's command, where the toolchain accepts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub args: Vec<String>,

    /// The toolchain's own settings, checked by its JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<JsonObject>,

    /// Hyperparameters of the training code. Always strings: YAML turns 1.0 into 1 and 1.10 into 1.1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub hyper_parameters: BTreeMap<String, String>,

    /// The metric that says how good the model is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,

    /// Data that is put beside the code before training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub data: Vec<DataBinding>,

    /// Where the artifact goes; else the default output of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,

    /// Image of the trainer instead of the toolchain's; it must hold the toolchain's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^[^\\s]+$"))]
    pub image: Option<String>,

    /// Environment variables of the trainer, after the toolchain's. `LEGION_*` is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = crate::rules::no_reserved_env()
    )]
    pub env: Vec<EnvVar>,

    /// Compute resources of the trainer, name by name before the toolchain's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pod tolerates.
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

    /// ServiceAccount of the pod, for workload identities of clouds; its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<ObjectName>,

    /// Secrets that the kubelet pulls images with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Labels and annotations of the pod. Keys of Legion's own are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<PodMetadata>,

    /// The volume that holds source, data and output while training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,

    /// Size of /dev/shm, which data loaders with worker processes need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<Quantity>,

    /// How long the training code may take to end after TERM before it is killed.
    #[serde(default = "default_grace_period")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("must be between 1s and 1h"))]
    pub grace_period: Span,

    /// How long the training code may run.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub timeout: Span,

    /// How long a scheduled pod may take until the training code runs: images, volumes, source and data.
    #[serde(default = "default_start_timeout")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub start_timeout: Span,

    /// How often a training that failed by its own fault is tried again. Interruptions from outside do not count.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub retries: i32,

    /// How long the pod of an ended attempt is kept. The training itself is never removed.
    #[serde(default = "default_ttl")]
    pub ttl_after_finished: Span,

    /// Ends the pod and waits; resuming starts the next attempt of the same run.
    #[serde(default)]
    pub suspend: bool,

    /// Any text: changing it asks for a new run of the same spec.
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

/// The model that is trained.
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

/// The metric that says how good the model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Objective {
    /// Name of the metric.
    #[schemars(length(min = 1, max = 250))]
    pub metric: String,
    /// Which way is better.
    pub goal: Goal,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Goal {
    /// Greater is better.
    Maximize,
    /// Less is better.
    Minimize,
}

/// Data that is put beside the code before training.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct DataBinding {
    /// Name of the binding: the code finds the data at `$LEGION_DATA/NAME`.
    pub name: DataName,
    /// A Connection of type s3, http, pvc or local.
    pub connection: ConnectionName,
    /// Object, prefix, file or directory, relative to the connection's URI; else all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = crate::rules::path_below("the connection's uri")
    )]
    pub remote_path: Option<String>,
    /// Where it is put, relative to the project's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = crate::rules::path_below("the project's directory")
    )]
    pub local_path: Option<String>,
    /// What one file must hash to: `sha256:` and 64 hexadecimal digits. Checked before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}

/// Where the artifact goes.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Output {
    /// A Connection of type s3, pvc or local.
    pub connection: ConnectionName,
    /// Path below the connection's URI. Placeholders: {namespace} {training} {model} {version} {runId}; {runId} is required,
    /// so that no run overwrites another's artifact.
    #[serde(default = "default_path_template")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("self.contains('{runId}')").message("must hold {runId}, so that no run overwrites another's artifact"),
        validation = Rule::new("self.matches('^([^{}]|[{](namespace|training|model|version|runId)[}])*$')").message("may hold the placeholders {namespace}, {training}, {model}, {version} and {runId} only"),
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
        validation = Rule::new("self.all(key, !key.startsWith('legion-platform.org/') && !key.startsWith('app.kubernetes.io/'))").message("keys below legion-platform.org/ and app.kubernetes.io/ are Legion's own")
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 16384}))]
    #[x_kube(
        validation = Rule::new("self.all(key, !key.startsWith('legion-platform.org/'))").message("keys below legion-platform.org/ are Legion's own")
    )]
    pub annotations: BTreeMap<String, String>,
}

/// The volume that holds source, data and output while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Workspace {
    /// Its size limit: a pod that writes more is evicted.
    pub size: Quantity,
}
