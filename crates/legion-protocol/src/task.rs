//! What the operator asks of the agent's two containers, as JSON in `LEGION_TASK`.
//!
//! A task names things relative to directories that the agent learns from its environment; it holds no path of a node
//! and no secret, only the names of Secrets, so that an error can name them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::training::{SourceKind, TrainingDocument, WireModel, WireObjective};

/// Bytes that the kubelet divides among the termination messages of a pod's containers.
pub const MESSAGE_BYTES_PER_POD: usize = 12 * 1024;

/// Longest termination message of one container, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// The share of one container's termination message when the pod has `containers` of them, init containers and
/// injected ones included. The kubelet divides first and caps at [`MESSAGE_BYTES_MAX`].
pub fn message_budget(containers: usize) -> usize {
    (MESSAGE_BYTES_PER_POD / containers.max(1)).min(MESSAGE_BYTES_MAX)
}

/// Task of the init container `fetch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchTask {
    /// Version of this document.
    pub version: u32,
    /// What the trainer will read; `fetch` adds commit, digests and paths.
    pub training: TrainingDocument,
    /// Where the source comes from.
    pub source: SourceTask,
    /// The data bindings, in the order of the manifest.
    #[serde(default)]
    pub data: Vec<DataTask>,
    /// Where results will go: checked to be writable before hours are spent.
    pub output: OutputTask,
    /// Limits on what is brought in.
    #[serde(default)]
    pub limits: FetchLimits,
    /// Bytes of the termination message.
    pub message_budget: u32,
}

/// Limits on what `fetch` brings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FetchLimits {
    /// Bytes of the source, and of each data binding.
    pub max_bytes: u64,
    /// Files of the source, and of each data binding.
    pub max_files: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 30,
            max_files: 1_000_000,
        }
    }
}

/// Where the source comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum SourceTask {
    /// A git repository.
    Git {
        /// `https://`, `ssh://`, `git@host:path` or `file://`.
        uri: String,
        /// Branch, tag or commit; empty for the repository's default branch.
        #[serde(default, rename = "ref")]
        reference: String,
        /// The commit that attempt 1 resolved; later attempts use the same.
        #[serde(default)]
        commit: String,
        /// Whether submodules are fetched too.
        #[serde(default)]
        submodules: bool,
        /// Name of the Secret mounted in the slot `source`; empty for none.
        #[serde(default)]
        secret: String,
        /// Known hosts in OpenSSH's format, from the connection.
        #[serde(default)]
        known_hosts: String,
    },
    /// A ConfigMap, mounted at `LEGION_SOURCE_CONFIG` with its items mapped to paths.
    ConfigMap {
        /// Name of the ConfigMap.
        name: String,
        /// [`crate::digest::of_files`] over the mapped paths and contents.
        digest: String,
    },
    /// Objects of an S3-compatible store, in the slot `source`: all below a prefix, or one archive.
    ObjectStore {
        /// The store.
        store: WireStore,
        /// A prefix, or an object that ends in `.tar`, `.tar.gz` or `.tgz`.
        path: String,
    },
    /// A volume mounted in the slot `source`.
    Volume {
        /// Directory of the volume; empty for its root.
        #[serde(default)]
        path: String,
    },
}

impl SourceTask {
    /// The kind, as the training document names it.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Git { .. } => SourceKind::Git,
            Self::ConfigMap { .. } => SourceKind::ConfigMap,
            Self::ObjectStore { .. } => SourceKind::ObjectStore,
            Self::Volume { .. } => SourceKind::Volume,
        }
    }
}

/// A place that holds data, by the type of its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[schemars(rename = "Store")]
pub enum WireStore {
    /// An S3-compatible object store.
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix within the bucket, without slashes at its ends; empty for the whole bucket.
        #[serde(default)]
        prefix: String,
        /// Endpoint; empty for Amazon's own.
        #[serde(default)]
        endpoint: String,
        /// Region; empty for `us-east-1`.
        #[serde(default)]
        region: String,
        /// Name of the Secret mounted in the slot; empty for anonymous access.
        #[serde(default)]
        secret: String,
    },
    /// A web server, for reading.
    Http {
        /// Base address.
        uri: String,
        /// Name of the Secret mounted in the slot; empty for none.
        #[serde(default)]
        secret: String,
    },
    /// A volume or a directory of the node, mounted in the slot.
    Volume {
        /// Directory below the mount; empty for its root.
        #[serde(default)]
        path: String,
    },
}

/// One data binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataTask {
    /// Name of the binding.
    pub name: String,
    /// The slot of its secret and volume: `data-0`, `data-1`, ...
    pub slot: String,
    /// Where it is.
    pub store: WireStore,
    /// Path within the connection's root: a file or object, or a directory or prefix.
    #[serde(default)]
    pub remote_path: String,
    /// Where the trainer wants it below the project directory; empty for `$LEGION_DATA/<name>` alone.
    #[serde(default)]
    pub local_path: String,
    /// Expected digest of the file; empty for none.
    #[serde(default)]
    pub digest: String,
    /// Address without credentials, as users read it.
    #[serde(default)]
    pub uri: String,
}

/// Where the results of a run go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputTask {
    /// Name of the connection, for messages.
    pub connection: String,
    /// The store, in the slot `output`.
    pub store: WireStore,
    /// The rendered path template.
    pub path: String,
    /// Path of the success record: `.legion/<training uid>/<runId>.json`.
    pub record: String,
    /// Address of the connection's root, without credentials and without a slash at its end.
    pub uri: String,
}

impl OutputTask {
    /// The address of an object of this run.
    pub fn uri_of(&self, object: &str) -> String {
        format!("{}/{}/{object}", self.uri.trim_end_matches('/'), self.path)
    }
}

/// Task of the main container `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishTask {
    /// Version of this document.
    pub version: u32,
    /// Name of the ModelTraining.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Id of the run.
    pub run_id: String,
    /// Number of the run.
    pub sequence: u32,
    /// Number of the attempt.
    pub attempt: u32,
    /// The model to be made.
    pub model: WireModel,
    /// `format` of the toolchain, `name/version`.
    #[serde(default)]
    pub format: String,
    /// `spec.objective`.
    #[serde(default)]
    pub objective: Option<WireObjective>,
    /// Where results go.
    pub output: OutputTask,
    /// Limits on what is published.
    #[serde(default)]
    pub limits: PublishLimits,
    /// Seconds that are left for cleaning up after TERM.
    #[serde(default = "default_grace")]
    pub grace_seconds: u32,
    /// Bytes of the termination message.
    pub message_budget: u32,
}

fn default_grace() -> u32 {
    60
}

/// Limits on what `publish` accepts from the trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishLimits {
    /// Bytes of the model.
    pub model_bytes: u64,
    /// Bytes of the other files of the run.
    pub files_bytes: u64,
    /// Files and directories of the model, and of the other files.
    pub entries: u64,
    /// Bytes of the event stream.
    pub events_bytes: u64,
}

impl Default for PublishLimits {
    fn default() -> Self {
        Self {
            model_bytes: 256 << 30,
            files_bytes: 4 << 30,
            entries: 100_000,
            events_bytes: 1 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_kubelet() {
        assert_eq!([1, 3, 5, 8].map(message_budget), [4096, 4096, 2457, 1536]);
    }

    #[test]
    fn a_task_reads_as_documented() {
        let source: SourceTask =
            serde_json::from_str(r#"{"kind":"git","uri":"https://e/x.git","ref":"main"}"#).unwrap();
        assert_eq!(source.kind(), SourceKind::Git);
        let store: WireStore = serde_json::from_str(r#"{"type":"s3","bucket":"b"}"#).unwrap();
        assert!(matches!(store, WireStore::S3 { ref prefix, .. } if prefix.is_empty()));
    }
}
