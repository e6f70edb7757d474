//! A pod's containers by name. Others may be there too: injected ones say nothing about the attempt.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};

use super::pod::{FETCH, PUBLISH, TRAINER};

/// The parts of a pod that an attempt is read from.
#[derive(Clone, Copy)]
pub(crate) struct Containers<'a> {
    pub pod: &'a Pod,
    pub fetch: Option<&'a ContainerStatus>,
    pub trainer: Option<&'a ContainerStatus>,
    pub publish: Option<&'a ContainerStatus>,
}

impl<'a> Containers<'a> {
    pub(crate) fn of(pod: &'a Pod) -> Self {
        let status = pod.status.as_ref();
        let find = |list: Option<&'a Vec<ContainerStatus>>, name: &str| {
            list.into_iter().flatten().find(|container| container.name == name)
        };
        let main = status.and_then(|status| status.container_statuses.as_ref());
        Self {
            pod,
            fetch: find(status.and_then(|status| status.init_container_statuses.as_ref()), FETCH),
            trainer: find(main, TRAINER),
            publish: find(main, PUBLISH),
        }
    }

    /// The containers of ours that the kubelet has reported on.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a ContainerStatus> {
        [self.fetch, self.trainer, self.publish].into_iter().flatten()
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

    /// Whether nothing of the pod runs any more, or ever will.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether none of its containers runs any more, or ever will. A kubelet reports the ends of all containers first and the
    /// pod's last phase only when it has cleaned up behind them (its status manager's `mergePodStatus`), so that a pod
    /// which is still `Running` may have nothing left that runs. Native sidecars are ended by the kubelet by itself.
    pub(crate) fn has_stopped(&self) -> bool {
        let main = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_deref())
            .unwrap_or_default();
        let all_ended = !main.is_empty() && main.iter().all(|container| terminated(container).is_some());
        // After a failed init container no other is started.
        let none_begins = self.fetch.and_then(terminated).is_some_and(|end| end.exit_code != 0);
        self.is_over() || all_ended || none_begins
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

    /// When the pod was given to its node.
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

    /// When the last thing ended that has ended.
    pub(crate) fn ended_at(&self) -> Option<Timestamp> {
        self.all()
            .filter_map(|container| terminated(container)?.finished_at.as_ref())
            .map(|at| at.0)
            .max()
    }

    /// When the training code's container began to run.
    pub(crate) fn trainer_started_at(&self) -> Option<Timestamp> {
        let state = self.trainer?.state.as_ref()?;
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

/// The end of a container, once it has ended.
pub(crate) fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

/// Whether a container that has ended had ever run. One that could not be started has the epoch as its start.
pub(crate) fn has_started(end: &ContainerStateTerminated) -> bool {
    let never = matches!(
        end.reason.as_deref(),
        Some("StartError" | "ContainerCannotRun" | "CreateContainerError")
    );
    !never && end.started_at.as_ref().is_none_or(|at| at.0.as_second() > 0)
}
