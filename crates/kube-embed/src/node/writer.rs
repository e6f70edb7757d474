//! Writes a pod's status: always the newest one, never an older one after it, and again until it is written.

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

/// What is to be true of the pod in the API.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    pub(crate) status: PodStatus,
    /// Whether the object is to be removed once the status is written.
    pub(crate) remove: bool,
}

/// Writes one pod's status in a task of its own.
pub(crate) struct StatusWriter {
    goal: watch::Sender<Option<Goal>>,
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
        let (goal, goals) = watch::channel(None);
        Self {
            goal,
            task: AbortOnDrop(tokio::spawn(work(Arc::clone(ctx), key.clone(), goals))),
        }
    }

    pub(crate) fn write(&self, goal: Goal) {
        self.goal.send_replace(Some(goal));
    }

    /// Waits until the last goal is reached.
    pub(crate) async fn finish(mut self) {
        drop(self.goal);
        // The task ends by itself, or was cancelled with the runtime; either way nothing is left to wait for.
        let _ = (&mut self.task.0).await;
    }
}

async fn work(ctx: Arc<Context>, key: PodKey, mut goals: watch::Receiver<Option<Goal>>) {
    let mut written: Option<PodStatus> = None;
    while goals.changed().await.is_ok() {
        let mut delay = RETRY_FIRST;
        loop {
            ctx.reporting().await;
            let Some(goal) = goals.borrow_and_update().clone() else {
                break;
            };
            match reach(&ctx, &key, &goal, &mut written).await {
                Ok(true) => break,
                // The pod is gone: nothing is left to report on.
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

async fn reach(ctx: &Context, key: &PodKey, goal: &Goal, written: &mut Option<PodStatus>) -> Result<bool, kube::Error> {
    if let Some(held) = held(&goal.status, written.as_ref())
        && !put(ctx, key, &held, written).await?
    {
        return Ok(false);
    }
    if !put(ctx, key, &goal.status, written).await? {
        return Ok(false);
    }
    if goal.remove {
        return remove(ctx, key).await.map(|()| false);
    }
    Ok(true)
}

/// What is told before a pod's last phase: the ends of its containers, with the phase that it had. A kubelet holds the phase
/// back until it has cleaned up behind the containers (its status manager's `mergePodStatus`), so that everybody sees a pod
/// that is `Running` and of which nothing runs.
fn held(goal: &PodStatus, written: Option<&PodStatus>) -> Option<PodStatus> {
    let written = written?;
    let is_last = |status: &PodStatus| is_terminal(status.phase.as_deref().unwrap_or_default());
    let told = written.container_statuses == goal.container_statuses
        && written.init_container_statuses == goal.init_container_statuses;
    (is_last(goal) && !is_last(written) && !told).then(|| PodStatus {
        phase: written.phase.clone(),
        reason: written.reason.clone(),
        message: written.message.clone(),
        ..goal.clone()
    })
}

/// Writes a status that is not written yet. False when the pod is gone.
async fn put(
    ctx: &Context,
    key: &PodKey,
    status: &PodStatus,
    written: &mut Option<PodStatus>,
) -> Result<bool, kube::Error> {
    if written.as_ref() != Some(status) {
        let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &key.namespace);
        // The uid makes the server refuse the patch if a new pod has taken the name.
        let mut patch = serde_json::json!({"metadata": {"uid": key.uid}, "status": status});
        // Conditions are merged one by one, so that those of others stay; what a condition no longer says must then be
        // taken out by name.
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

/// Removes a pod's object after its containers have ended.
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

/// Not found, or another pod of that name.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}
