//! The pods of all runs, and which run each belongs to.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::{
    key::Key,
    quota::QuotaLines,
    reconcile::queue::Queue,
    releases::OtherReleases,
    watch::{
        cache::{Cache, Change, Entry},
        references::{Reference, ReverseIndex},
    },
};

/// A kind whose objects own pods.
pub(crate) struct Owner {
    /// Label of a pod that names its owner.
    pub(crate) label: &'static str,
    /// Where an owner is requeued when one of its pods changes. The queue knows the kind.
    pub(crate) queue: Arc<Queue>,
}

/// The pods of all runs.
pub(crate) struct Pods {
    pub(crate) cache: Arc<Cache<Pod>>,
    by_owner: Arc<ReverseIndex<Reference, Key>>,
}

impl Pods {
    /// Creates an empty cache. A change of a pod requeues its owner. A pod that ends makes room under the quotas.
    pub(crate) fn new(owners: Vec<Owner>, quotas: Arc<QuotaLines>, releases: OtherReleases) -> Self {
        let by_owner = Arc::new(ReverseIndex::default());
        let index = by_owner.clone();
        let on_change = move |change: &Change<Pod>| {
            let valid = |entry: &'_ Option<Entry<Pod>>| entry.as_ref().and_then(Entry::valid).cloned();
            let (old, new) = (valid(&change.old), valid(&change.new));
            let owner = |pod: &Option<Arc<Pod>>| pod.as_deref().and_then(|pod| owner_of(pod, &owners));
            let (was, is) = (owner(&old), owner(&new));
            if change.old.is_none()
                && let Some(pod) = &new
            {
                releases.see(pod);
            }
            let reference = |owner: &Option<(&Owner, Key)>| {
                owner.as_ref().map(|(owner, key)| Reference::Object {
                    kind: owner.queue.kind(),
                    key: key.clone(),
                })
            };
            let (left, joined) = (reference(&was), reference(&is));
            if left != joined {
                index.update(&change.key, &left, &joined);
            }
            for (owner, key) in was.into_iter().chain(is) {
                owner.queue.add(key);
            }
            let uses_quota = |pod: &Option<Arc<Pod>>| pod.as_deref().is_some_and(|pod| !has_ended(pod));
            if uses_quota(&old) && !uses_quota(&new) {
                quotas.freed(&change.key.namespace);
            }
        };
        Self {
            cache: Arc::new(Cache::new(Box::new(on_change))),
            by_owner,
        }
    }

    /// Returns the pods of an object, in the order of their names.
    pub(crate) fn of(&self, owner: &Reference) -> Vec<Arc<Pod>> {
        let keys = self.by_owner.dependents(owner);
        keys.iter().filter_map(|key| self.cache.get(key)).collect()
    }
}

/// Returns the object that a pod belongs to: by its owner reference, or by its label when it has none.
fn owner_of<'a>(pod: &Pod, owners: &'a [Owner]) -> Option<(&'a Owner, Key)> {
    let namespace = pod.metadata.namespace.as_deref()?;
    let references = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let by_reference = references.iter().find_map(|reference| {
        let owner = owners.iter().find(|owner| owner.queue.kind() == reference.kind)?;
        Some((owner, reference.name.as_str()))
    });
    let by_label = || {
        let labels = pod.metadata.labels.as_ref()?;
        owners
            .iter()
            .find_map(|owner| Some((owner, labels.get(owner.label)?.as_str())))
    };
    let (owner, name) = by_reference.or_else(by_label)?;
    Some((owner, Key::new(namespace, name)))
}

/// Returns whether the pod no longer counts against a quota.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::histogram::Histogram;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_owner_reference_counts_before_the_label() {
        let owner = |kind, label| Owner {
            label,
            queue: Arc::new(Queue::new(kind, Histogram::new([1.0]))),
        };
        let owners = [owner("Cake", "cake"), owner("Pie", "pie")];
        let found = |metadata: Value| {
            let pod = serde_json::from_value(json!({"metadata": metadata})).unwrap();
            owner_of(&pod, &owners).map(|(owner, key)| format!("{} {key}", owner.queue.kind()))
        };
        let reference = |kind| json!([{"apiVersion": "v1", "kind": kind, "name": "a", "uid": "u"}]);
        let labels = json!({"pie": "b"});
        let owned = json!({"namespace": "ns", "labels": labels, "ownerReferences": reference("Cake")});
        assert_eq!(found(owned).as_deref(), Some("Cake ns/a"));
        let foreign = json!({"namespace": "ns", "labels": labels, "ownerReferences": reference("Job")});
        assert_eq!(found(foreign).as_deref(), Some("Pie ns/b"));
        assert_eq!(found(json!({"namespace": "ns", "labels": {"tart": "c"}})), None);
    }
}
