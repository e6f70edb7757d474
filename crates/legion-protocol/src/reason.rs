//! Reasons for the failure of one of Legion's own steps: a closed list, each with a class and a remedy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Class of a failure. It decides whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StepClass {
    /// The manifest, the Secret or the project must change. A retry fails the same way.
    User,
    /// The network or a service was not available. A retry may help.
    Transient,
    /// The output store rejected or lost a write. A retry may help.
    Storage,
}

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident, $class:ident, $remedy:literal; )+) => {
        /// Why a step of a training pod failed. The name of a variant is what a user reads in `status.failure.reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum StepReason { $( $(#[doc = $doc])+ $name, )+ }

        impl StepReason {
            /// Every reason, in the order of the reference documentation.
            pub const ALL: &'static [StepReason] = &[ $( StepReason::$name, )+ ];

            /// Returns the reason as users read it: the name of the variant.
            pub fn as_str(self) -> &'static str {
                match self { $( StepReason::$name => stringify!($name), )+ }
            }

            /// Returns whose failure it is, which decides whether a retry can help.
            pub fn class(self) -> StepClass {
                match self { $( StepReason::$name => StepClass::$class, )+ }
            }

            /// Returns the default remedy. The place of the failure may know a better one.
            pub fn remedy(self) -> &'static str {
                match self { $( StepReason::$name => $remedy, )+ }
            }

            /// Returns its meaning, for the reference documentation.
            pub fn meaning(self) -> &'static str {
                match self { $( StepReason::$name => concat!($($doc),+), )+ }
            }
        }
    };
}

reasons! {
    /// The source cannot be reached over the network.
    SourceUnreachable, Transient, "check the address in spec.source and that the cluster can reach it";
    /// The server of the source rejected the credentials, or requires credentials. Or a file of the source's volume is
    /// not readable.
    SourceAccessDenied, User, "check the keys of the Secret that the connection names, and its access to the repository";
    /// The repository has no such branch, tag or commit.
    GitRefNotFound, User, "set spec.source.git.ref to a branch, a tag or a commit that exists";
    /// The source has no files at the given path.
    SourceNotFound, User, "check the path in spec.source";
    /// The content of the ConfigMap changed after this run was planned.
    SourceChanged, Transient, "no action is needed: the new content starts a new run";
    /// The ssh host key of the server is unknown or differs from the known key.
    HostKeyUnverified, User, "put the server's host key into the key known_hosts of the Secret, or into spec.knownHosts of the connection";
    /// The certificate of a server cannot be verified: its issuer is not trusted, or it was issued for another server.
    CertificateUnverified, User, "add the certificate of the server's issuer to the trust store of the agent's image (with legionctl local: of this machine), or correct the address";
    /// A Secret, or a key of a Secret, does not exist.
    SecretMissing, User, "create the Secret with the key that the message names";
    /// A Secret contains a value that cannot be used.
    SecretInvalid, User, "correct the value of the key that the message names";
    /// A data binding refers to data that does not exist.
    DataNotFound, User, "check remotePath of the data binding and the address of its connection";
    /// The store of a data binding rejected the credentials, or requires credentials. Or a file of its volume is not
    /// readable.
    DataAccessDenied, User, "check the keys of the Secret that the connection names, and its access to the data";
    /// The store of a data binding cannot be reached.
    DataUnreachable, Transient, "check the address of the connection and that the cluster can reach it";
    /// The downloaded data does not have the digest from the manifest.
    DigestMismatch, User, "correct the digest, or restore the original data";
    /// A path leads out of its directory.
    PathEscapes, User, "use a relative path without '..' and without links out of the tree";
    /// The source has no directory `spec.workDir`.
    WorkDirMissing, User, "set spec.workDir to a directory of the source";
    /// An archive is damaged or not complete. Or an archive or a tree contains an entry that is not accepted: a device,
    /// a FIFO, a loop of links, a name that no file can have, or a Git LFS pointer in the place of data.
    ContentRefused, User, "remove the entry that the message names";
    /// The `localPath` of a data binding meets a file of the source or of another binding.
    LocalPathOccupied, User, "choose another localPath, or remove the path that the message names from the source";
    /// A file or a tree exceeds its limit of bytes or entries.
    TooLarge, User, "reduce it, or raise the limit that the message names";
    /// The output location rejects writes.
    OutputNotWritable, User, "check the connection of spec.output, its Secret and its access";
    /// The bucket of the output does not exist. Attempts follow, because it may be created meanwhile.
    OutputNotFound, Storage, "create the bucket, or correct the connection of spec.output";
    /// The output location cannot be reached.
    OutputUnreachable, Storage, "check the address of the output connection and that the cluster can reach it";
    /// An upload failed.
    UploadFailed, Storage, "check the output store; Legion retries the attempt";
    /// The model path of the result document does not exist.
    ModelMissing, User, "write the model below LEGION_OUTPUT and name its path in the result document";
    /// The output of the trainer contains an entry that is not accepted.
    OutputHostile, User, "write only regular files and directories to the path of the model";
    /// The toolchain violated the toolchain protocol.
    ProtocolViolation, User, "fix the toolchain; `legionctl toolchain test` shows the violations";
    /// The toolchain itself reported an error.
    ToolchainError, User, "see the message of the toolchain";
    /// The trainer container ended before it started the command.
    TrainerNotStarted, Transient, "check the state of the trainer container";
    /// The command of the toolchain was not found in the image.
    CommandNotFound, User, "set spec.command of the toolchain to a program in the image";
    /// The command of the toolchain is not executable.
    CommandNotExecutable, User, "make the program of spec.command of the toolchain executable";
    /// The command did not start for another reason.
    CommandNotStarted, Transient, "see the message";
    /// The step was stopped before it was complete.
    Interrupted, Transient, "no action is needed: Legion retries the attempt";
    /// The pod does not have the form that the agent expects. This is a defect of Legion, or of a program that changed
    /// the pod.
    TaskInvalid, User, "check that operator and agent have the same version, and that no admission webhook changed the pod";
    /// A program that the agent needs is missing: git, or ssh for repositories with an ssh address.
    ProgramMissing, User, "install git and an ssh client in the agent's image (with legionctl local: on this machine)";
    /// The disk of the workspace is full.
    WorkspaceFull, User, "raise spec.workspace.size";
    /// Reading or writing a file on the node failed.
    NodeFault, Transient, "see the message; Legion retries the attempt";
}

impl std::fmt::Display for StepReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The failure of a step, for `status.failure`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{reason}: {message}")]
pub struct StepError {
    /// Why, as users read it in `status.failure.reason`.
    pub reason: StepReason,
    /// Path of the field in the manifest, such as `spec.source.git.ref`. Empty if no field is responsible.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What happened, with the value that caused it.
    pub message: String,
    /// How to fix it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl StepError {
    /// Creates an error with the default remedy of the reason and without a field.
    pub fn new(reason: StepReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: String::new(),
            message: message.into(),
            remedy: reason.remedy().to_owned(),
        }
    }

    /// Sets the path of the field in the manifest.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Replaces the default remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Returns the class of the reason.
    pub fn class(&self) -> StepClass {
        self.reason.class()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_remedy_and_serializes_as_its_name() {
        let mut seen = BTreeSet::new();
        for reason in StepReason::ALL {
            assert!(seen.insert(reason.as_str()));
            assert!(!reason.remedy().is_empty() && !reason.meaning().is_empty());
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
