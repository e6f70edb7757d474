//! What follows from the result of a plan's actions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_api::{
    Reason, ReasonKind,
    run::{RunStatus, Waiting},
};

use super::{labels, refusal};
use crate::{
    conditions::{Explanation, seconds},
    plan::{Action, Outcome, Plan, StepResult},
};

/// Classifies a pod that existed when `wanted` was to be created for the object with this name and uid.
pub(crate) fn classify_existing(name: &str, uid: &str, wanted: &Pod, found: &Pod) -> StepResult {
    if !labels::is_owned(found, uid) || labels::identity(found, name) != labels::identity(wanted, name) {
        StepResult::NameTaken
    } else if found.metadata.deletion_timestamp.is_some() {
        StepResult::NotYet
    } else {
        StepResult::Created
    }
}

/// The result of a pod's creation.
pub(crate) enum Creation {
    /// It was created, or the plan creates none.
    Done,
    /// It was not tried, or not possible yet. There is nothing to report.
    Pending,
    /// It was refused.
    Refused(Explanation),
}

/// Returns the result of the pod's creation among `actions`.
pub(crate) fn creation(actions: &[Action], outcome: &Outcome) -> Creation {
    let created = actions
        .iter()
        .zip(outcome.results.iter().map(Some).chain(std::iter::repeat(None)))
        .find_map(|(action, result)| match action {
            Action::CreatePod { pod, .. } => Some((pod.metadata.name.as_deref().unwrap_or_default(), result)),
            Action::DeletePod { .. } => None,
        });
    let refused = match created {
        None | Some((_, Some(StepResult::Created))) => return Creation::Done,
        Some((name, Some(StepResult::Refused(error)))) => refusal::explain(error, name),
        Some((name, Some(StepResult::Failed(error)))) => Explanation::new(
            Reason::ApiUnavailable,
            format!("pod {name} cannot be created now: {}", error.message),
        ),
        Some((name, Some(StepResult::NameTaken))) => Explanation::new(
            Reason::PodNameTaken,
            format!("pod {name} already exists and was not created by Legion"),
        ),
        Some((_, _)) => return Creation::Pending,
    };
    debug_assert_eq!(refused.reason.kind(), ReasonKind::Waiting);
    Creation::Refused(refused.with_remedy())
}

/// Returns `status.run.waiting` for a reason. The time is kept while the reason stays the same.
pub(crate) fn waiting(previous: Option<&RunStatus>, reason: Reason, since: Timestamp) -> Waiting {
    previous
        .and_then(|run| run.waiting.clone())
        .filter(|waiting| waiting.reason == reason.as_str())
        .unwrap_or_else(|| Waiting {
            reason: reason.as_str().to_owned(),
            since: seconds(since),
        })
}

/// Returns the time of the next reconciliation without any event.
pub(crate) fn requeue<S>(plan: &Plan<S>, outcome: &Outcome) -> Option<Timestamp> {
    let held_up = outcome.results.iter().any(|result| {
        matches!(
            result,
            StepResult::NotYet | StepResult::NameTaken | StepResult::Refused(_) | StepResult::Failed(_)
        )
    });
    match (plan.requeue_at, plan.retry_at.filter(|_| held_up)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
