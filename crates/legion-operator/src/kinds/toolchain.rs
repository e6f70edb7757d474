//! ToolchainIntegration: its decisions need nothing but the object.

use std::sync::Arc;

use jiff::Timestamp;
use legion_api::{ToolchainIntegration, ToolchainIntegrationStatus};
use legion_plan::{Outcome, Plan, Settings, StatusPatch, toolchain};

use crate::{
    context::Context,
    key::Key,
    reconcile::{controller::Controller, queue::Queue},
    watch::cache::Cache,
};

/// ToolchainIntegration.
pub(crate) struct Toolchains;

impl Controller for Toolchains {
    type Object = ToolchainIntegration;
    type World = toolchain::World;
    type Status = ToolchainIntegrationStatus;

    const NAME: &'static str = "ToolchainIntegration";

    fn cache(context: &Context) -> &Cache<ToolchainIntegration> {
        &context.toolchains
    }

    fn queue(context: &Context) -> &Queue {
        &context.queues.toolchains
    }

    fn observe(_: &Context, _: &Key, toolchain: Arc<ToolchainIntegration>) -> toolchain::World {
        toolchain::World { toolchain }
    }

    fn decide(world: &toolchain::World, settings: &Settings, now: Timestamp) -> Plan<ToolchainIntegrationStatus> {
        toolchain::decide(world, settings, now)
    }

    fn settle(
        world: &toolchain::World,
        plan: &Plan<ToolchainIntegrationStatus>,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<StatusPatch> {
        toolchain::settle(world, plan, outcome, now)
    }

    fn requeue(plan: &Plan<ToolchainIntegrationStatus>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
        toolchain::requeue(plan, outcome, now)
    }
}
