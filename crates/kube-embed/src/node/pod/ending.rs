//! How a pod is ended: by deletion, deadline, eviction or shutdown of the node; TERM first, KILL after the grace period.

use std::time::Duration;

use tokio::time::Instant;

use super::{Command, EVICTION_GRACE, Ending, Life, Step, Why};
use crate::node::events::About;
use crate::node::runtime::{Outgrown, Stop};

impl Life {
    pub(super) fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.termination_grace_period_seconds)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    pub(super) fn end(&mut self, why: Why, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.ending {
            // A later order can only shorten what an earlier one granted; the first reason stays the verdict.
            Some(ending) => ending.kill_at = ending.kill_at.min(kill_at),
            None => {
                self.ending = Some(Ending {
                    why,
                    kill_at,
                    killed: false,
                })
            }
        }
    }

    /// SIGTERM to every container that has not had it yet; sidecars only after all others have ended.
    pub(super) fn terminate(&mut self) {
        let others = self
            .slots
            .iter()
            .any(|s| !s.record.sidecar && matches!(s.step, Step::Starting | Step::Running));
        let killed = self.ending.as_ref().is_some_and(|e| e.killed);
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.step != Step::Running || slot.stopping && !killed || slot.record.sidecar && others && !killed {
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
                self.end(Why::Gone, Duration::ZERO);
                if let Some(ending) = &mut self.ending {
                    ending.why = Why::Gone;
                }
                self.writer = None;
                self.kill();
            }
            Command::Shutdown { grace } => {
                self.end(Why::Shutdown, self.grace().min(grace));
                self.verdict(
                    "Terminated",
                    "Pod was terminated in response to imminent node shutdown.",
                    Why::Shutdown,
                );
            }
        }
    }

    /// Sets the pod's verdict, if `why` is what ends it.
    pub(super) fn verdict(&mut self, reason: &str, message: &str, why: Why) {
        if self.ending.as_ref().is_some_and(|e| e.why == why) && self.facts.verdict.is_none() {
            self.facts.verdict = Some((reason.into(), message.into()));
            if why == Why::Shutdown {
                self.facts
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
        // The timestamp has whole seconds only; it counts when it says that part of the grace period is long over
        // (the node was away), otherwise the whole period begins now.
        let left = deletion.0.as_second() - self.ctx.clock.now().as_second();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        self.end(
            Why::Deleted,
            if left + Duration::from_secs(2) < grace {
                left
            } else {
                grace
            },
        );
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let elapsed = self.ctx.clock.now().duration_since(self.facts.start_time?);
        let left = jiff::SignedDuration::from_secs(seconds).checked_sub(elapsed)?;
        Some(Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO))
    }

    pub(super) fn exceed_deadline(&mut self) {
        let message = "Pod was active on the node longer than the specified deadline";
        self.ctx
            .recorder
            .normal(About::pod(&self.pod), "DeadlineExceeded", message);
        self.end(Why::Deadline, self.grace());
        self.verdict("DeadlineExceeded", message, Why::Deadline);
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
            .warning(About::pod(&self.pod), "Evicted", message.clone());
        self.end(Why::Evicted, EVICTION_GRACE);
        self.verdict("Evicted", &message, Why::Evicted);
    }
}
