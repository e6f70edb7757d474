//! `Connection`: the location of sources, data and outputs, and the Secret with the credentials.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::ObjectName;

/// Annotation of the default output of a namespace. It works like the annotation of a default StorageClass.
pub const DEFAULT_OUTPUT_ANNOTATION: &str = "legion-platform.org/default-output";

/// The location of sources, data or outputs, and the Secret with the credentials. The operator never reads the Secret.
/// Only the step of a pod that needs the Secret mounts it.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "legion-platform.org",
    version = "v1alpha1",
    kind = "Connection",
    namespaced,
    status = "ConnectionStatus",
    derive = "PartialEq",
    shortname = "conn",
    category = "legion",
    doc = "Connection is the location of sources, data or outputs, and names the Secret with the credentials.",
    crates(kube_core = "::kube_core"),
    selectable = ".spec.type",
    selectable = ".spec.secretRef.name",
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".spec.type",
        description = "Type of the store"
    ),
    printcolumn(
        name = "URI",
        type_ = "string",
        json_path = ".spec.uri",
        description = "Location of the store"
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
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.type != 'git' || self.uri.matches('^(https://[^/@[:space:]-][^/@[:space:]]*/|ssh://([^/@:[:space:]-][^/@:[:space:]]*@)?[^/@[:space:]-][^/@[:space:]]*/|file:///)[^[:space:]]+$') || self.uri.matches('^[A-Za-z0-9._][A-Za-z0-9._-]*@[A-Za-z0-9.][A-Za-z0-9.-]*:[^[:space:]]+$')").message("a git connection needs https://HOST/PATH, ssh://[USER@]HOST/PATH, USER@HOST:PATH or file:///PATH").field_path(".uri"),
    validation = Rule::new("self.type != 's3' || self.uri.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$')").message("an s3 connection needs s3://BUCKET[/PREFIX]").field_path(".uri"),
    validation = Rule::new("self.type != 'http' || self.uri.matches('^https?://[^/@]+(/.*)?$')").message("an http connection needs https://HOST[/PATH] without a user name").field_path(".uri"),
    validation = Rule::new("self.type != 'pvc' || self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.*)?$')").message("a pvc connection needs pvc://CLAIM[/PATH]").field_path(".uri"),
    validation = Rule::new("self.type != 'local' || self.uri.matches('^file:///.+$')").message("a local connection needs file:///ABSOLUTE/DIRECTORY").field_path(".uri"),
    validation = Rule::new("!self.uri.matches('^https?://[^/]*@')").message("a uri must not contain credentials: put them into a Secret and name it in secretRef").field_path(".uri"),
    validation = Rule::new("!self.uri.split('/').exists(part, part == '..')").message("a uri must not contain \"..\"").field_path(".uri"),
    validation = Rule::new("self.type == 's3' || (!has(self.endpoint) && !has(self.region))").message("endpoint and region belong to s3 connections only").field_path(".type"),
    validation = Rule::new("self.type == 'git' || (!has(self.reference) && !has(self.knownHosts))").message("reference and knownHosts belong to git connections only").field_path(".type"),
    validation = Rule::new("!(self.type in ['pvc', 'local']) || !has(self.secretRef)").message("pvc and local connections need no credentials: remove secretRef").field_path(".secretRef")
)]
pub struct ConnectionSpec {
    /// Type of the store. It decides the form of `uri` and the keys of the Secret.
    #[serde(rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type is immutable: delete the connection and create it again"))]
    pub type_: ConnectionType,

    /// Location of the store, without credentials. git: https://HOST/PATH, ssh://[USER@]HOST/PATH, USER@HOST:PATH or
    /// file:///PATH. s3: s3://BUCKET[/PREFIX]. http: https://HOST[/PATH]. pvc: pvc://CLAIM[/PATH]. local:
    /// file:///DIRECTORY.
    #[schemars(length(min = 1, max = 1024))]
    pub uri: String,

    /// The Secret with the credentials, in the same namespace. Keys for git: `ssh-privatekey`, `known_hosts`,
    /// `username`, `password`. For s3: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`. For http:
    /// `username` and `password`, or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Region of an s3 store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,

    /// URL of an S3-compatible server other than Amazon's: http(s)://HOST[:PORT].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^https?://[^/@]+/?$"))]
    pub endpoint: Option<String>,

    /// Default branch, tag or commit of a git connection, for trainings without their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9_@/.+][A-Za-z0-9_@/.+#-]*$"))]
    pub reference: Option<String>,

    /// Host keys of an ssh server, in the format of OpenSSH's known_hosts. They are used when the Secret has no
    /// `known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub known_hosts: Option<String>,

    /// Description, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// A web page about it, for people. User interfaces show the link. Legion never fetches it.
    #[serde(default, rename = "webUILink", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^https?://.+$"))]
    pub web_ui_link: Option<String>,
}

/// The types of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionType {
    /// A git repository.
    Git,
    /// A bucket of an S3-compatible store.
    S3,
    /// Files of a web server, read-only.
    Http,
    /// A PersistentVolumeClaim of the namespace.
    Pvc,
    /// A directory of this machine. It works with `legionctl local` only.
    Local,
}

impl ConnectionType {
    /// Returns the text in `spec.type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::S3 => "s3",
            Self::Http => "http",
            Self::Pvc => "pvc",
            Self::Local => "local",
        }
    }
}

/// A reference to a Secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of the Secret.
    pub name: ObjectName,
}

/// The observed state of a Connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// The generation that this status describes, or -1 before the operator has seen the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and for tools that wait: `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
