//! What the driver asks of a kind: the steps of a reconciliation, as data and functions.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use legion_api::run::RunStatus;
use legion_plan::{Need, Outcome, Plan, Settings, StatusPatch, StepResult, training::QuotaWait};

use crate::{
    context::Context,
    key::Key,
    requests::{Object, RequestError},
    store::Store,
    watch::references::Reference,
};

/// A kind that the operator reconciles. The pure steps are `legion-plan`'s.
pub(crate) trait Controller: Send + Sync + 'static {
    /// The resource.
    type Object: Object;
    /// What its decisions are made from.
    type World: Send + Sync;
    type Status: Send + Sync;

    /// Whether objects of the platform's namespace serve every namespace. Then that namespace is watched too.
    fn in_platform_namespace(&self) -> bool {
        false
    }

    /// Returns what the object refers to. A change of that requeues the object.
    fn references(&self, key: &Key, object: &Self::Object) -> BTreeSet<Reference> {
        let _ = (key, object);
        BTreeSet::new()
    }

    /// Returns what the object is besides itself, such as the default output of its namespace. A change of the object
    /// requeues what refers to that.
    fn provides(&self, key: &Key, object: &Self::Object) -> Option<Reference> {
        let _ = (key, object);
        None
    }

    /// Collects from the caches what a decision is made from.
    fn observe(&self, context: &Context, key: &Key, object: Arc<Self::Object>) -> Self::World;

    /// Decides what is to be done.
    fn decide(&self, world: &Self::World, settings: &Settings, now: Timestamp) -> Plan<Self::Status>;

    /// Returns the status write that follows from what was done.
    fn settle(
        &self,
        world: &Self::World,
        plan: &Plan<Self::Status>,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<StatusPatch>;

    /// Returns when to reconcile again although nothing changes.
    fn requeue(&self, plan: &Plan<Self::Status>, outcome: &Outcome, now: Timestamp) -> Option<Timestamp>;
}

/// What one kind of run has that another has not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunMetadata {
    /// Label of a pod that names its owner.
    pub(crate) owner_label: &'static str,
    /// Name and help of the gauge that counts the objects by the reason of their condition `Succeeded`.
    pub(crate) gauge: (&'static str, &'static str),
}

/// What a kind needs besides when its objects are run in pods. The defaults are right for kinds that are no runs.
pub(crate) trait RunHooks: Controller {
    /// `None` for a kind that is no run. The main condition of a run is `Succeeded`, and of any other kind `Ready`.
    const RUN: Option<RunMetadata> = None;

    fn conditions(object: &Self::Object) -> &[Condition] {
        let _ = object;
        &[]
    }

    fn run_status(object: &Self::Object) -> Option<&RunStatus> {
        let _ = object;
        None
    }

    /// Returns since when a quota refuses the object's pod, and what the pod needs.
    fn quota_wait(object: &Self::Object) -> Option<QuotaWait> {
        let _ = object;
        None
    }

    /// Reads what the caches cannot show, and puts it into the world.
    fn read(
        &self,
        context: &Context,
        key: &Key,
        world: &mut Self::World,
        need: &Need,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        let _ = (context, key, world, need);
        std::future::ready(Ok(()))
    }

    /// Puts into the world that its object was read live ([`Need::Object`]).
    fn confirm(&self, world: &mut Self::World) {
        let _ = world;
    }

    /// Puts into the world that a need cannot be read. Returns whether something can be decided without it.
    fn unreadable(&self, world: &mut Self::World, need: &Need, error: &RequestError) -> bool {
        let _ = (world, need, error);
        false
    }

    /// Classifies a pod that exists although it was to be created.
    fn classify_existing(&self, world: &Self::World, wanted: &Pod, found: &Pod) -> StepResult {
        let _ = (world, wanted, found);
        StepResult::NameTaken
    }

    /// Puts a pod into the world that belongs to the object and that no watch shows.
    fn add_unwatched(&self, world: &mut Self::World, pod: Box<Pod>) {
        let _ = (world, pod);
    }

    /// Returns whether the world holds a pod that no watch shows. Then the object is reconciled at intervals.
    fn has_unwatched(&self, world: &Self::World) -> bool {
        let _ = world;
        false
    }

    /// Drops what was kept for an object that no longer exists.
    fn deleted(&self, key: &Key) {
        let _ = key;
    }
}

/// A kind with its objects.
pub(crate) struct Managed<C: Controller> {
    pub(crate) controller: Arc<C>,
    pub(crate) store: Store<C::Object>,
}
