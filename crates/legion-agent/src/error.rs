//! Errors of a step, and how they travel through [`std::io::Error`].

use legion_protocol::reason::StepError;

use crate::fault::{self, Side};

/// Result of a step.
pub(crate) type Result<T> = std::result::Result<T, StepError>;

/// Returns the error for a failed operation on the pod's own directories. The table of faults decides whether it may
/// pass.
pub(crate) fn node_fault(what: impl std::fmt::Display, error: &std::io::Error) -> StepError {
    fault::of_io(error).error(Side::Workspace, format!("{what}: {error}"))
}

/// Returns the user and the group of this process, for remedies about file modes.
pub(crate) fn user_and_group() -> String {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    format!("the user {user} or the group {group} of the pod")
}

/// Returns the step error inside an I/O error, if there is one. A library may have wrapped it in errors of its own.
pub(crate) fn carried(error: &std::io::Error) -> Option<StepError> {
    let mut link: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|e| e as _);
    while let Some(cause) = link {
        if let Some(error) = cause.downcast_ref::<StepError>() {
            return Some(error.clone());
        }
        link = match cause.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref()) {
            Some(inner) => Some(inner as _),
            None => cause.source(),
        };
    }
    None
}

/// Returns the step error inside an I/O error, or an error about reading the packed files.
pub(crate) fn sink_error(error: &std::io::Error) -> StepError {
    carried(error).unwrap_or_else(|| node_fault("cannot pack", error))
}
