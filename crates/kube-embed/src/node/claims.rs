//! The volume provisioner: every PersistentVolumeClaim becomes a directory on the node.
//!
//! One machine has no StorageClasses and no PersistentVolumes to choose from. Every claim is therefore bound
//! immediately, with the capacity that it requests. The capacity is not enforced.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};

use super::Context;
use super::events::{EventType, InvolvedObject};

/// Binds claims until cancelled.
pub(crate) async fn run(ctx: Arc<Context>) {
    let api = Api::<PersistentVolumeClaim>::all(ctx.client.clone());
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(claim) | Event::InitApply(claim)) => bind(&ctx, &claim).await,
            Ok(Event::Delete(claim)) => {
                if let Some(uid) = claim.uid() {
                    ctx.runtime.release(&uid).await;
                }
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::debug!(%error, "claim watch interrupted"),
        }
    }
}

async fn bind(ctx: &Context, claim: &PersistentVolumeClaim) {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let (Some(uid), false) = (
        claim.uid(),
        phase == Some("Bound") || claim.metadata.deletion_timestamp.is_some(),
    ) else {
        return;
    };
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let about = InvolvedObject::claim(&namespace, &name, &uid);
    let record = |kind, reason: &str, message| ctx.recorder.record("provisioner", about.clone(), kind, reason, message);
    if let Err(message) = ctx.runtime.provision(&uid).await {
        record(EventType::Warning, "ProvisioningFailed", message);
        return;
    }
    let spec = claim.spec.clone().unwrap_or_default();
    let capacity: BTreeMap<_, _> = spec.resources.and_then(|r| r.requests).unwrap_or_default();
    let volume = format!("pvc-{uid}");
    let patch = serde_json::json!({"metadata": {"uid": uid}, "status": {
        "phase": "Bound", "accessModes": spec.access_modes.unwrap_or_default(), "capacity": capacity,
    }});
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &namespace);
    let spec = serde_json::json!({"metadata": {"uid": uid}, "spec": {"volumeName": volume}});
    let written = async {
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&spec)).await?;
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
    };
    match written.await {
        Ok(_) => record(
            EventType::Normal,
            "ProvisioningSucceeded",
            format!("Successfully provisioned volume {volume}"),
        ),
        // The claim may have been deleted. Any other error is visible as a pod that waits for its claim.
        Err(error) => tracing::warn!(%error, namespace, claim = name, "claim not bound"),
    }
}
