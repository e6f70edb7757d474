//! The source of the training code.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{ConnectionName, ObjectName};

/// Source of the training code: exactly one of these.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("[has(self.git), has(self.configMap), has(self.objectStore), has(self.volume)].filter(given, given).size() == 1")
        .message("exactly one of git, configMap, objectStore and volume must be given")
)]
pub struct Source {
    /// A git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Files in a ConfigMap. Their content is part of the run: a change of it starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// Files below a prefix of an S3-compatible store, or one tar archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStoreSource>,
    /// A directory of a PersistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSource>,
}

/// A git repository: a public one by its URI, any other by a Connection.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.uri) != has(self.connection)").message("exactly one of uri and connection must be given")
)]
pub struct GitSource {
    /// URI of a repository without credentials: https://HOST/PATH, ssh://[USER@]HOST/PATH or file:///PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(
            pattern = "^(https://[^/\\s-][^/\\s]*/|ssh://([^/@:\\s-][^/@:\\s]*@)?[^/@\\s-][^/@\\s]*/|file:///)[^\\s]+$"
        )
    )]
    #[x_kube(
        validation = Rule::new("!self.matches('^https?://[^/]*@')").message("a uri must not contain credentials: create a Connection with a secretRef and name it in connection")
    )]
    pub uri: Option<String>,
    /// A Connection of type git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionName>,
    /// Branch, tag or commit. The default is the connection's `reference`, then the repository's default branch. It is
    /// resolved to a commit once per run.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9_@/.+][A-Za-z0-9_@/.+#-]*$"))]
    pub reference: Option<String>,
    /// Whether to fetch submodules too, with the same credentials.
    #[serde(default)]
    pub submodules: bool,
}

/// Files in a ConfigMap of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigMapSource {
    /// Name of the ConfigMap.
    pub name: ObjectName,
    /// Keys and their files. Without this list, every key becomes a file with the name of the key. A key cannot contain
    /// "/".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub items: Vec<ConfigMapItem>,
}

/// One key of a ConfigMap as a file.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ConfigMapItem {
    /// The key.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// Path of the file, relative to the source root.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = crate::rules::file_below("the source root")
    )]
    pub path: String,
}

/// Files of an S3-compatible store.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ObjectStoreSource {
    /// A Connection of type s3.
    pub connection: ConnectionName,
    /// Prefix or archive, relative to the connection's URI. An archive (`.tar`, `.tar.gz`, `.tgz`) is unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = crate::rules::path_below("the connection's uri")
    )]
    pub path: Option<String>,
}

/// A directory of a PersistentVolumeClaim of the same namespace. The training works on a copy and cannot change it.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct VolumeSource {
    /// Name of the PersistentVolumeClaim.
    pub claim_name: ObjectName,
    /// Directory below the volume's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = crate::rules::path_below("the volume's root")
    )]
    pub path: Option<String>,
}
