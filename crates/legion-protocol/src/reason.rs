//! Why a step of Legion's own failed: a closed list, each with its class and a remedy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who can do something about a failed step, and therefore whether trying again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StepClass {
    /// The manifest, the secret or the project must change; trying again gives the same answer.
    User,
    /// The network or a service was not there; trying again may help.
    Transient,
    /// The output store refused or lost what was written; trying again may help.
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

            /// The reason as users read it.
            pub fn as_str(self) -> &'static str {
                match self { $( StepReason::$name => stringify!($name), )+ }
            }

            /// Who can do something about it.
            pub fn class(self) -> StepClass {
                match self { $( StepReason::$name => StepClass::$class, )+ }
            }

            /// What to do about it when the place of failure knows nothing better.
            pub fn remedy(self) -> &'static str {
                match self { $( StepReason::$name => $remedy, )+ }
            }

            /// What it means, for the reference documentation.
            pub fn meaning(self) -> &'static str {
                match self { $( StepReason::$name => concat!($($doc),+), )+ }
            }
        }
    };
}

reasons! {
    /// The source could not be reached over the network.
    SourceUnreachable, Transient, "check the address in spec.source and that the cluster can reach it";
    /// The server of the source refused the credentials, or asked for some.
    SourceAccessDenied, User, "check the keys of the Secret that the connection names, and its rights on the repository";
    /// The repository has no such branch, tag or commit.
    GitRefNotFound, User, "set spec.source.git.ref to a branch, a tag or a commit that exists";
    /// The source holds nothing at the given place.
    SourceNotFound, User, "check the path in spec.source";
    /// The content of the ConfigMap is no longer what this run was planned with.
    SourceChanged, Transient, "nothing: the changed content starts a run of its own";
    /// The ssh host key of the server is not known, or is not the known one.
    HostKeyUnverified, User, "put the server's host key into the key known_hosts of the Secret, or into spec.knownHosts of the connection";
    /// The certificate of a server cannot be verified: nobody that this machine trusts has signed it, or it is not for this server.
    CertificateUnverified, User, "add the certificate of the authority that signed the server's to the trust store of the agent's image (with legionctl local: of this machine), or correct the address";
    /// A Secret, or a key of it, is not there.
    SecretMissing, User, "create the Secret with the key that is named";
    /// A Secret holds a value that cannot be used.
    SecretInvalid, User, "correct the value of the key that is named";
    /// A data binding points at nothing.
    DataNotFound, User, "check remotePath of the data binding and the address of its connection";
    /// The store of a data binding refused the credentials, or asked for some.
    DataAccessDenied, User, "check the keys of the Secret that the connection names, and its rights";
    /// The store of a data binding could not be reached.
    DataUnreachable, Transient, "check the address of the connection and that the cluster can reach it";
    /// What was downloaded does not have the digest that the manifest names.
    DigestMismatch, User, "correct the digest, or restore the data it was computed from";
    /// A path leaves the directory it must stay in.
    PathEscapes, User, "use a relative path without '..' and without links that lead out of the tree";
    /// The source has no directory `spec.workDir`.
    WorkDirMissing, User, "set spec.workDir to a directory of the source";
    /// An archive or a tree holds something that is not accepted: a device, a FIFO, a link out of the tree.
    ContentRefused, User, "leave out the entry that is named";
    /// Something is larger, or has more entries, than its limit.
    TooLarge, User, "make it smaller, or raise the limit that is named";
    /// The output location does not accept writes.
    OutputNotWritable, User, "check the connection of spec.output, its Secret and its rights";
    /// The output location could not be reached.
    OutputUnreachable, Storage, "check the address of the output connection and that the cluster can reach it";
    /// An upload did not complete.
    UploadFailed, Storage, "check the output store; the attempt is repeated";
    /// The trainer left no model where the result document says it is.
    ModelMissing, User, "write the model below LEGION_OUTPUT and name its path in the result document";
    /// The output of the trainer holds an entry that is not accepted.
    OutputHostile, User, "leave only regular files and directories below the model's path";
    /// The toolchain did not keep the toolchain protocol.
    ProtocolViolation, User, "correct the toolchain; `legionctl toolchain test` shows what it does wrong";
    /// The toolchain itself reported an error.
    ToolchainError, User, "follow the toolchain's message";
    /// The trainer's container ended without starting its command.
    TrainerNotStarted, Transient, "see the trainer container's state";
    /// The command of the toolchain was not found in the image.
    CommandNotFound, User, "set spec.command of the toolchain to a program that the image has";
    /// The command of the toolchain is not executable.
    CommandNotExecutable, User, "make the program of spec.command of the toolchain executable";
    /// The command could not be started for another reason.
    CommandNotStarted, Transient, "see the message";
    /// The step was told to stop before it was done.
    Interrupted, Transient, "nothing: the attempt is repeated";
    /// The pod was not set up as the agent expects; a defect of Legion or of what changed the pod.
    TaskInvalid, User, "check that operator and agent have the same version and that nothing rewrote the pod";
    /// A program that the agent needs is not there: git, or ssh for repositories that are reached by it.
    ProgramMissing, User, "install git and an ssh client in the agent's image (with legionctl local: on this machine)";
    /// The disk of the workspace is full.
    WorkspaceFull, User, "raise spec.workspace.size";
    /// Reading or writing on the node failed.
    NodeFault, Transient, "see the message; the attempt is repeated";
}

impl std::fmt::Display for StepReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed step in the words its user reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{reason}: {message}")]
pub struct StepError {
    /// The reason.
    pub reason: StepReason,
    /// The field of the manifest that it is about, as a path (`spec.source.git.ref`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What happened, naming the value.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl StepError {
    /// An error with the reason's own remedy and no field.
    pub fn new(reason: StepReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: String::new(),
            message: message.into(),
            remedy: reason.remedy().to_owned(),
        }
    }

    /// The same error about a field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The same error with a better remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Who can do something about it.
    pub fn class(&self) -> StepClass {
        self.reason.class()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_a_remedy_and_reads_as_it_is_written() {
        let mut seen = BTreeSet::new();
        for reason in StepReason::ALL {
            assert!(seen.insert(reason.as_str()));
            assert!(!reason.remedy().is_empty() && !reason.meaning().is_empty());
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
