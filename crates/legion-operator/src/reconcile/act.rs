//! Carries out the actions of a plan, in their order, up to the first that does not go through.

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource as _, ResourceExt as _};
use legion_plan::{Action, Outcome, StepResult, training::labels};
use legion_runtime::retry::ErrorClass;

use crate::{
    context::Context,
    key::Key,
    reconcile::controller::Controller,
    requests::{Deletion, RequestError},
};

/// What became of the actions of a plan.
#[derive(Debug, Default)]
pub(crate) struct Acted {
    /// As the planner is told.
    pub(crate) outcome: Outcome,
    /// The error that passes by itself at which the actions stopped, if one did.
    pub(crate) stopped: Option<RequestError>,
    /// A pod of ours that was there already and that no watch shows: its label was taken away.
    pub(crate) unseen: Option<Box<Pod>>,
}

/// Carries out the actions.
pub(crate) async fn act<K: Controller>(context: &Context, key: &Key, world: &K::World, actions: &[Action]) -> Acted {
    let mut acted = Acted::default();
    for action in actions {
        let result = match action {
            Action::CreatePod { pod, only_at } => {
                create::<K>(context, key, world, pod, only_at.as_deref(), &mut acted.unseen).await
            }
            Action::DeletePod { name, uid, why } => delete(context, key, name, uid, why).await,
        };
        match result {
            Ok(result) => {
                let goes_on = matches!(result, StepResult::Created | StepResult::Deleted);
                acted.outcome.results.push(result);
                if !goes_on {
                    break;
                }
            }
            Err(error) => {
                acted.stopped = Some(error);
                break;
            }
        }
    }
    acted
}

async fn create<K: Controller>(
    context: &Context,
    key: &Key,
    world: &K::World,
    pod: &Pod,
    only_at: Option<&str>,
    unseen: &mut Option<Box<Pod>>,
) -> Result<StepResult, RequestError> {
    if let Some(version) = only_at {
        match context.requests.get::<K::Object>(key).await? {
            Some(live) if live.meta().resource_version.as_deref() == Some(version) => {}
            Some(live) => {
                K::cache(context).overwrite(live);
                return Ok(StepResult::NotYet);
            }
            None => return Ok(StepResult::NotYet),
        }
    }
    let pod_key = Key::of(&pod.metadata);
    let error = match context.requests.create(pod).await {
        Ok(created) => {
            tracing::info!(pod = %pod_key, "created the pod");
            context.metrics.pods_created.inc();
            context.pods.apply_response(created);
            return Ok(StepResult::Created);
        }
        Err(error) => error,
    };
    match error.class {
        ErrorClass::AlreadyExists => {
            let Some(found) = context.requests.get::<Pod>(&pod_key).await? else {
                return Ok(StepResult::NotYet);
            };
            let judged = K::judge(world, pod, &found);
            if matches!(judged, StepResult::Created | StepResult::NotYet) {
                // Without its label the watch would never tell its end: it must not enter the cache.
                if found.labels().contains_key(labels::TRAINING) {
                    context.pods.apply_response(found);
                } else {
                    *unseen = Some(Box::new(found));
                }
            }
            Ok(judged)
        }
        ErrorClass::Forbidden | ErrorClass::Invalid | ErrorClass::Gone => {
            tracing::warn!(pod = %pod_key, %error, "the pod is refused");
            Ok(StepResult::Refused(error.answer()))
        }
        ErrorClass::Transient | ErrorClass::Throttled(_) | ErrorClass::Conflict | ErrorClass::Bug => Err(error),
    }
}

async fn delete(context: &Context, key: &Key, name: &str, uid: &str, why: &str) -> Result<StepResult, RequestError> {
    let pod_key = key.sibling(name);
    match context.requests.delete::<Pod>(&pod_key, uid).await {
        Ok(Deletion::Begun(pod)) => {
            tracing::info!(pod = %pod_key, why, "deleted the pod");
            context.metrics.pods_deleted.inc();
            // Until the node has ended it, it is still there.
            if let Some(pod) = pod {
                context.pods.apply_response(*pod);
            }
            Ok(StepResult::Deleted)
        }
        Ok(Deletion::WasGone) => {
            context.pods.remove_uid(&pod_key, Some(uid));
            Ok(StepResult::Deleted)
        }
        Err(error) if matches!(error.class, ErrorClass::Forbidden | ErrorClass::Invalid) => {
            tracing::warn!(pod = %pod_key, %error, "the pod cannot be deleted");
            Ok(StepResult::Refused(error.answer()))
        }
        Err(error) => Err(error),
    }
}
