//! `Scratch`: valid whatever its word.

use std::sync::Arc;

use jiff::Timestamp;
use legion_api::{
    Reason,
    scratch::{Scratch, ScratchStatus},
};

use crate::{
    Settings,
    conditions::{self, Explanation},
    plan::{Outcome, Plan, StatusPatch, status_patch},
};

/// The input of a decision about a scratch.
#[derive(Debug, Clone)]
pub struct World {
    /// The scratch, as the watch shows it.
    pub scratch: Arc<Scratch>,
}

/// Decides about a scratch.
#[must_use]
pub fn decide(world: &World, _: &Settings, now: Timestamp) -> Plan<ScratchStatus> {
    let generation = world.scratch.metadata.generation.unwrap_or_default();
    let previous = world
        .scratch
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    Plan {
        status: Some(ScratchStatus {
            observed_generation: Some(generation),
            conditions: conditions::for_ready(
                previous,
                &Explanation::new(Reason::Valid, world.scratch.spec.word.as_str()),
                generation,
                now,
            ),
        }),
        ..Plan::default()
    }
}

/// Returns the status write that follows from a plan.
#[must_use]
pub fn settle(world: &World, plan: &Plan<ScratchStatus>, _: &Outcome, _: Timestamp) -> Option<StatusPatch> {
    let scratch = &world.scratch;
    status_patch(
        scratch.metadata.resource_version.as_deref(),
        scratch.status.as_ref(),
        plan.status.as_ref()?,
    )
}

/// Returns the time of the next reconciliation without any event. A scratch needs none.
#[must_use]
pub fn requeue(plan: &Plan<ScratchStatus>, _: &Outcome, _: Timestamp) -> Option<Timestamp> {
    plan.requeue_at
}
