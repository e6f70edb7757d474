//! What an attempt that has not ended is doing, or waits for.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;
use legion_api::Reason;

use super::containers::{Containers, terminated};
use crate::{conditions::State, training::inputs::Inputs};

/// How long after a pod was given to its node its volumes may take before it is worth a look at its events.
const VOLUME_PATIENCE_SECONDS: i64 = 20;
/// How often the events of a pod that waits for its volumes are looked at.
const MOUNT_POLL_SECONDS: i64 = 60;
/// How long after the end of its grace period a pod may still be there before its node counts as lost.
const LOST_PATIENCE_SECONDS: i64 = 60;

/// What an attempt is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doing {
    pub state: State,
    /// Since when; absent when nobody has said.
    pub since: Option<Timestamp>,
    /// When it may turn into something else by the mere passing of time.
    pub until: Option<Timestamp>,
    /// Whether it waits for volumes, and only its events say for which.
    pub unmounted: bool,
}

impl Doing {
    fn new(reason: Reason, message: impl Into<String>, since: Option<Timestamp>) -> Self {
        Self {
            state: State::new(reason, message),
            since,
            until: None,
            unmounted: false,
        }
    }

    /// The same with the kubelet's word about a volume that it cannot mount.
    pub(crate) fn explained(mut self, pod: &str, word: &str, inputs: Option<&Inputs>) -> Self {
        // A claim's volume goes by its PersistentVolume's name there, which nothing else tells: it is one of the claims.
        let of_claims = || {
            let claims = inputs.filter(|_| word.contains("for volume \""))?.claims();
            let fields: Vec<String> = claims.map(|(field, _)| field).collect();
            (!fields.is_empty()).then(|| fields.join(" or "))
        };
        let field = word
            .split('"')
            .find_map(super::volumes::field_of_volume)
            .or_else(of_claims);
        let field = field.map_or_else(String::new, |field| format!("{field}: "));
        self.state.message = format!("{field}a volume of pod {pod} cannot be mounted: {word}");
        self
    }
}

/// What an attempt that has not ended is doing. `previous` is the message of the condition when it had the same reason:
/// the kubelet gives the cause of a failed pull only every other time. `image_field` is where the trainer's image comes from.
pub(crate) fn doing(
    containers: &Containers<'_>,
    image_field: &str,
    previous: Option<(Reason, &str)>,
    now: Timestamp,
) -> Doing {
    let name = containers.name();
    if let Some(lost) = lost(containers, now) {
        return lost;
    }
    let mut doing = if let Some(since) = containers.trainer_started_at() {
        match containers.trainer.and_then(terminated) {
            Some(end) => Doing::new(
                Reason::Publishing,
                "the result is checked, packed and stored",
                end.finished_at.as_ref().map(|at| at.0),
            ),
            None => Doing::new(
                Reason::Training,
                format!("the training code runs in pod {name}"),
                Some(since),
            ),
        }
    } else if !containers.is_scheduled() {
        unscheduled(containers)
    } else if let Some(stuck) = containers
        .all()
        .find_map(|container| stuck(container, image_field, previous))
    {
        stuck
    } else {
        starting(containers, now)
    };
    if containers.is_terminating() {
        // Look again when its node would count as lost.
        doing.until = [doing.until, lost_at(containers)].into_iter().flatten().min();
    }
    doing
}

fn lost_at(containers: &Containers<'_>) -> Option<Timestamp> {
    // The deletion timestamp is the end of the grace period, not its beginning.
    let deadline = containers.pod.metadata.deletion_timestamp.as_ref()?.0.as_second();
    Timestamp::from_second(deadline.saturating_add(LOST_PATIENCE_SECONDS)).ok()
}

fn lost(containers: &Containers<'_>, now: Timestamp) -> Option<Doing> {
    let said = containers.reason() == "NodeLost";
    let overdue = containers.is_scheduled() && lost_at(containers).is_some_and(|at| at <= now);
    (said || overdue).then(|| {
        let node = containers
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or("unknown");
        let message = format!(
            "pod {} should have ended, but its node {node:?} does not say so",
            containers.name()
        );
        Doing::new(Reason::NodeLost, message, lost_at(containers))
    })
}

fn unscheduled(containers: &Containers<'_>) -> Doing {
    let name = containers.name();
    let refused = containers
        .condition("PodScheduled")
        .filter(|condition| condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable"));
    let Some(condition) = refused else {
        return Doing::new(
            Reason::PodCreated,
            format!("pod {name} waits to be given to a node"),
            containers.created_at(),
        );
    };
    let message = scheduler_words(condition.message.as_deref().unwrap_or_default());
    let since = condition
        .last_transition_time
        .as_ref()
        .map(|at| at.0)
        .or_else(|| containers.created_at());
    // The scheduler is also the one that notices a missing claim.
    let reason = if message.to_ascii_lowercase().contains("persistentvolumeclaim") {
        Reason::VolumeNotMounted
    } else {
        Reason::Unschedulable
    };
    Doing::new(reason, format!("no node can take pod {name}: {message}"), since)
}

/// The scheduler's message without its counts of nodes, which change with the cluster and not with the cause:
/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had ... . preemption: ...`
fn scheduler_words(message: &str) -> String {
    let causes = message
        .split_once("nodes are available: ")
        .map_or(message, |(_, causes)| causes);
    let causes = causes
        .split(". preemption:")
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
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

fn stuck(container: &ContainerStatus, image_field: &str, previous: Option<(Reason, &str)>) -> Option<Doing> {
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
            // The images of the other containers are settings of the operator, not of a manifest.
            let field = if name == super::pod::TRAINER {
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
                    return Some(Doing::new(Reason::ImageNotPulled, before, None));
                }
                return Some(Doing::new(Reason::ImageNotPulled, head, None));
            }
            Some(Doing::new(Reason::ImageNotPulled, format!("{head}: {cause}"), None))
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => Some(Doing::new(
            Reason::ContainerNotCreated,
            format!("container {name:?} cannot be created: {detail}"),
            None,
        )),
        _ => None,
    }
}

/// The cause in a kubelet's message about a failed pull; nothing when it only says that it backs off.
fn pull_cause(detail: &str) -> &str {
    let mut rest = detail;
    if let Some(after) = rest.strip_prefix("Back-off pulling image ") {
        rest = after.split_once(": ").map_or("", |(_, cause)| cause);
    }
    rest.strip_prefix("ErrImagePull: ").unwrap_or(rest).trim()
}

fn starting(containers: &Containers<'_>, now: Timestamp) -> Doing {
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
        return Doing::new(
            Reason::Fetching,
            format!("source and data are fetched in pod {name}"),
            Some(since),
        );
    }
    // The kubelet mounts volumes before it makes the pod's sandbox, and says nothing in the status about what is missing.
    let sandbox = containers
        .condition("PodReadyToStartContainers")
        .filter(|condition| condition.status == "False");
    let patience =
        scheduled.and_then(|at| Timestamp::from_second(at.as_second().saturating_add(VOLUME_PATIENCE_SECONDS)).ok());
    if sandbox.is_some() && patience.is_some_and(|patience| patience <= now) {
        let message = format!("the volumes or the network of pod {name} are not ready");
        let mut doing = Doing::new(Reason::VolumeNotMounted, message, scheduled);
        doing.until = Timestamp::from_second(now.as_second().saturating_add(MOUNT_POLL_SECONDS)).ok();
        doing.unmounted = true;
        return doing;
    }
    let mut doing = Doing::new(
        Reason::Starting,
        format!("pod {name} is starting on its node"),
        scheduled,
    );
    doing.until = patience.filter(|_| sandbox.is_some());
    doing
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}. preemption: 0/3 nodes are available: 3 No preemption victims found.",
        "Insufficient cpu, node(s) had untolerated taint {a: b}"
    )]
    #[case(
        "0/5 nodes are available: 2 Insufficient cpu, 3 Insufficient cpu.",
        "Insufficient cpu"
    )]
    #[case("persistentvolumeclaim \"x\" not found", "persistentvolumeclaim \"x\" not found")]
    #[case("", "the scheduler gives no cause")]
    fn counts_are_left_out(#[case] said: &str, #[case] shown: &str) {
        assert_eq!(scheduler_words(said), shown);
    }

    #[rstest]
    #[case("Back-off pulling image \"a:1\"", "")]
    #[case("Back-off pulling image \"a:1\": ErrImagePull: not found: a:1", "not found: a:1")]
    #[case("not found: a:1", "not found: a:1")]
    fn the_cause_of_a_failed_pull(#[case] said: &str, #[case] cause: &str) {
        assert_eq!(pull_cause(said), cause);
    }
}
