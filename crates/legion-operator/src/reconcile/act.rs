//! Carries out the actions of a plan in order. Stops at the first one that does not succeed.

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource as _, ResourceExt as _};
use legion_plan::{Action, Outcome, StepResult, training::labels};
use legion_runtime::retry::ErrorClass;

use crate::{
    context::Context,
    key::Key,
    reconcile::controller::{Managed, RunHooks},
    requests::{Deletion, RequestError},
};

/// The results of a plan's actions.
#[derive(Debug, Default)]
pub(crate) struct Acted {
    /// What the planner needs to know.
    pub(crate) outcome: Outcome,
    /// The error at which the actions stopped, when a retry may succeed.
    pub(crate) stopped: Option<RequestError>,
    /// A pod of ours that existed already and that no watch shows, because it has lost its label.
    pub(crate) unwatched: Option<Box<Pod>>,
}

/// Carries out the actions.
pub(crate) async fn act<C: RunHooks>(
    context: &Context,
    kind: &Managed<C>,
    key: &Key,
    world: &C::World,
    actions: &[Action],
) -> Acted {
    let mut acted = Acted::default();
    for action in actions {
        let result = match action {
            Action::CreatePod { pod, only_at } => {
                create(
                    context,
                    kind,
                    key,
                    world,
                    (pod, only_at.as_deref()),
                    &mut acted.unwatched,
                )
                .await
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

/// Creates a pod: with a version, only while the owner has that resourceVersion.
async fn create<C: RunHooks>(
    context: &Context,
    kind: &Managed<C>,
    key: &Key,
    world: &C::World,
    (pod, only_at): (&Pod, Option<&str>),
    unwatched: &mut Option<Box<Pod>>,
) -> Result<StepResult, RequestError> {
    if let Some(version) = only_at {
        match context.requests.get::<C::Object>(key).await? {
            Some(live) if live.meta().resource_version.as_deref() == Some(version) => {}
            Some(live) => {
                kind.store.cache.overwrite(live);
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
            context.quotas.created(kind.store.queue.kind(), key);
            context.pods.cache.apply_response(created);
            return Ok(StepResult::Created);
        }
        Err(error) => error,
    };
    match error.class {
        ErrorClass::AlreadyExists => {
            let Some(found) = context.requests.get::<Pod>(&pod_key).await? else {
                return Ok(StepResult::NotYet);
            };
            let result = kind.controller.classify_existing(world, pod, &found);
            if matches!(result, StepResult::Created | StepResult::NotYet) {
                // Without the label the watch would never report its deletion. So it must not enter the cache.
                if found.labels().contains_key(labels::RUN) {
                    context.pods.cache.apply_response(found);
                } else {
                    *unwatched = Some(Box::new(found));
                }
            }
            Ok(result)
        }
        ErrorClass::Forbidden | ErrorClass::Invalid | ErrorClass::Gone => {
            context.quotas.refused(kind.store.queue.kind(), key);
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
            // It exists until the node has ended it.
            if let Some(pod) = pod {
                context.pods.cache.apply_response(*pod);
            }
            Ok(StepResult::Deleted)
        }
        Ok(Deletion::NotFound) => {
            context.pods.cache.remove_uid(&pod_key, Some(uid));
            Ok(StepResult::Deleted)
        }
        Err(error) if matches!(error.class, ErrorClass::Forbidden | ErrorClass::Invalid) => {
            tracing::warn!(pod = %pod_key, %error, "the pod cannot be deleted");
            Ok(StepResult::Refused(error.answer()))
        }
        Err(error) => Err(error),
    }
}
