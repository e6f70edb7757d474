//! Who must look again when something else changes.
//!
//! Indexes, so that a change costs what it concerns and not what exists: a cluster's ConfigMaps change all the time.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use legion_api::{ModelTraining, Reason, condition};
use legion_plan::training::{config_map_name, connection_names, labels};

use crate::key::Key;

/// Something that trainings refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reference {
    /// A toolchain.
    Toolchain(Key),
    /// A connection.
    Connection(Key),
    /// A ConfigMap that holds a source.
    ConfigMap(Key),
    /// The default output of a namespace; the name of the key is empty.
    DefaultOutput(Key),
    /// Room under the quotas of a namespace; the name of the key is empty.
    Quota(Key),
}

impl Reference {
    /// The default output of the namespace of that object.
    #[must_use]
    pub(crate) fn default_output_of(object: &Key) -> Self {
        Self::DefaultOutput(object.sibling(""))
    }

    /// Room under the quotas of the namespace of that object.
    #[must_use]
    pub(crate) fn quota_of(object: &Key) -> Self {
        Self::Quota(object.sibling(""))
    }
}

/// What a training refers to.
#[must_use]
pub(crate) fn references(key: &Key, training: &ModelTraining, platform_namespace: &str) -> BTreeSet<Reference> {
    let toolchain = training.spec.toolchain.as_str();
    let mut all: BTreeSet<Reference> = connection_names(training)
        .map(|name| Reference::Connection(key.sibling(name)))
        .collect();
    all.insert(Reference::Toolchain(key.sibling(toolchain)));
    all.insert(Reference::Toolchain(Key::new(platform_namespace, toolchain)));
    if let Some(name) = config_map_name(training) {
        all.insert(Reference::ConfigMap(key.sibling(name)));
    }
    if training.spec.output.is_none() {
        all.insert(Reference::default_output_of(key));
    }
    if waits_for_quota(training) {
        all.insert(Reference::quota_of(key));
    }
    all
}

fn waits_for_quota(training: &ModelTraining) -> bool {
    let conditions = training.status.as_ref().map_or(&[][..], |status| &status.conditions);
    condition::find(conditions, condition::SUCCEEDED)
        .is_some_and(|condition| condition.reason == Reason::QuotaExceeded.as_str())
}

/// The training that a pod belongs to, by its owner; by its label where it has none.
#[must_use]
pub(crate) fn training_of(pod: &Pod) -> Option<Key> {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners
        .iter()
        .find(|owner| owner.kind == "ModelTraining")
        .map(|owner| owner.name.as_str());
    let label = || pod.metadata.labels.as_ref()?.get(labels::TRAINING).map(String::as_str);
    Some(Key::new(pod.metadata.namespace.as_deref()?, owner.or_else(label)?))
}

/// A relation between keys that is asked in one direction and changed in the other.
#[derive(Debug)]
pub(crate) struct ReverseIndex<From, To>(Mutex<HashMap<From, BTreeSet<To>>>);

impl<From, To> Default for ReverseIndex<From, To> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<From: Hash + Eq + Clone, To: Ord + Clone> ReverseIndex<From, To> {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<From, BTreeSet<To>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `to` is no longer related to `old`, but to `new`.
    pub(crate) fn update<'a>(
        &self,
        to: &To,
        old: impl IntoIterator<Item = &'a From>,
        new: impl IntoIterator<Item = &'a From>,
    ) where
        From: 'a,
    {
        let mut index = self.lock();
        for from in old {
            if let Some(related) = index.get_mut(from) {
                related.remove(to);
                if related.is_empty() {
                    index.remove(from);
                }
            }
        }
        for from in new {
            index.entry(from.clone()).or_default().insert(to.clone());
        }
    }

    /// Everything related to `from`, in order.
    #[must_use]
    pub(crate) fn dependents(&self, from: &From) -> Vec<To> {
        self.lock()
            .get(from)
            .map(|related| related.iter().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_follows_changes_and_forgets_what_nobody_refers_to() {
        let index = ReverseIndex::<&str, &str>::default();
        index.update(&"t1", [], [&"a", &"b"]);
        index.update(&"t2", [], [&"b"]);
        assert_eq!(index.dependents(&"b"), ["t1", "t2"]);
        index.update(&"t1", [&"a", &"b"], [&"c"]);
        assert_eq!(
            (index.dependents(&"a"), index.dependents(&"b"), index.dependents(&"c")),
            (vec![], vec!["t2"], vec!["t1"])
        );
        index.update(&"t2", [&"b"], []);
        assert_eq!(index.lock().len(), 1);
    }
}
