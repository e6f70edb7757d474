//! Kinds whose decisions need nothing but the object.

use std::sync::Arc;

use jiff::Timestamp;
use legion_plan::{Outcome, Plan, Settings, StatusPatch};

use crate::{
    context::Context,
    key::Key,
    reconcile::controller::{Controller, RunHooks},
    requests::Object,
    watch::references::Reference,
};

/// A kind whose decisions need nothing but the object: `K` is the object, `W` its World, `S` its status.
pub(crate) struct Standalone<K, W, S> {
    pub(crate) in_platform_namespace: bool,
    pub(crate) provides: fn(&Key, &K) -> Option<Reference>,
    pub(crate) observe: fn(Arc<K>) -> W,
    pub(crate) decide: fn(&W, &Settings, Timestamp) -> Plan<S>,
    pub(crate) settle: fn(&W, &Plan<S>, &Outcome, Timestamp) -> Option<StatusPatch>,
}

impl<K: Object, W: Send + Sync + 'static, S: Send + Sync + 'static> Controller for Standalone<K, W, S> {
    type Object = K;
    type World = W;
    type Status = S;

    fn in_platform_namespace(&self) -> bool {
        self.in_platform_namespace
    }

    fn provides(&self, key: &Key, object: &K) -> Option<Reference> {
        (self.provides)(key, object)
    }

    fn observe(&self, _: &Context, _: &Key, object: Arc<K>) -> W {
        (self.observe)(object)
    }

    fn decide(&self, world: &W, settings: &Settings, now: Timestamp) -> Plan<S> {
        (self.decide)(world, settings, now)
    }

    fn settle(&self, world: &W, plan: &Plan<S>, outcome: &Outcome, now: Timestamp) -> Option<StatusPatch> {
        (self.settle)(world, plan, outcome, now)
    }

    /// Returns `None`: nothing but a change of the object matters.
    fn requeue(&self, _: &Plan<S>, _: &Outcome, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

impl<K: Object, W: Send + Sync + 'static, S: Send + Sync + 'static> RunHooks for Standalone<K, W, S> {}
