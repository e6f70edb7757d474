//! What follows from a plan once its actions were tried.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_api::{ModelTrainingStatus, Reason, ReasonKind, run::Waiting};

use super::{labels, refusal};
use crate::{
    conditions::{self, State, seconds},
    plan::{Action, EventNote, Outcome, Plan, StatusPatch, StepResult, Write, status_patch},
    training::World,
};

/// What it means that a pod which was to be created exists already.
#[must_use]
pub fn judge_existing(world: &World, wanted: &Pod, found: &Pod) -> StepResult {
    let name = world.name();
    if !labels::is_owned(found, world.uid()) || labels::identity(found, name) != labels::identity(wanted, name) {
        StepResult::NameTaken
    } else if found.metadata.deletion_timestamp.is_some() {
        StepResult::NotYet
    } else {
        StepResult::Created
    }
}

/// The status write that follows from a plan and what became of it. Call it always, also when an action failed.
#[must_use]
pub fn settle(
    world: &World,
    plan: &Plan<ModelTrainingStatus>,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<StatusPatch> {
    let training = &world.training;
    let old = training.status.as_ref();
    let version = training.metadata.resource_version.as_deref();
    let wanted = plan.status.as_ref()?;
    let created = plan
        .actions
        .iter()
        .zip(outcome.results.iter().map(Some).chain(std::iter::repeat(None)))
        .find_map(|(action, result)| match action {
            Action::CreatePod { pod, .. } => Some((pod.metadata.name.as_deref().unwrap_or_default(), result)),
            Action::DeletePod { .. } => None,
        });
    let refused = match created {
        None | Some((_, Some(StepResult::Created))) => None,
        Some((name, Some(StepResult::Refused(error)))) => Some(refusal::state_of(error, name)),
        Some((name, Some(StepResult::Failed(error)))) => Some(State::new(
            Reason::ApiUnavailable,
            format!("pod {name} cannot be created at present: {}", error.message),
        )),
        Some((name, Some(StepResult::NameTaken))) => Some(State::new(
            Reason::PodNameTaken,
            format!("a pod named {name} exists that is not Legion's"),
        )),
        // It was not tried, or not possible yet: there is nothing to tell of it.
        Some((_, _)) => return None,
    };
    let Some(state) = refused.map(State::with_remedy) else {
        if matches!(plan.write, Write::NotBefore(at) if now < at) {
            return None;
        }
        return status_patch(version, old, wanted).map(|patch| StatusPatch {
            events: plan.events.clone(),
            ..patch
        });
    };
    let mut status = wanted.clone();
    let generation = training.metadata.generation.unwrap_or_default();
    let previous = old.map_or(&[][..], |status| &status.conditions);
    status.conditions = conditions::for_run(previous, &state, generation, now);
    if let Some(run) = &mut status.run {
        let before = world
            .run()
            .and_then(|run| run.waiting.clone())
            .filter(|waiting| waiting.reason == state.reason.as_str());
        debug_assert_eq!(state.reason.kind(), ReasonKind::Waiting);
        run.waiting = Some(before.unwrap_or_else(|| Waiting {
            reason: state.reason.as_str().to_owned(),
            since: seconds(now),
        }));
    }
    let event = EventNote {
        warning: true,
        reason: state.reason,
        message: state.message,
    };
    status_patch(version, old, &status).map(|patch| StatusPatch {
        events: vec![event],
        ..patch
    })
}

/// When to look again although nothing happens.
#[must_use]
pub fn requeue(plan: &Plan<ModelTrainingStatus>, outcome: &Outcome, _: Timestamp) -> Option<Timestamp> {
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
