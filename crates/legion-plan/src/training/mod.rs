//! `ModelTraining`: runs and their attempts.

pub mod labels;
mod world;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_api::ModelTrainingStatus;

pub use world::{
    ConfigMapContent, ConfigMapView, MissingKey, World, config_map_name, connection_names, is_default_output,
};

use crate::{
    Settings,
    plan::{Outcome, Plan, StatusPatch, StepResult, Write, status_patch},
};

/// Decides about a training.
#[must_use]
pub fn decide(world: &World, _settings: &Settings, _now: Timestamp) -> Plan<ModelTrainingStatus> {
    let _ = (
        world.uid(),
        world.name(),
        world.namespace(),
        world.generation(),
        world.run(),
        world.status(),
    );
    let _ = world.own_pods().count();
    Plan::default()
}

/// What it means that a pod which was to be created exists already.
#[must_use]
pub fn judge_existing(world: &World, wanted: &Pod, found: &Pod) -> StepResult {
    if !labels::is_owned(found, world.uid())
        || labels::identity(found, world.name()) != labels::identity(wanted, world.name())
    {
        StepResult::NameTaken
    } else if found.metadata.deletion_timestamp.is_some() {
        StepResult::NotYet
    } else {
        StepResult::Created(Box::new(found.clone()))
    }
}

/// The status write that follows from a plan and what became of it. Call it always, also when an action failed.
#[must_use]
pub fn settle(
    world: &World,
    plan: &Plan<ModelTrainingStatus>,
    _outcome: &Outcome,
    now: Timestamp,
) -> Option<StatusPatch> {
    if matches!(plan.write, Write::NotBefore(at) if now < at) {
        return None;
    }
    let training = &world.training;
    status_patch(
        training.metadata.resource_version.as_deref(),
        training.status.as_ref(),
        plan.status.as_ref()?,
    )
}

/// When to look again although nothing happens.
#[must_use]
pub fn requeue(plan: &Plan<ModelTrainingStatus>, _outcome: &Outcome, _now: Timestamp) -> Option<Timestamp> {
    plan.requeue_at
}
