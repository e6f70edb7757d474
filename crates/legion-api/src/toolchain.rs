//! `ToolchainIntegration`: registers a tool for training models.

use k8s_openapi::{api::core::v1::EnvVar, apimachinery::pkg::apis::meta::v1::Condition};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{json::JsonObject, resources::Resources};

/// Registers a tool: its image, its command and its settings.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "legion-platform.org",
    version = "v1alpha1",
    kind = "ToolchainIntegration",
    namespaced,
    status = "ToolchainIntegrationStatus",
    derive = "PartialEq",
    shortname = "ti",
    category = "legion",
    doc = "ToolchainIntegration registers a tool for training models: its image, its command and its settings.",
    crates(kube_core = "::kube_core"),
    selectable = ".spec.type",
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".spec.type",
        description = "Phase of the tool"
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".spec.image",
        description = "Image of the tool"
    ),
    printcolumn(
        name = "Format",
        type_ = "string",
        json_path = ".spec.format",
        description = "Format of its output"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether it can be used"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the Ready condition",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ToolchainIntegrationSpec {
    /// Phase of the tool. Immutable.
    #[serde(rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type is immutable: register the tool under another name"))]
    pub type_: ToolchainType,

    /// Image of the tool.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^[^\\s]+$"))]
    pub image: String,

    /// Command of the tool: one argument per list item, never a shell line. It is required, because the entrypoint of
    /// an image is unknown until the image is pulled.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 4096)))]
    pub command: Vec<String>,

    /// Format of the tool's output, as NAME/VERSION. Anyone may define a format (`gppi/v1` is Legion's own for Python).
    #[schemars(
        length(min = 3, max = 128),
        regex(pattern = "^[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*$")
    )]
    pub format: String,

    /// Description, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Environment variables of the tool's container. Variables of a training replace them. `LEGION_*` is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = crate::rules::no_reserved_env()
    )]
    pub env: Vec<EnvVar>,

    /// JSON Schema (draft 2020-12) of the tool's settings. Trainings set them in `spec.arguments`, and Legion adds the
    /// defaults. Without a schema, a training must not set arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<JsonObject>,

    /// JSON Schema (draft 2020-12) of `spec.hyperParameters` of trainings: an object of strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyper_parameters_schema: Option<JsonObject>,

    /// Whether trainings may set `spec.args`. They are appended to `command`.
    #[serde(default)]
    pub accepts_args: bool,

    /// Default compute resources of the tool's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Security settings of the tool's container, within Pod Security `restricted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<ToolchainSecurityContext>,
}

/// The phases of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ToolchainType {
    /// The tool trains models.
    Training,
}

/// Security settings of a tool's container, within Pod Security `restricted`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolchainSecurityContext {
    /// Whether the image's file system is mounted read-only. HOME, TMPDIR and the workspace stay writable.
    #[serde(default)]
    pub read_only_root_filesystem: bool,
}

/// The observed state of a ToolchainIntegration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolchainIntegrationStatus {
    /// The generation that this status describes, or -1 before the operator has seen the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and for tools that wait: `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The revision for new runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<ToolchainRevision>,
}

/// A revision of a toolchain. A run pins one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolchainRevision {
    /// `metadata.generation` of the ToolchainIntegration.
    pub generation: i64,
    /// The image reference of that generation.
    pub image: String,
}
