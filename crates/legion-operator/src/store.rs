//! The objects of one kind with its work queue, and which queued objects depend on what.

use std::{cmp::Ordering, sync::Arc};

use crate::{
    key::Key,
    reconcile::queue::Queue,
    watch::{
        cache::Cache,
        references::{Reference, ReverseIndex},
    },
};

/// The objects of one kind, and which of them are to be reconciled.
pub(crate) struct Store<K> {
    pub(crate) cache: Arc<Cache<K>>,
    pub(crate) queue: Arc<Queue>,
}

/// An object that is reconciled by way of its kind's queue.
#[derive(Clone, Debug)]
struct Dependent {
    queue: Arc<Queue>,
    key: Key,
}

impl Dependent {
    fn identity(&self) -> (&'static str, &Key) {
        (self.queue.kind(), &self.key)
    }
}

impl PartialEq for Dependent {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Dependent {}

impl PartialOrd for Dependent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Dependent {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

/// The dependents of everything that objects refer to.
#[derive(Debug, Default)]
pub(crate) struct Dependents(ReverseIndex<Reference, Dependent>);

impl Dependents {
    /// Replaces what an object refers to.
    pub(crate) fn update<'a>(
        &self,
        queue: &Arc<Queue>,
        key: &Key,
        old: impl IntoIterator<Item = &'a Reference>,
        new: impl IntoIterator<Item = &'a Reference>,
    ) {
        let dependent = Dependent {
            queue: queue.clone(),
            key: key.clone(),
        };
        self.0.update(&dependent, old, new);
    }

    /// Requeues everything that refers to `reference`.
    pub(crate) fn requeue(&self, reference: &Reference) {
        for dependent in self.0.dependents(reference) {
            dependent.queue.add(dependent.key);
        }
    }
}
