//! The tasks that the operator gives to the two containers of the agent, as JSON in `LEGION_TASK`.
//!
//! Paths in a task are relative to directories that the agent gets from its environment. A task contains no path of a
//! node and no secret value. It contains the names of Secrets, so that an error can name them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::training::{SourceKind, TrainingDocument, WireModel, WireObjective};

/// Bytes that the kubelet divides among the termination messages of a pod's containers.
pub const MESSAGE_BYTES_PER_POD: usize = 12 * 1024;

/// Longest termination message of one container, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Returns the longest termination message of one container, in bytes. `containers` is the number of all containers of
/// the pod, including init containers and injected ones. The kubelet divides first and then caps at
/// [`MESSAGE_BYTES_MAX`].
pub fn message_budget(containers: usize) -> usize {
    (MESSAGE_BYTES_PER_POD / containers.max(1)).min(MESSAGE_BYTES_MAX)
}

/// Task of the init container `fetch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchTask {
    /// Version of the document. It is 1.
    pub version: u32,
    /// The document for the trainer. `fetch` adds the commit, the digests and the paths.
    pub training: TrainingDocument,
    /// Where to fetch the source from.
    pub source: SourceTask,
    /// The data bindings of `spec.data`, in the same order.
    #[serde(default)]
    pub data: Vec<DataTask>,
    /// Where `publish` will store the results. `fetch` checks that it is writable before the training starts.
    pub output: OutputTask,
    /// Limits on the source and the data.
    #[serde(default)]
    pub limits: FetchLimits,
    /// Longest termination message, in bytes.
    pub message_budget: u32,
}

/// Limits on what `fetch` downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FetchLimits {
    /// Size limit of the source, and of each data binding, in bytes.
    pub max_bytes: u64,
    /// Most files in the source, and in each data binding.
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

/// Where to fetch the source from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum SourceTask {
    /// A commit of a git repository.
    Git {
        /// `https://`, `ssh://`, `git@host:path` or `file://`.
        uri: String,
        /// Branch, tag or commit. Empty for the default branch of the repository.
        #[serde(default, rename = "ref")]
        reference: String,
        /// Full hash of the commit that attempt 1 resolved. Later attempts use the same.
        #[serde(default)]
        commit: String,
        /// Whether to fetch submodules.
        #[serde(default)]
        submodules: bool,
        /// Name of the Secret that is mounted in the slot `source`. Empty for none.
        #[serde(default)]
        secret: String,
        /// Known hosts from the connection, in the format of OpenSSH.
        #[serde(default)]
        known_hosts: String,
    },
    /// A ConfigMap that is mounted at `LEGION_SOURCE_CONFIG`, with its items mapped to paths.
    ConfigMap {
        /// Name of the ConfigMap, for messages.
        name: String,
        /// Expected digest of the mapped paths and their contents.
        digest: String,
    },
    /// Objects of an S3-compatible store, in the slot `source`: all objects below a prefix, or one archive.
    ObjectStore {
        /// Bucket and credentials.
        store: WireStore,
        /// A prefix, or the name of an archive that ends in `.tar`, `.tar.gz` or `.tgz`.
        path: String,
    },
    /// A volume that is mounted in the slot `source`.
    Volume {
        /// Directory in the volume. Empty for the root.
        #[serde(default)]
        path: String,
    },
}

impl SourceTask {
    /// Returns the kind for the training document.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Git { .. } => SourceKind::Git,
            Self::ConfigMap { .. } => SourceKind::ConfigMap,
            Self::ObjectStore { .. } => SourceKind::ObjectStore,
            Self::Volume { .. } => SourceKind::Volume,
        }
    }
}

/// A place that contains data, by the type of its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[schemars(rename = "Store")]
pub enum WireStore {
    /// An S3-compatible object store.
    S3 {
        /// Name of the bucket.
        bucket: String,
        /// Prefix in the bucket, without slashes at its ends. Empty for the whole bucket.
        #[serde(default)]
        prefix: String,
        /// URL of the endpoint. Empty for AWS.
        #[serde(default)]
        endpoint: String,
        /// Region. Empty for `us-east-1`.
        #[serde(default)]
        region: String,
        /// Name of the Secret that is mounted in the slot. Empty for anonymous access.
        #[serde(default)]
        secret: String,
    },
    /// A web server. Read-only.
    Http {
        /// Base URL of the connection.
        uri: String,
        /// Name of the Secret that is mounted in the slot. Empty for none.
        #[serde(default)]
        secret: String,
    },
    /// A volume or a directory of the node. It is mounted in the slot.
    Volume {
        /// Directory below the mount. Empty for the root.
        #[serde(default)]
        path: String,
    },
}

/// One data binding of `spec.data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataTask {
    /// Name of the binding in `spec.data`.
    pub name: String,
    /// Slot of the Secret and the volume: `data-0`, `data-1`, ...
    pub slot: String,
    /// Where to fetch the data from.
    pub store: WireStore,
    /// Path in the root of the connection: a file or an object, or a directory or a prefix.
    #[serde(default)]
    pub remote_path: String,
    /// Path of the data in the project directory. `$LEGION_DATA/<name>` is then a link to it.
    /// Empty for `$LEGION_DATA/<name>`.
    #[serde(default)]
    pub local_path: String,
    /// Expected digest of the file. Empty for none.
    #[serde(default)]
    pub digest: String,
    /// Address without credentials, for the status.
    #[serde(default)]
    pub uri: String,
}

/// Where to store the results of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputTask {
    /// Name of the connection, for messages.
    pub connection: String,
    /// Store of the slot `output`.
    pub store: WireStore,
    /// The rendered path template: the prefix of the objects of this run.
    pub path: String,
    /// Path of the success record: `.legion/<training uid>/<runId>.json`.
    pub record: String,
    /// Address of the root of the connection, without credentials and without a slash at its end.
    pub uri: String,
}

impl OutputTask {
    /// Returns the address of an object of this run.
    pub fn uri_of(&self, object: &str) -> String {
        format!("{}/{}/{object}", self.uri.trim_end_matches('/'), self.path)
    }
}

/// Task of the main container `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishTask {
    /// Version of the document. It is 1.
    pub version: u32,
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
    /// Name and version of the model.
    pub model: WireModel,
    /// `format` of the toolchain, `name/version`.
    #[serde(default)]
    pub format: String,
    /// The metric of `spec.objective`. It is reported first.
    #[serde(default)]
    pub objective: Option<WireObjective>,
    /// Where to store the results.
    pub output: OutputTask,
    /// Limits on what is published.
    #[serde(default)]
    pub limits: PublishLimits,
    /// Time for cleanup after SIGTERM, in seconds.
    #[serde(default = "default_grace")]
    pub grace_seconds: u32,
    /// Longest termination message, in bytes.
    pub message_budget: u32,
}

fn default_grace() -> u32 {
    60
}

/// Limits on what `publish` accepts from the trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishLimits {
    /// Size limit of the model, in bytes.
    pub model_bytes: u64,
    /// Size limit of the other files of the run, in bytes.
    pub files_bytes: u64,
    /// Most files and directories in the model, and in the other files.
    pub entries: u64,
    /// Size limit of the event stream, in bytes.
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
    fn containers_share_the_message_budget_of_a_pod() {
        assert_eq!([1, 3, 5, 8].map(message_budget), [4096, 4096, 2457, 1536]);
    }

    #[test]
    fn tasks_parse_with_defaults() {
        let source: SourceTask =
            serde_json::from_str(r#"{"kind":"git","uri":"https://e/x.git","ref":"main"}"#).unwrap();
        assert_eq!(source.kind(), SourceKind::Git);
        let store: WireStore = serde_json::from_str(r#"{"type":"s3","bucket":"b"}"#).unwrap();
        assert!(matches!(store, WireStore::S3 { ref prefix, .. } if prefix.is_empty()));
    }
}
