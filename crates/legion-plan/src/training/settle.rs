//! What follows from a plan for a training once its actions were tried.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_api::ModelTrainingStatus;

use super::world::World;
use crate::{
    conditions,
    plan::{EventNote, Outcome, Plan, StatusPatch, StepResult, Write, status_patch},
    run::settle::{self, Creation, creation},
};

/// Classifies a pod that existed when `wanted` was to be created.
#[must_use]
pub fn classify_existing(world: &World, wanted: &Pod, found: &Pod) -> StepResult {
    settle::classify_existing(world.name(), world.uid(), wanted, found)
}

/// Returns the status write that follows from a plan and its outcome. Call it always, also when an action failed.
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
    let refused = match creation(&plan.actions, outcome) {
        Creation::Pending => return None,
        Creation::Done if matches!(plan.write, Write::NotBefore(at) if now < at) => return None,
        Creation::Done => {
            return status_patch(version, old, wanted).map(|patch| StatusPatch {
                events: plan.events.clone(),
                ..patch
            });
        }
        Creation::Refused(refused) => refused,
    };
    let mut status = wanted.clone();
    let previous = old.map_or(&[][..], |status| &status.conditions);
    status.conditions = conditions::for_run(previous, &refused, world.generation(), now);
    if let Some(run) = &mut status.run {
        run.waiting = Some(settle::waiting(world.run(), refused.reason, now));
    }
    let event = EventNote {
        warning: true,
        reason: refused.reason,
        message: refused.message,
    };
    status_patch(version, old, &status).map(|patch| StatusPatch {
        events: vec![event],
        ..patch
    })
}

/// Returns the time of the next reconciliation without any event.
#[must_use]
pub fn requeue(plan: &Plan<ModelTrainingStatus>, outcome: &Outcome, _: Timestamp) -> Option<Timestamp> {
    settle::requeue(plan, outcome)
}
