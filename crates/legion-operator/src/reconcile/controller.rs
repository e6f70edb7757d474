//! What the driver asks of a kind: the five steps, as data and functions.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use legion_plan::{Need, Outcome, Plan, Settings, StatusPatch, StepResult};

use crate::{
    context::Context,
    key::Key,
    reconcile::queue::Queue,
    requests::{Object, RequestError},
    watch::cache::Cache,
};

/// A kind that the operator reconciles. The pure steps are `legion-plan`'s.
pub(crate) trait Controller: Send + Sync + 'static {
    /// The resource.
    type Object: Object;
    /// What its decisions are made from.
    type World: Send + Sync;
    /// Its status.
    type Status: Send + Sync;

    /// Its name, as in manifests.
    const NAME: &'static str;
    /// Whether the kind's own truth is `Succeeded` (a run) rather than `Ready`.
    const IS_RUN: bool = false;

    /// Its cache.
    fn cache(context: &Context) -> &Cache<Self::Object>;

    /// Its work.
    fn queue(context: &Context) -> &Queue;

    /// What the watches show.
    fn observe(context: &Context, key: &Key, object: Arc<Self::Object>) -> Self::World;

    /// Reads what the watches cannot show. Kinds that never need anything are done.
    fn read(
        context: &Context,
        key: &Key,
        world: &mut Self::World,
        need: &Need,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        let _ = (context, key, world, need);
        std::future::ready(Ok(()))
    }

    /// What [`Controller::read`] was asked for cannot be read. Returns whether something can be decided without it.
    fn unreadable(world: &mut Self::World, need: &Need, error: &RequestError) -> bool {
        let _ = (world, need, error);
        false
    }

    /// Decides.
    fn decide(world: &Self::World, settings: &Settings, now: Timestamp) -> Plan<Self::Status>;

    /// What it means that a pod which was to be created exists already. Kinds without pods own none.
    fn judge(world: &Self::World, wanted: &Pod, found: &Pod) -> StepResult {
        let _ = (world, wanted, found);
        StepResult::NameTaken
    }

    /// A pod of ours is there that no watch shows.
    fn found(world: &mut Self::World, pod: Box<Pod>) {
        let _ = (world, pod);
    }

    /// Does the world hold something that no watch tells about? Then it must be looked at again.
    fn is_unwatched(world: &Self::World) -> bool {
        let _ = world;
        false
    }

    /// The status write that follows.
    fn settle(world: &Self::World, plan: &Plan<Self::Status>, outcome: &Outcome, now: Timestamp)
    -> Option<StatusPatch>;

    /// A status of ours was written.
    fn written(context: &Context, before: &Self::Object, after: &Self::Object) {
        let _ = (context, before, after);
    }

    /// When to look again although nothing happens.
    fn requeue(plan: &Plan<Self::Status>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp>;

    /// The object is gone: forget what was kept for it.
    fn gone(context: &Context, key: &Key) {
        let _ = (context, key);
    }
}
