//! Connection: its decisions need nothing but the object.

use std::sync::Arc;

use jiff::Timestamp;
use legion_api::{Connection, ConnectionStatus};
use legion_plan::{Outcome, Plan, Settings, StatusPatch, connection};

use crate::{
    context::Context,
    key::Key,
    reconcile::{controller::Controller, queue::Queue},
    watch::cache::Cache,
};

/// Connection.
pub(crate) struct Connections;

impl Controller for Connections {
    type Object = Connection;
    type World = connection::World;
    type Status = ConnectionStatus;

    const NAME: &'static str = "Connection";

    fn cache(context: &Context) -> &Cache<Connection> {
        &context.connections
    }

    fn queue(context: &Context) -> &Queue {
        &context.queues.connections
    }

    fn observe(_: &Context, _: &Key, connection: Arc<Connection>) -> connection::World {
        connection::World { connection }
    }

    fn decide(world: &connection::World, settings: &Settings, now: Timestamp) -> Plan<ConnectionStatus> {
        connection::decide(world, settings, now)
    }

    fn settle(
        world: &connection::World,
        plan: &Plan<ConnectionStatus>,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<StatusPatch> {
        connection::settle(world, plan, outcome, now)
    }

    fn requeue(plan: &Plan<ConnectionStatus>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
        connection::requeue(plan, outcome, now)
    }
}
