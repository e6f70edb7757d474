//! Writes a pod's status. The newest status is written, never an older one after it, and failed writes are retried.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Context;
use super::runtime::PodKey;
use super::status::is_terminal;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The desired state of the pod in the API.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredPod {
    pub(crate) status: PodStatus,
    /// Whether the object is deleted after the status is written.
    pub(crate) remove: bool,
}

/// Writes one pod's status in a separate task.
pub(crate) struct StatusWriter {
    desired: watch::Sender<Option<DesiredPod>>,
    task: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl StatusWriter {
    pub(crate) fn spawn(ctx: &Arc<Context>, key: &PodKey) -> Self {
        let (desired, updates) = watch::channel(None);
        Self {
            desired,
            task: AbortOnDrop(tokio::spawn(work(Arc::clone(ctx), key.clone(), updates))),
        }
    }

    pub(crate) fn write(&self, desired: DesiredPod) {
        self.desired.send_replace(Some(desired));
    }

    /// Waits until the last desired state is written.
    pub(crate) async fn finish(mut self) {
        drop(self.desired);
        // The task has ended or was canceled with the tokio runtime. In both cases there is nothing to wait for.
        let _ = (&mut self.task.0).await;
    }
}

async fn work(ctx: Arc<Context>, key: PodKey, mut updates: watch::Receiver<Option<DesiredPod>>) {
    let mut written: Option<PodStatus> = None;
    while updates.changed().await.is_ok() {
        let mut delay = RETRY_FIRST;
        loop {
            ctx.reporting().await;
            let Some(desired) = updates.borrow_and_update().clone() else {
                break;
            };
            match write(&ctx, &key, &desired, &mut written).await {
                Ok(true) => break,
                // The pod no longer exists, so there is nothing to report.
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, namespace = key.namespace, pod = key.name, "pod status not written, trying again");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

async fn write(
    ctx: &Context,
    key: &PodKey,
    desired: &DesiredPod,
    written: &mut Option<PodStatus>,
) -> Result<bool, kube::Error> {
    if let Some(intermediate) = intermediate(&desired.status, written.as_ref())
        && !patch_status(ctx, key, &intermediate, written).await?
    {
        return Ok(false);
    }
    if !patch_status(ctx, key, &desired.status, written).await? {
        return Ok(false);
    }
    if desired.remove {
        return remove(ctx, key).await.map(|()| false);
    }
    Ok(true)
}

/// Returns the status that is written before a pod's last phase: the ends of its containers with the previous phase.
/// A kubelet delays the phase until it has cleaned up after the containers (its status manager's `mergePodStatus`).
/// Clients therefore see a pod that is `Running` without a running container.
fn intermediate(desired: &PodStatus, written: Option<&PodStatus>) -> Option<PodStatus> {
    let written = written?;
    let is_last = |status: &PodStatus| is_terminal(status.phase.as_deref().unwrap_or_default());
    let is_reported = written.container_statuses == desired.container_statuses
        && written.init_container_statuses == desired.init_container_statuses;
    (is_last(desired) && !is_last(written) && !is_reported).then(|| PodStatus {
        phase: written.phase.clone(),
        reason: written.reason.clone(),
        message: written.message.clone(),
        ..desired.clone()
    })
}

/// Writes a status unless it is already written. Returns false if the pod no longer exists.
async fn patch_status(
    ctx: &Context,
    key: &PodKey,
    status: &PodStatus,
    written: &mut Option<PodStatus>,
) -> Result<bool, kube::Error> {
    if written.as_ref() != Some(status) {
        let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &key.namespace);
        // With the uid, the server refuses the patch if a new pod has taken the name.
        let mut patch = serde_json::json!({"metadata": {"uid": key.uid}, "status": status});
        // Conditions are merged one by one, so conditions of other clients stay. A field that is no longer set must
        // therefore be removed by name.
        for condition in patch["status"]["conditions"].as_array_mut().into_iter().flatten() {
            for field in ["reason", "message"] {
                if condition.get(field).is_none() {
                    condition[field] = serde_json::Value::Null;
                }
            }
        }
        match api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
        {
            Ok(_) => *written = Some(status.clone()),
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Deletes a pod's object after its containers have ended.
pub(crate) async fn remove(ctx: &Context, key: &PodKey) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(key.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&key.name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns whether the pod is not found or another pod has its name.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}
