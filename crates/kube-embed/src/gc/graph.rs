//! The last known graph of owners and dependents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject};

/// The finalizers that this collector handles before an object is deleted.
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

/// The known metadata of an object.
#[derive(Clone, Debug)]
pub(super) struct GraphNode {
    pub(super) reference: ObjectReference,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

impl GraphNode {
    /// Returns whether the object waits for the deletion of its dependents.
    pub(super) fn is_foreground(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == FOREGROUND)
    }

    /// Returns whether the object waits for its dependents to be orphaned.
    pub(super) fn is_orphaning(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == ORPHAN)
    }
}

/// An object that left the graph, with the uids of affected objects.
pub(super) struct RemovedNode {
    pub(super) reference: ObjectReference,
    pub(super) affected: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: BTreeMap<String, GraphNode>,
    /// Dependents by the owner's uid. An owner may be unknown.
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Inserts or updates an object. Returns the affected owners.
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
        // An owner that waits for this dependent may now be free to go.
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

    /// Removes an object.
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

    /// Returns the known dependents of an object.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &GraphNode> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|dependent| self.objects.get(dependent))
    }

    /// Returns whether the collector may have work for an object.
    pub(super) fn needs_attention(&self, uid: &str) -> bool {
        self.get(uid)
            .is_some_and(|e| !e.deleting && !e.owners.is_empty() || e.is_foreground() || e.is_orphaning())
    }
}
