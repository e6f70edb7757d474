//! What an attempt that has not ended is doing or waiting for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;
use legion_api::Reason;

use super::{
    containers::{Containers, terminated},
    volumes::field_of_volume,
};
use crate::{conditions::Explanation, plan::Need};

/// Seconds after scheduling until the events of a pod without mounted volumes are read.
const VOLUME_EVENTS_AFTER_SECONDS: i64 = 20;
/// Seconds between two reads of the events of a pod that waits for its volumes.
const MOUNT_POLL_SECONDS: i64 = 60;
/// Seconds after the end of a pod's grace period until its node counts as lost.
const NODE_LOST_AFTER_SECONDS: i64 = 60;

/// What an attempt is doing or waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(super) state: Explanation,
    /// `None` when no time is known.
    pub(super) since: Option<Timestamp>,
    /// The time at which the activity may change without any event.
    pub(super) until: Option<Timestamp>,
    /// Whether the pod waits for volumes. Only its events name them.
    unmounted: bool,
}

impl Activity {
    fn new(reason: Reason, message: impl Into<String>, since: Option<Timestamp>) -> Self {
        Self {
            state: Explanation::new(reason, message),
            since,
            until: None,
            unmounted: false,
        }
    }

    /// Adds the field of the claim that the message names. `claims` are the fields of the spec and their claims.
    fn with_claim_field(mut self, claims: &[(String, &str)]) -> Self {
        let named = |claim: &str| self.state.message.contains(&format!("{claim:?}"));
        if self.state.reason == Reason::VolumeNotMounted
            && let Some((field, _)) = claims.iter().find(|(_, claim)| named(claim))
        {
            self.state.message.insert_str(0, &format!("{field}: "));
        }
        self
    }

    /// Names the volumes that the attempt waits for. `mounts` are the answers to [`Need::Mounts`], by the pod's uid.
    ///
    /// # Errors
    /// The pod's events must be read first.
    pub(crate) fn with_volumes(
        self,
        containers: &Containers<'_>,
        claims: &[(String, &str)],
        mounts: &BTreeMap<String, Option<String>>,
    ) -> Result<Self, Need> {
        let activity = self.with_claim_field(claims);
        let Some(uid) = containers.pod.metadata.uid.as_ref().filter(|_| activity.unmounted) else {
            return Ok(activity);
        };
        match mounts.get(uid) {
            Some(Some(cause)) => Ok(activity.with_mount_error(containers.name(), cause, claims)),
            Some(None) => Ok(activity),
            None => Err(Need::Mounts {
                pod: containers.name().to_owned(),
                uid: uid.clone(),
            }),
        }
    }

    /// Replaces the message by the kubelet's message about a volume that it cannot mount.
    fn with_mount_error(mut self, pod: &str, cause: &str, claims: &[(String, &str)]) -> Self {
        // A claim's volume appears under the name of its PersistentVolume, which nothing else names: it is one of the
        // claims.
        let of_claims = || {
            let fields: Vec<&str> = claims.iter().map(|(field, _)| field.as_str()).collect();
            (cause.contains("for volume \"") && !fields.is_empty()).then(|| fields.join(" or "))
        };
        let field = cause.split('"').find_map(field_of_volume).or_else(of_claims);
        let field = field.map_or_else(String::new, |field| format!("{field}: "));
        self.state.message = format!("{field}a volume of pod {pod} cannot be mounted: {cause}");
        self
    }
}

/// Returns what an attempt that has not ended is doing.
///
/// `previous` is the reason and message of the condition: the kubelet gives the cause of a failed pull only every other
/// time. `image_field` is the field with the image of the main container.
pub(crate) fn activity(
    containers: &Containers<'_>,
    image_field: &str,
    previous: Option<(Reason, &str)>,
    now: Timestamp,
) -> Activity {
    let name = containers.name();
    if let Some(lost) = lost(containers, now) {
        return lost;
    }
    let mut activity = if let Some(since) = containers.main_started_at() {
        match containers.main.and_then(terminated) {
            Some(end) => Activity::new(
                Reason::Publishing,
                "the result is being checked, packed and stored",
                end.finished_at.as_ref().map(|at| at.0),
            ),
            None => Activity::new(
                containers.kind.running,
                format!("{} runs in pod {name}", containers.kind.code),
                Some(since),
            ),
        }
    } else if !containers.is_scheduled() {
        unscheduled(containers)
    } else if let Some(stuck) = containers
        .all()
        .find_map(|container| stuck(containers, container, image_field, previous))
    {
        stuck
    } else {
        starting(containers, now)
    };
    if containers.is_terminating() {
        // Reconcile again when its node counts as lost.
        activity.until = [activity.until, lost_at(containers)].into_iter().flatten().min();
    }
    activity
}

fn lost_at(containers: &Containers<'_>) -> Option<Timestamp> {
    // The deletion timestamp is the end of the grace period, not its beginning.
    let deadline = containers.pod.metadata.deletion_timestamp.as_ref()?.0.as_second();
    Timestamp::from_second(deadline.saturating_add(NODE_LOST_AFTER_SECONDS)).ok()
}

fn lost(containers: &Containers<'_>, now: Timestamp) -> Option<Activity> {
    let reported = containers.reason() == "NodeLost";
    let overdue = containers.is_scheduled() && lost_at(containers).is_some_and(|at| at <= now);
    (reported || overdue).then(|| {
        let node = containers
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or("unknown");
        let message = format!(
            "pod {} should have ended, but its node {node:?} has not reported it",
            containers.name()
        );
        Activity::new(Reason::NodeLost, message, lost_at(containers))
    })
}

fn unscheduled(containers: &Containers<'_>) -> Activity {
    let name = containers.name();
    let refused = containers
        .condition("PodScheduled")
        .filter(|condition| condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable"));
    let Some(condition) = refused else {
        return Activity::new(
            Reason::PodCreated,
            format!("pod {name} waits for a node"),
            containers.created_at(),
        );
    };
    let message = scheduler_causes(condition.message.as_deref().unwrap_or_default());
    let since = condition
        .last_transition_time
        .as_ref()
        .map(|at| at.0)
        .or_else(|| containers.created_at());
    // The scheduler also reports a missing claim.
    let reason = if message.to_ascii_lowercase().contains("persistentvolumeclaim") {
        Reason::VolumeNotMounted
    } else {
        Reason::Unschedulable
    };
    Activity::new(reason, format!("pod {name} cannot be scheduled: {message}"), since)
}

/// Returns the causes in the scheduler's message without the numbers of nodes. Those change with the cluster, not with
/// the cause: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had ... . preemption: ...`
fn scheduler_causes(message: &str) -> String {
    let causes = message
        .split_once("nodes are available: ")
        .map_or(message, |(_, causes)| causes);
    // After the causes the scheduler reports what preemption found. Some versions report only its error.
    let causes = causes.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let mut causes: Vec<&str> = causes
        .split(", ")
        .map(|cause| cause.trim_start_matches(|c: char| c.is_ascii_digit()).trim())
        .filter(|cause| !cause.is_empty())
        .collect();
    causes.sort_unstable();
    causes.dedup();
    if causes.is_empty() {
        "the scheduler gives no cause".to_owned()
    } else {
        causes.join(", ")
    }
}

fn stuck(
    containers: &Containers<'_>,
    container: &ContainerStatus,
    image_field: &str,
    previous: Option<(Reason, &str)>,
) -> Option<Activity> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let detail = waiting.message.as_deref().unwrap_or_default();
    let name = &container.name;
    match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            // The images of the other containers are settings of the operator.
            let field = if name == containers.kind.container {
                format!("{image_field}: ")
            } else {
                String::new()
            };
            let head = format!(
                "{field}image {:?} of container {name:?} cannot be pulled",
                container.image
            );
            let cause = pull_cause(detail);
            if cause.is_empty() {
                if let Some((Reason::ImageNotPulled, before)) = previous.filter(|(_, before)| before.starts_with(&head))
                {
                    return Some(Activity::new(Reason::ImageNotPulled, before, None));
                }
                return Some(Activity::new(Reason::ImageNotPulled, head, None));
            }
            Some(Activity::new(Reason::ImageNotPulled, format!("{head}: {cause}"), None))
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => Some(Activity::new(
            Reason::ContainerNotCreated,
            format!("container {name:?} cannot be created: {detail}"),
            None,
        )),
        _ => None,
    }
}

/// Returns the cause in a kubelet's message about a failed pull. It is empty when the message only reports a back-off.
fn pull_cause(detail: &str) -> &str {
    let mut rest = detail;
    if let Some(after) = rest.strip_prefix("Back-off pulling image ") {
        rest = after.split_once(": ").map_or("", |(_, cause)| cause);
    }
    rest.strip_prefix("ErrImagePull: ").unwrap_or(rest).trim()
}

fn starting(containers: &Containers<'_>, now: Timestamp) -> Activity {
    let name = containers.name();
    let scheduled = containers.scheduled_at();
    let running = |container: Option<&ContainerStatus>| {
        container.and_then(|container| {
            container
                .state
                .as_ref()?
                .running
                .as_ref()?
                .started_at
                .as_ref()
                .map(|at| at.0)
        })
    };
    if let Some(since) = running(containers.fetch) {
        return Activity::new(
            Reason::Fetching,
            format!("source and data are being fetched in pod {name}"),
            Some(since),
        );
    }
    // The kubelet mounts volumes before it creates the pod's sandbox. The status does not name a missing volume.
    let sandbox = containers
        .condition("PodReadyToStartContainers")
        .filter(|condition| condition.status == "False");
    let patience = scheduled
        .and_then(|at| Timestamp::from_second(at.as_second().saturating_add(VOLUME_EVENTS_AFTER_SECONDS)).ok());
    if sandbox.is_some() && patience.is_some_and(|patience| patience <= now) {
        let message = format!("the volumes or the network of pod {name} are not ready");
        let mut activity = Activity::new(Reason::VolumeNotMounted, message, scheduled);
        activity.until = Timestamp::from_second(now.as_second().saturating_add(MOUNT_POLL_SECONDS)).ok();
        activity.unmounted = true;
        return activity;
    }
    let mut activity = Activity::new(
        Reason::Starting,
        format!("pod {name} is starting on its node"),
        scheduled,
    );
    activity.until = patience.filter(|_| sandbox.is_some());
    activity
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}. preemption: 0/3 nodes are available: 3 No preemption victims found.",
        "Insufficient cpu, node(s) had untolerated taint {a: b}"
    )]
    #[case(
        "0/5 nodes are available: 2 Insufficient cpu, 3 Insufficient cpu.",
        "Insufficient cpu"
    )]
    #[case(
        "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
        "pod has unbound immediate PersistentVolumeClaims"
    )]
    #[case("persistentvolumeclaim \"x\" not found", "persistentvolumeclaim \"x\" not found")]
    #[case("", "the scheduler gives no cause")]
    fn counts_are_left_out(#[case] message: &str, #[case] shown: &str) {
        assert_eq!(scheduler_causes(message), shown);
    }

    #[rstest]
    #[case("Back-off pulling image \"a:1\"", "")]
    #[case("Back-off pulling image \"a:1\": ErrImagePull: not found: a:1", "not found: a:1")]
    #[case("not found: a:1", "not found: a:1")]
    fn the_cause_of_a_failed_pull_is_found(#[case] message: &str, #[case] cause: &str) {
        assert_eq!(pull_cause(message), cause);
    }
}
