//! A pod's containers, found by name. Injected containers say nothing about the attempt.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};

use super::kind::RunKind;

/// Name of the init container that fetches source and data.
pub(super) const FETCH: &str = "fetch";
/// Name of the container that publishes the result.
pub(super) const PUBLISH: &str = "publish";

/// The parts of a pod that show the progress of an attempt.
#[derive(Clone, Copy)]
pub(crate) struct Containers<'a> {
    pub(crate) kind: &'static RunKind,
    pub(crate) pod: &'a Pod,
    pub(crate) fetch: Option<&'a ContainerStatus>,
    /// The main container: [`RunKind::container`].
    pub(crate) main: Option<&'a ContainerStatus>,
    pub(crate) publish: Option<&'a ContainerStatus>,
}

impl<'a> Containers<'a> {
    pub(super) fn of(pod: &'a Pod, kind: &'static RunKind) -> Self {
        let status = pod.status.as_ref();
        let find = |list: Option<&'a Vec<ContainerStatus>>, name: &str| {
            list.into_iter().flatten().find(|container| container.name == name)
        };
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        Self {
            kind,
            pod,
            fetch: find(status.and_then(|status| status.init_container_statuses.as_ref()), FETCH),
            main: find(containers, kind.container),
            publish: find(containers, PUBLISH),
        }
    }

    /// Legion's own containers, as far as the kubelet has reported on them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a ContainerStatus> {
        [self.fetch, self.main, self.publish].into_iter().flatten()
    }

    pub(crate) fn phase(&self) -> &'a str {
        self.pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or_default()
    }

    /// `status.reason`: `Evicted`, `DeadlineExceeded`, `NodeLost`, ...
    pub(crate) fn reason(&self) -> &'a str {
        self.pod
            .status
            .as_ref()
            .and_then(|status| status.reason.as_deref())
            .unwrap_or_default()
    }

    /// `status.message`.
    pub(crate) fn message(&self) -> &'a str {
        self.pod
            .status
            .as_ref()
            .and_then(|status| status.message.as_deref())
            .unwrap_or_default()
    }

    pub(crate) fn condition(&self, type_: &str) -> Option<&'a PodCondition> {
        let status = self.pod.status.as_ref()?;
        status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == type_)
    }

    /// Returns whether the pod has reached its last phase.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Returns whether none of the pod's containers runs, or ever will.
    ///
    /// A kubelet first reports the ends of all containers. It reports the last phase only after it has cleaned up (its
    /// status manager's `mergePodStatus`). A pod in phase `Running` may therefore have no running container. The
    /// kubelet ends native sidecars on its own.
    pub(crate) fn has_stopped(&self) -> bool {
        let containers = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_deref())
            .unwrap_or_default();
        let all_ended = !containers.is_empty() && containers.iter().all(|container| terminated(container).is_some());
        // After a failed init container the kubelet starts no other.
        let none_will_start = self.fetch.and_then(terminated).is_some_and(|end| end.exit_code != 0);
        self.is_over() || all_ended || none_will_start
    }

    pub(crate) fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()))
    }

    /// The time at which the pod was scheduled.
    pub(crate) fn scheduled_at(&self) -> Option<Timestamp> {
        let condition = self
            .condition("PodScheduled")
            .filter(|condition| condition.status == "True");
        let at = condition.and_then(|condition| condition.last_transition_time.as_ref());
        at.map(|at| at.0)
            .or_else(|| self.created_at().filter(|_| self.is_scheduled()))
    }

    pub(crate) fn created_at(&self) -> Option<Timestamp> {
        self.pod.metadata.creation_timestamp.as_ref().map(|at| at.0)
    }

    pub(crate) fn name(&self) -> &'a str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// The time at which the last of the ended containers ended.
    pub(crate) fn ended_at(&self) -> Option<Timestamp> {
        self.all()
            .filter_map(|container| terminated(container)?.finished_at.as_ref())
            .map(|at| at.0)
            .max()
    }

    /// The time at which the main container started.
    pub(crate) fn main_started_at(&self) -> Option<Timestamp> {
        let state = self.main?.state.as_ref()?;
        let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
        let ended = || {
            state
                .terminated
                .as_ref()
                .filter(|end| has_started(end))?
                .started_at
                .as_ref()
        };
        running.or_else(ended).map(|at| at.0)
    }
}

/// Returns the final state of a container that has ended.
pub(crate) fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

/// Returns whether an ended container ever ran. A container that could not be started has the epoch as its start time.
pub(crate) fn has_started(end: &ContainerStateTerminated) -> bool {
    let never = matches!(
        end.reason.as_deref(),
        Some("StartError" | "ContainerCannotRun" | "CreateContainerError")
    );
    !never && end.started_at.as_ref().is_none_or(|at| at.0.as_second() > 0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_container_with_the_epoch_as_its_start_never_ran() {
        for (reason, start, expected) in [
            ("Error", Some(0), false),
            ("Error", Some(1), true),
            ("Error", None, true),
            ("StartError", Some(1), false),
        ] {
            let end = ContainerStateTerminated {
                reason: Some(reason.to_owned()),
                started_at: start.map(|at| Time(Timestamp::from_second(at).unwrap())),
                ..ContainerStateTerminated::default()
            };
            assert_eq!(has_started(&end), expected, "{reason} {start:?}");
        }
    }
}
