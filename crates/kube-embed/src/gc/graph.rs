//! Who owns whom, as last seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject};

/// The finalizers that ask this collector to do something first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// An object's identity.
#[derive(Clone, Debug)]
pub(super) struct ObjectReference {
    pub(super) resource: Arc<ApiResource>,
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) uid: String,
}

impl ObjectReference {
    pub(super) fn of(resource: &Arc<ApiResource>, object: &DynamicObject) -> Self {
        Self {
            resource: Arc::clone(resource),
            kind: resource.kind.clone(),
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone().unwrap_or_default(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
        }
    }

    pub(super) fn group(&self) -> &str {
        &self.resource.group
    }
}

/// What is known of an object.
#[derive(Clone, Debug)]
pub(super) struct GraphNode {
    pub(super) reference: ObjectReference,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

impl GraphNode {
    /// Whether it waits for its dependents to be deleted.
    pub(super) fn is_foreground(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == FOREGROUND)
    }

    /// Whether it waits for its dependents to be orphaned.
    pub(super) fn is_orphaning(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == ORPHAN)
    }
}

/// An object that left the graph, and who is concerned.
pub(super) struct RemovedNode {
    pub(super) reference: ObjectReference,
    pub(super) affected: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: BTreeMap<String, GraphNode>,
    /// Dependents by the owner's uid; owners may be unknown.
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Takes in an object as it is now. Returns the owners that this may concern.
    pub(super) fn apply(&mut self, reference: ObjectReference, metadata: &ObjectMeta) -> Vec<String> {
        let uid = reference.uid.clone();
        let owners = metadata.owner_references.clone().unwrap_or_default();
        let before = self
            .objects
            .get(&uid)
            .map(|entry| entry.owners.clone())
            .unwrap_or_default();
        for owner in &before {
            self.unlink(&owner.uid, &uid);
        }
        for owner in &owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        // An owner that waits for this dependent may wait no longer.
        let affected = before
            .iter()
            .map(|o| o.uid.clone())
            .filter(|o| self.get(o).is_some_and(GraphNode::is_foreground));
        let affected = affected.collect();
        let entry = GraphNode {
            reference,
            owners,
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        };
        self.objects.insert(uid, entry);
        affected
    }

    /// Forgets an object.
    pub(super) fn remove(&mut self, uid: &str) -> Option<RemovedNode> {
        let entry = self.objects.remove(uid)?;
        let mut affected: Vec<_> = self.dependents(uid).map(|e| e.reference.uid.clone()).collect();
        for owner in &entry.owners {
            self.unlink(&owner.uid, uid);
            if self.get(&owner.uid).is_some_and(GraphNode::is_foreground) {
                affected.push(owner.uid.clone());
            }
        }
        Some(RemovedNode {
            reference: entry.reference,
            affected,
        })
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<&GraphNode> {
        self.objects.get(uid)
    }

    /// Known dependents of an object.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &GraphNode> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|dependent| self.objects.get(dependent))
    }

    /// Whether an object as it is may be something for the collector.
    pub(super) fn needs_attention(&self, uid: &str) -> bool {
        self.get(uid)
            .is_some_and(|e| !e.deleting && !e.owners.is_empty() || e.is_foreground() || e.is_orphaning())
    }
}
