//! The kinds of errors, and the reason of the protocol for each.

use legion_protocol::reason::{StepError, StepReason};

/// Whose error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The pod's own directories.
    Workspace,
    /// `spec.source`.
    Source,
    /// A data binding.
    Data,
    /// `spec.output`.
    Output,
}

/// Kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not exist.
    Missing,
    /// The credentials or the file modes do not permit it.
    Denied,
    /// The server refuses the request itself. A retry would get the same answer.
    Refused,
    /// The content or a name in it cannot be accepted: a broken archive, a name that is too long, a file in the place
    /// of a directory.
    Content,
    /// The repository has no such branch, tag or commit.
    Reference,
    /// The server's certificate cannot be verified.
    Certificate,
    /// The server's ssh host key cannot be verified.
    HostKey,
    /// A program is not installed.
    Program,
    /// The disk or a quota is full.
    Full,
    /// The network or the server does not answer. It may pass without a change by the user.
    Unreachable,
    /// Any other error of the node. It may pass without a change by the user.
    Node,
}

impl Fault {
    /// Returns the reason that the status shows. Its class decides whether another attempt follows.
    pub(crate) fn reason(self, side: Side) -> StepReason {
        use StepReason as R;
        match (self, side) {
            (Self::Certificate, _) => R::CertificateUnverified,
            (Self::HostKey, _) => R::HostKeyUnverified,
            (Self::Program, _) => R::ProgramMissing,
            (Self::Reference, _) => R::GitRefNotFound,
            (Self::Full | Self::Node, Side::Output) => R::UploadFailed,
            (Self::Full, _) => R::WorkspaceFull,
            // A directory of the pod can only be missing while the pod is being deleted.
            (Self::Node, _) | (Self::Missing | Self::Unreachable, Side::Workspace) => R::NodeFault,
            (Self::Unreachable, Side::Source) => R::SourceUnreachable,
            (Self::Unreachable, Side::Data) => R::DataUnreachable,
            (Self::Unreachable, Side::Output) => R::OutputUnreachable,
            // A bucket can be created while the training waits.
            (Self::Missing, Side::Output) => R::OutputNotFound,
            (_, Side::Output) => R::OutputNotWritable,
            (Self::Content, _) => R::ContentRefused,
            // The next attempt gets a pod with the same volumes and the same user.
            (Self::Denied | Self::Refused, Side::Workspace) => R::TaskInvalid,
            (Self::Denied, Side::Source) => R::SourceAccessDenied,
            (Self::Denied, Side::Data) => R::DataAccessDenied,
            (Self::Missing | Self::Refused, Side::Source) => R::SourceNotFound,
            (Self::Missing | Self::Refused, Side::Data) => R::DataNotFound,
        }
    }

    /// Returns the error of this fault.
    pub(crate) fn error(self, side: Side, message: impl Into<String>) -> StepError {
        StepError::new(self.reason(side), message)
    }
}

#[cfg(test)]
mod tests {
    use legion_protocol::reason::StepClass;

    use super::*;

    const FAULTS: [Fault; 11] = [
        Fault::Missing,
        Fault::Denied,
        Fault::Refused,
        Fault::Content,
        Fault::Reference,
        Fault::Certificate,
        Fault::HostKey,
        Fault::Program,
        Fault::Full,
        Fault::Unreachable,
        Fault::Node,
    ];

    #[test]
    fn every_fault_of_every_side_is_permanent_or_passing_on_purpose() {
        use Fault as F;
        use Side as S;
        let passing = [
            (F::Unreachable, S::Workspace),
            (F::Unreachable, S::Source),
            (F::Unreachable, S::Data),
            (F::Unreachable, S::Output),
            (F::Node, S::Workspace),
            (F::Node, S::Source),
            (F::Node, S::Data),
            (F::Node, S::Output),
            (F::Missing, S::Workspace),
            // Hours of work are not given up while a bucket can be created or a disk be emptied.
            (F::Missing, S::Output),
            (F::Full, S::Output),
        ];
        for fault in FAULTS {
            for side in [S::Workspace, S::Source, S::Data, S::Output] {
                let permanent = fault.reason(side).class() == StepClass::User;
                assert_eq!(permanent, !passing.contains(&(fault, side)), "{fault:?} of {side:?}");
            }
        }
    }
}
