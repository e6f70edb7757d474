//! The decision about one object, by the rules of Kubernetes' garbage collector.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PropagationPolicy};

use super::graph::{FOREGROUND, GraphNode, ORPHAN, ObjectReference};
use super::{Collector, WorkItem};

/// The state of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerState {
    /// It exists.
    Solid,
    /// It does not exist, or never existed.
    Dangling,
    /// It is being deleted and waits for its dependents.
    WaitingForDependents,
}

impl Collector {
    /// Processes an object: its owners' state, or its own deletion.
    pub(super) async fn process_object(&mut self, uid: &str) -> Result<(), kube::Error> {
        let Some(entry) = self.graph.get(uid).cloned() else {
            return Ok(());
        };
        if entry.is_orphaning() {
            return self.orphan(&entry).await;
        }
        if entry.is_foreground() {
            return self.foreground(&entry).await;
        }
        if entry.deleting || entry.owners.is_empty() {
            return Ok(());
        }
        // The decision uses the live object, because the graph may be out of date.
        let api = entry.reference.api(&self.client);
        let Some(live) = api.get_opt(&entry.reference.name).await? else {
            return Ok(());
        };
        if live.metadata.uid.as_deref() != Some(uid) || live.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let owners = live.metadata.owner_references.clone().unwrap_or_default();
        let mut states = Vec::new();
        for owner in &owners {
            states.push(self.owner_state(&entry, owner).await?);
        }
        let has = |state| states.contains(&state);
        if owners.is_empty() || !has(OwnerState::Dangling) && !has(OwnerState::WaitingForDependents) {
            return Ok(());
        }
        if has(OwnerState::Solid) {
            let keep: Vec<_> = owners
                .iter()
                .zip(&states)
                .filter(|(_, s)| **s == OwnerState::Solid)
                .map(|(o, _)| o.clone())
                .collect();
            return set_owners(&self.client, &entry.reference, &live, &keep).await;
        }
        let dependents = self.graph.dependents(uid).count();
        let finalizers = live.metadata.finalizers.clone().unwrap_or_default();
        let policy = if finalizers.iter().any(|f| f == ORPHAN) {
            PropagationPolicy::Orphan
        } else if finalizers.iter().any(|f| f == FOREGROUND) || has(OwnerState::WaitingForDependents) && dependents > 0
        {
            // Its own dependents are deleted first, so that the owner waits for all of them.
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        entry.reference.delete(&self.client, Some(policy)).await
    }

    /// Returns an owner's state, from the graph if it is known there, otherwise from the API.
    async fn owner_state(&self, dependent: &GraphNode, owner: &OwnerReference) -> Result<OwnerState, kube::Error> {
        if let Some(known) = self.graph.get(&owner.uid) {
            // An owner in another namespace is not an owner.
            let reachable =
                known.reference.namespace.is_none() || known.reference.namespace == dependent.reference.namespace;
            return Ok(match (reachable, known.is_foreground()) {
                (false, _) => OwnerState::Dangling,
                (true, true) if owner.block_owner_deletion == Some(true) => OwnerState::WaitingForDependents,
                (true, _) => OwnerState::Solid,
            });
        }
        let (group, version) = owner.api_version.rsplit_once('/').unwrap_or(("", &owner.api_version));
        let gvk = GroupVersionKind::gvk(group, version, &owner.kind);
        let Some((resource, namespaced)) = self.resource(&gvk).await? else {
            return Ok(OwnerState::Dangling);
        };
        let api: Api<DynamicObject> = match (&dependent.reference.namespace, namespaced) {
            (Some(namespace), true) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            (None, true) => return Ok(OwnerState::Dangling),
            (_, false) => Api::all_with(self.client.clone(), &resource),
        };
        let found = api.get_opt(&owner.name).await?;
        let same = found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&owner.uid));
        Ok(if same { OwnerState::Solid } else { OwnerState::Dangling })
    }

    async fn resource(&self, gvk: &GroupVersionKind) -> Result<Option<(ApiResource, bool)>, kube::Error> {
        match kube::discovery::pinned_kind(&self.client, gvk).await {
            Ok((resource, capabilities)) => Ok(Some((
                resource,
                capabilities.scope == kube::discovery::Scope::Namespaced,
            ))),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Handles an owner that is deleted after its dependents.
    async fn foreground(&mut self, entry: &GraphNode) -> Result<(), kube::Error> {
        let uid = &entry.reference.uid;
        let blocks = |dependent: &GraphNode| {
            dependent
                .owners
                .iter()
                .any(|owner| owner.uid == *uid && owner.block_owner_deletion == Some(true))
        };
        let dependents: Vec<_> = self.graph.dependents(uid).cloned().collect();
        let blocking = dependents.iter().any(blocks);
        for dependent in dependents.iter().filter(|d| !d.deleting) {
            self.enqueue(WorkItem::Object(dependent.reference.uid.clone()));
        }
        if blocking {
            Ok(())
        } else {
            remove_finalizer(&self.client, &entry.reference, FOREGROUND).await
        }
    }

    /// Handles an owner that orphans its dependents.
    async fn orphan(&mut self, entry: &GraphNode) -> Result<(), kube::Error> {
        let uid = &entry.reference.uid;
        for dependent in self.graph.dependents(uid).cloned().collect::<Vec<_>>() {
            let api = dependent.reference.api(&self.client);
            let Some(live) = api.get_opt(&dependent.reference.name).await? else {
                continue;
            };
            if live.metadata.uid.as_ref() != Some(&dependent.reference.uid) {
                continue;
            }
            let owners = live.metadata.owner_references.clone().unwrap_or_default();
            let keep: Vec<_> = owners.iter().filter(|owner| owner.uid != *uid).cloned().collect();
            if keep.len() != owners.len() {
                set_owners(&self.client, &dependent.reference, &live, &keep).await?;
            }
        }
        remove_finalizer(&self.client, &entry.reference, ORPHAN).await
    }
}

async fn set_owners(
    client: &Client,
    reference: &ObjectReference,
    live: &DynamicObject,
    keep: &[OwnerReference],
) -> Result<(), kube::Error> {
    // The resourceVersion makes the patch fail if another client has changed the owners in the meantime.
    let patch = serde_json::json!({"metadata": {
        "uid": reference.uid, "resourceVersion": live.metadata.resource_version,
        "ownerReferences": if keep.is_empty() { serde_json::Value::Null } else { serde_json::json!(keep) },
    }});
    ignore_not_found(
        reference
            .api(client)
            .patch(&reference.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await,
    )
}

async fn remove_finalizer(client: &Client, reference: &ObjectReference, finalizer: &str) -> Result<(), kube::Error> {
    let api = reference.api(client);
    let Some(live) = api.get_opt(&reference.name).await? else {
        return Ok(());
    };
    let finalizers = live.metadata.finalizers.clone().unwrap_or_default();
    if live.metadata.uid.as_ref() != Some(&reference.uid) || !finalizers.iter().any(|f| f == finalizer) {
        return Ok(());
    }
    let keep: Vec<_> = finalizers.into_iter().filter(|f| f != finalizer).collect();
    let patch = serde_json::json!({"metadata": {
        "uid": reference.uid, "resourceVersion": live.metadata.resource_version, "finalizers": keep,
    }});
    ignore_not_found(
        api.patch(&reference.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await,
    )
}

fn ignore_not_found(result: Result<DynamicObject, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
