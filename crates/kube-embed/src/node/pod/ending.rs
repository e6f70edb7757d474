//! Termination of a pod because of deletion, a deadline, eviction or shutdown of the node. Containers get SIGTERM
//! first and SIGKILL after the grace period.

use std::time::Duration;

use tokio::time::Instant;

use super::{Command, ContainerStep, EVICTION_GRACE, PodWorker, Termination, TerminationCause};
use crate::node::events::InvolvedObject;
use crate::node::runtime::{Outgrown, Stop};

impl PodWorker {
    pub(super) fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.termination_grace_period_seconds)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    pub(super) fn end(&mut self, cause: TerminationCause, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.ending {
            // A later request can only shorten the grace period. The first reason is the one that is reported.
            Some(ending) => ending.kill_at = ending.kill_at.min(kill_at),
            None => {
                self.ending = Some(Termination {
                    cause,
                    kill_at,
                    killed: false,
                })
            }
        }
    }

    /// Sends SIGTERM to every container once. Sidecars get it only after all other containers have ended.
    pub(super) fn terminate(&mut self) {
        let others = self
            .slots
            .iter()
            .any(|s| !s.record.sidecar && matches!(s.step, ContainerStep::Starting | ContainerStep::Running));
        let killed = self.ending.as_ref().is_some_and(|e| e.killed);
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.step != ContainerStep::Running
                || slot.stopping && !killed
                || slot.record.sidecar && others && !killed
            {
                continue;
            }
            if !slot.stopping {
                let text = format!("Stopping container {}", slot.record.name);
                self.ctx.recorder.normal(self.about(index), "Killing", text);
            }
            self.slots[index].stopping = true;
            let stop = if killed { Stop::Kill } else { Stop::Term };
            self.ctx.runtime.stop(&self.container_key(index), stop);
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.killed = true;
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Update(pod) => {
                self.pod = pod;
                self.consider_deletion();
            }
            Command::Gone => {
                self.end(TerminationCause::Gone, Duration::ZERO);
                if let Some(ending) = &mut self.ending {
                    ending.cause = TerminationCause::Gone;
                }
                self.writer = None;
                self.kill();
            }
            Command::Shutdown { grace } => {
                self.end(TerminationCause::Shutdown, self.grace().min(grace));
                self.set_failure(
                    "Terminated",
                    "Pod was terminated in response to imminent node shutdown.",
                    TerminationCause::Shutdown,
                );
            }
        }
    }

    /// Sets the pod's reason and message if `cause` determines them.
    pub(super) fn set_failure(&mut self, reason: &str, message: &str, cause: TerminationCause) {
        if self.ending.as_ref().is_some_and(|e| e.cause == cause) && self.pod_record.failure.is_none() {
            self.pod_record.failure = Some((reason.into(), message.into()));
            if cause == TerminationCause::Shutdown {
                self.pod_record
                    .extra
                    .push(("DisruptionTarget".into(), "TerminationByKubelet".into(), message.into()));
            }
        }
    }

    pub(super) fn consider_deletion(&mut self) {
        let Some(deletion) = self.pod.metadata.deletion_timestamp.clone() else {
            return;
        };
        let seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        // The timestamp has only whole seconds. It is used only if part of the grace period has clearly passed (while
        // the node was away). Otherwise the whole period begins now.
        let left = deletion.0.as_second() - self.ctx.clock.now().as_second();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        self.end(
            TerminationCause::Deleted,
            if left + Duration::from_secs(2) < grace {
                left
            } else {
                grace
            },
        );
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let elapsed = self.ctx.clock.now().duration_since(self.pod_record.start_time?);
        let left = jiff::SignedDuration::from_secs(seconds).checked_sub(elapsed)?;
        Some(Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO))
    }

    pub(super) fn exceed_deadline(&mut self) {
        let message = "Pod was active on the node longer than the specified deadline";
        self.ctx
            .recorder
            .normal(InvolvedObject::pod(&self.pod), "DeadlineExceeded", message);
        self.end(TerminationCause::Deadline, self.grace());
        self.set_failure("DeadlineExceeded", message, TerminationCause::Deadline);
    }

    pub(super) fn evict(&mut self, outgrown: &Outgrown) {
        let volumes = self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let limit = volumes
            .filter(|v| v.name == outgrown.volume)
            .find_map(|v| v.empty_dir.as_ref()?.size_limit.clone())
            .map_or_else(String::new, |q| q.0);
        let message = format!(
            "Usage of EmptyDir volume {:?} exceeds the limit {limit:?}. ",
            outgrown.volume
        );
        self.ctx
            .recorder
            .warning(InvolvedObject::pod(&self.pod), "Evicted", message.clone());
        self.end(TerminationCause::Evicted, EVICTION_GRACE);
        self.set_failure("Evicted", &message, TerminationCause::Evicted);
    }
}
