//! `ToolchainIntegration`: registers a tool that trains models.

use k8s_openapi::{api::core::v1::EnvVar, apimachinery::pkg::apis::meta::v1::Condition};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{json::JsonObject, resources::Resources};

/// Registers a tool: the image that holds it, the command that starts it and the settings that it takes.
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
    doc = "ToolchainIntegration registers a tool that trains models: its image, its command and the settings that it takes.",
    crates(kube_core = "::kube_core"),
    selectable = ".spec.type",
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".spec.type",
        description = "Which phase it serves"
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".spec.image",
        description = "The image that holds it"
    ),
    printcolumn(
        name = "Format",
        type_ = "string",
        json_path = ".spec.format",
        description = "What it writes"
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
        description = "Why",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ToolchainIntegrationSpec {
    /// The phase that the tool serves. Immutable.
    #[serde(rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type is immutable: register the tool under another name"))]
    pub type_: ToolchainType,

    /// The image that holds the tool.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^[^\\s]+$"))]
    pub image: String,

    /// The command that starts the tool: one argument a list item, never a shell line. Required, because nobody can know an
    /// image's entrypoint without pulling it.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 4096)))]
    pub command: Vec<String>,

    /// What the tool writes, as NAME/VERSION: an open registry (`gppi/v1` is Legion's own for Python).
    #[schemars(
        length(min = 3, max = 128),
        regex(pattern = "^[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*$")
    )]
    pub format: String,

    /// What the tool is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Environment variables of the tool's container. A training's own come after them and win. `LEGION_*` is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = crate::rules::no_reserved_env()
    )]
    pub env: Vec<EnvVar>,

    /// JSON Schema (draft 2020-12) of the tool's own settings, which trainings give in `spec.arguments`; its defaults are
    /// filled in. Without one, a training may give no arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<JsonObject>,

    /// JSON Schema (draft 2020-12) of `spec.hyperParameters` of trainings, where the tool knows it: an object of strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyper_parameters_schema: Option<JsonObject>,

    /// Whether trainings may give `spec.args`, which are appended to `command`.
    #[serde(default)]
    pub accepts_args: bool,

    /// Compute resources of the tool's container, where a training gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Within what Pod Security `restricted` leaves open: how the tool's container is confined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<ToolchainSecurityContext>,
}

/// The phases that a tool can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ToolchainType {
    /// It trains models.
    Training,
}

/// How a tool's container is confined, within Pod Security `restricted`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolchainSecurityContext {
    /// Whether the image's file system is mounted read-only. HOME, TMPDIR and the workspace stay writable.
    #[serde(default)]
    pub read_only_root_filesystem: bool,
}

/// What the operator says about a ToolchainIntegration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolchainIntegrationStatus {
    /// The generation that this status speaks of; -1 before the operator has seen the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and what tools that wait need: `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The revision that new runs pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<ToolchainRevision>,
}

/// A revision of a toolchain, as runs pin it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolchainRevision {
    /// `metadata.generation` of the ToolchainIntegration.
    pub generation: i64,
    /// The image reference of that generation.
    pub image: String,
}
