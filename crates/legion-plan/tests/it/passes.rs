//! One reconciliation after another, and what users see between them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use legion_api::{
    ModelTrainingSpec, ModelTrainingStatus,
    condition::{SUCCEEDED, find},
    run::Failure,
};
use legion_plan::{
    Action, Outcome, Plan, StatusPatch, StepResult,
    training::{World, decide, settle},
};

use crate::{
    factory::{after, settings, stored, train, training, world},
    universe::merge,
};

/// The result of one reconciliation.
pub(crate) struct Pass {
    pub(crate) plan: Plan<ModelTrainingStatus>,
    pub(crate) written: bool,
    pub(crate) created: Option<Pod>,
}

/// Reconciles the training at a second, as the operator does: pods are created and deleted, and the status is stored.
pub(crate) fn reconcile(world: &mut World, seconds: i64) -> Pass {
    let plan = decide(world, &settings(), after(seconds));
    let mut created = None;
    let results = plan.actions.iter().map(|action| match action {
        Action::CreatePod { pod, .. } => {
            let pod = stored(pod.as_ref().clone(), after(seconds));
            created = Some(pod);
            StepResult::Created
        }
        Action::DeletePod { .. } => StepResult::Deleted,
    });
    let outcome = Outcome {
        results: results.collect(),
    };
    let patch = settle(world, &plan, &outcome, after(seconds));
    if let Some(patch) = &patch {
        store(world, patch);
    }
    if let Some(pod) = &created {
        world.pods.push(Arc::new(pod.clone()));
    }
    Pass {
        plan,
        written: patch.is_some(),
        created,
    }
}

/// Stores a status, as the API server does.
pub(crate) fn store(world: &mut World, patch: &StatusPatch) {
    let training = Arc::make_mut(&mut world.training);
    let mut value = serde_json::to_value(training.status.clone().unwrap_or_default()).unwrap();
    merge(&mut value, &patch.body["status"]);
    training.status = Some(serde_json::from_value(value).unwrap());
}

/// Changes the spec, as a user does.
pub(crate) fn edit(world: &mut World, change: impl FnOnce(&mut ModelTrainingSpec)) {
    let training = Arc::make_mut(&mut world.training);
    change(&mut training.spec);
    *training.metadata.generation.as_mut().unwrap() += 1;
}

pub(crate) fn change(world: &mut World, change: impl FnOnce(&mut Pod)) {
    change(Arc::make_mut(world.pods.last_mut().unwrap()));
}

pub(crate) fn status_of(world: &World) -> ModelTrainingStatus {
    world.training.status.clone().unwrap_or_default()
}

pub(crate) fn reported(world: &World) -> String {
    let status = status_of(world);
    find(&status.conditions, SUCCEEDED).map_or_else(String::new, |condition| condition.reason.clone())
}

pub(crate) fn message(world: &World) -> String {
    let status = status_of(world);
    find(&status.conditions, SUCCEEDED).map_or_else(String::new, |condition| condition.message.clone())
}

pub(crate) fn failure(world: &World) -> Failure {
    status_of(world).failure.unwrap()
}

pub(crate) fn attempt(world: &World) -> i32 {
    status_of(world).run.unwrap().attempt
}

/// Returns a world with a first attempt that is training and recorded in the status.
pub(crate) fn training_started(spec: serde_json::Value) -> World {
    let mut world = world(training(spec));
    reconcile(&mut world, 0);
    change(&mut world, train);
    reconcile(&mut world, 4);
    assert_eq!(reported(&world), "Training");
    world
}

pub(crate) fn deletions(plan: &Plan<ModelTrainingStatus>) -> Vec<&str> {
    let deleted = plan.actions.iter().filter_map(|action| match action {
        Action::DeletePod { name, .. } => Some(name.as_str()),
        Action::CreatePod { .. } => None,
    });
    deleted.collect()
}
