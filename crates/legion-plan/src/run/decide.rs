//! The decision about a run, as far as it does not depend on the kind of the object.
//!
//! An attempt has three states, and observation alone distinguishes them:
//! *claimed* (`run.attempt` names it, `run.podUid` is empty), *seen* (`run.podUid` is the pod's) and *ended* (the next
//! attempt is claimed, or the run has a result). Attempt 1 needs no claim: its name follows from the run. One pass
//! either claims or creates, never both. A claim is therefore stored before its pod can exist.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use legion_api::{
    Reason, ReasonKind,
    condition::{SUCCEEDED, find},
    duration::Span,
    run::{Failure, RunResult, RunStatus},
};

use super::{
    attempt_end::{AttemptEnd, Verdict},
    backoff,
    containers::Containers,
    kind::RunObject,
    labels, settle,
    waiting::Activity,
};
use crate::{
    Settings,
    conditions::{self, Explanation, seconds},
    plan::{Action, EventNote, Need, Note, Plan, Write},
};

/// How long a container that Legion did not create may outlive the run. The time is long enough for a container that
/// ends on its own after the others. It is also long enough for a kubelet that reports the end of the main container
/// after the end of `publish`.
const LINGER: SignedDuration = SignedDuration::from_secs(5);

/// A decision about a run, in the making.
pub(crate) struct RunDecision<'a> {
    pub(crate) object: RunObject<'a>,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Timestamp,
    pub(crate) plan: Plan<()>,
    pub(crate) run: RunStatus,
    /// `status.failure`
    pub(crate) failure: Option<Failure>,
    /// Whether the status does not report this run yet.
    pub(crate) new: bool,
}

/// The pods of an object, seen from the current run.
pub(crate) struct RunPods<'a> {
    /// The pod of the current attempt.
    pub(crate) current: Option<Containers<'a>>,
    /// Whether a pod of an earlier run or attempt may still be running.
    pub(crate) others_run: bool,
}

/// What a decision does next.
pub(crate) enum NextStep {
    /// Read this first.
    Read(Need),
    /// The attempt has ended.
    Ended(AttemptEnd),
    Create,
    Report(Explanation),
    /// Report this after the state has lasted for a while, since this time.
    ReportAfter(Explanation, Option<Timestamp>),
}

/// The parts of the status that all kinds of runs share.
pub(crate) struct RunReport {
    pub(crate) observed_generation: i64,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) run: RunStatus,
    pub(crate) failure: Option<Failure>,
}

impl<'a> RunDecision<'a> {
    /// Returns reason and message that the status reports now.
    pub(crate) fn reported(&self) -> Option<(Reason, &'a str)> {
        let condition = find(self.object.conditions, SUCCEEDED)?;
        Some((condition.reason.parse().ok()?, condition.message.as_str()))
    }

    fn delete(&mut self, pod: &Pod, why: impl Into<Note>) {
        let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else {
            return;
        };
        if pod.metadata.deletion_timestamp.is_none() {
            self.plan.actions.push(Action::DeletePod {
                name: name.clone(),
                uid: uid.clone(),
                why: why.into(),
            });
        }
    }

    /// Finds the pod of the current attempt and deletes pods that should no longer exist.
    pub(crate) fn sort_pods(&mut self, own_pods: impl Iterator<Item = &'a Arc<Pod>>) -> RunPods<'a> {
        let RunObject { kind, name, .. } = self.object;
        let mut current = None;
        let mut others = Vec::new();
        for pod in own_pods {
            let Some((run, attempt)) = labels::identity(pod, name) else {
                continue;
            };
            if run == self.run.id && attempt == self.run.attempt {
                current = Some(Containers::of(pod, kind));
            } else {
                others.push(Containers::of(pod, kind));
            }
        }
        let mut others_run = false;
        for pod in others {
            if pod.has_stopped() {
                self.expire(&pod);
            } else {
                self.delete(pod.pod, "it belongs to an earlier run or attempt");
                // An unscheduled pod that is being deleted will never run.
                others_run |= pod.is_scheduled() || !pod.is_terminating();
            }
        }
        RunPods { current, others_run }
    }

    /// Deletes a pod that has ended, after `spec.ttlAfterFinished`. Its results are stored: the attempt counts as ended
    /// only because the watch has shown the stored status.
    fn expire(&mut self, pod: &Containers<'_>) {
        let ended = pod.ended_at().or_else(|| pod.created_at()).unwrap_or(self.now);
        match ended.checked_add(self.object.policy.ttl_after_finished.get()) {
            Ok(at) if at > self.now => self.plan.requeue_by(at),
            _ => self.delete(pod.pod, "it was kept for spec.ttlAfterFinished"),
        }
    }

    /// Deletes the pod of a run that has a result, when it is time to.
    pub(crate) fn clean_up(&mut self, pod: &Containers<'_>) {
        if pod.has_stopped() {
            return self.expire(pod);
        }
        // A container that Legion did not create keeps the pod running.
        let finished = self.run.finished_at.as_ref();
        match finished.and_then(|at| at.0.checked_add(LINGER).ok()) {
            Some(at) if at > self.now => self.plan.requeue_by(at),
            _ => self.delete(pod.pod, "the run has ended and another container keeps it running"),
        }
    }

    /// Returns the reason of a run that has a result.
    pub(crate) fn final_reason(&self) -> Reason {
        self.run
            .reason
            .as_deref()
            .and_then(|reason| reason.parse().ok())
            .unwrap_or(match self.run.result {
                Some(RunResult::Succeeded) => Reason::RunSucceeded,
                _ => self.object.kind.failed,
            })
    }

    /// Returns the message of a failed run. It follows from the status alone, and can therefore be repeated.
    pub(crate) fn failure_message(&self) -> String {
        self.failure
            .as_ref()
            .map_or_else(|| self.final_reason().meaning(), one_line)
    }

    /// Records that the current attempt has this pod.
    pub(crate) fn record_pod(&mut self, pod: &Containers<'_>) {
        self.run.pod = Some(pod.name().to_owned());
        self.run.pod_uid.clone_from(&pod.pod.metadata.uid);
        if self.run.started_at.is_none() {
            self.run.started_at = pod.created_at().map(seconds);
        }
        self.run.not_before = None;
    }

    /// Decides about an attempt with a pod that has not ended. `shape` is the hash of the pod's configuration if it
    /// were created now, where that can be said.
    pub(crate) fn with_activity(
        &mut self,
        pod: &Containers<'_>,
        activity: Activity,
        shape: impl FnOnce(&Self) -> Option<String>,
    ) -> NextStep {
        if pod.main_started_at().is_none() && !pod.is_terminating() {
            let end = self.late(pod, &activity);
            if let Some(end) = end.or_else(|| self.reconfigured(pod, &activity, shape)) {
                return NextStep::Ended(end);
            }
        }
        if self.object.policy.suspend {
            self.delete(pod.pod, "spec.suspend is true");
            return NextStep::Report(Explanation::new(
                Reason::Suspended,
                "suspended: the pod is being deleted",
            ));
        }
        if let Some(until) = activity.until {
            self.plan.requeue_by(until);
        }
        NextStep::ReportAfter(activity.state.with_remedy(), activity.since)
    }

    /// The pod was scheduled and did not start in time.
    fn late(&mut self, pod: &Containers<'_>, activity: &Activity) -> Option<AttemptEnd> {
        let limit = self.object.policy.start_timeout;
        let deadline = pod.scheduled_at()?.checked_add(limit.get()).ok()?;
        if deadline > self.now {
            self.plan.requeue_by(deadline);
            return None;
        }
        let message = format!(
            "pod {} did not start within spec.startTimeout ({limit}): {}",
            pod.name(),
            activity.state.message
        );
        Some(AttemptEnd::failed(
            Verdict::StartTimeout,
            Reason::StartTimeout,
            "pod",
            "StartTimeout",
            message,
        ))
    }

    /// The pod cannot start, and its configuration has changed since: the user did what the message asked for.
    fn reconfigured(
        &self,
        pod: &Containers<'_>,
        activity: &Activity,
        shape: impl FnOnce(&Self) -> Option<String>,
    ) -> Option<AttemptEnd> {
        let fixed_by_change = matches!(
            activity.state.reason,
            Reason::Unschedulable | Reason::VolumeNotMounted | Reason::ImageNotPulled | Reason::ContainerNotCreated
        );
        let shape = fixed_by_change.then(|| shape(self)).flatten()?;
        (labels::annotation(pod.pod, labels::SHAPE) != Some(&shape)).then(|| {
            let message = format!(
                "pod {} could not start ({}), and is recreated because its configuration changed",
                pod.name(),
                activity.state.message
            );
            AttemptEnd::failed(Verdict::Recreate, activity.state.reason, "pod", "Recreated", message)
        })
    }

    /// Returns whether an attempt of this run has started to work. From then on the run's inputs stay the same.
    pub(crate) fn has_worked(&self) -> bool {
        self.run.failures + self.run.disruptions + self.run.step_failures > 0
    }

    /// Decides about an attempt that has no pod. `probed` are the answers to [`Need::Pod`].
    pub(crate) fn without_pod(&mut self, others_run: bool, probed: &BTreeMap<String, Option<Arc<Pod>>>) -> NextStep {
        let name = labels::pod_name(self.object.name, &self.run.id, self.run.attempt);
        if self.run.pod_uid.is_some() {
            // A pod that lost its label looks deleted. Only the API server knows better.
            if !probed.contains_key(&name) {
                return NextStep::Read(Need::Pod { name });
            }
            return NextStep::Ended(AttemptEnd::vanished(&name));
        }
        self.run.pod = Some(name);
        if self.object.policy.suspend {
            return NextStep::Report(Explanation::new(Reason::Suspended, "suspended: no pod runs"));
        }
        let earlier = self
            .reported()
            .filter(|(reason, _)| !self.new && matches!(reason, Reason::Retrying | Reason::SecretMissing));
        let retrying = earlier.map(|(reason, message)| Explanation::new(reason, message));
        if let Some(at) = self.back_off_ends_at() {
            self.plan.requeue_by(at);
            let attempt = self.run.attempt;
            return NextStep::Report(retrying.unwrap_or_else(|| {
                Explanation::new(
                    Reason::Retrying,
                    format!("attempt {attempt} follows after the back-off"),
                )
            }));
        }
        if others_run {
            return NextStep::Report(retrying.unwrap_or_else(|| {
                Explanation::new(
                    Reason::Replacing,
                    "waiting until the pod of an earlier run or attempt has ended",
                )
            }));
        }
        if let Some(refused) = self.waits_for_its_turn() {
            self.plan.requeue_at = self.now.checked_add(self.settings.refusal_retry).ok();
            return NextStep::Report(refused);
        }
        NextStep::Create
    }

    /// Returns the end of the back-off, if the run waits for it. No back-off is longer than [`backoff::longest`]. A
    /// later time was written by a clock that was wrong, and counts as over.
    fn back_off_ends_at(&self) -> Option<Timestamp> {
        let at = self.run.not_before.as_ref()?.0;
        let latest = self.now.checked_add(backoff::longest(self.settings)).ok()?;
        (at > self.now && at <= latest).then_some(at)
    }

    /// Returns what the status reports while a quota refuses the pod and it is another object's turn to ask. Without
    /// turns every end of a pod would send one request for each waiting object, and all but one are refused. A new
    /// generation may ask immediately: it may need less.
    fn waits_for_its_turn(&self) -> Option<Explanation> {
        let unchanged = !self.new && self.object.observed_generation == Some(self.object.generation);
        let (reason, message) = self.reported()?;
        (unchanged && !self.object.quota_turn && reason == Reason::QuotaExceeded)
            .then(|| Explanation::new(reason, message))
    }

    /// Plans the creation of the current attempt's pod.
    pub(crate) fn create(&mut self, pod: Pod) -> NextStep {
        let name = self.run.pod.clone().unwrap_or_default();
        let only_at = self
            .object
            .resource_version
            .filter(|_| self.run.attempt > 1)
            .map(str::to_owned);
        self.plan.note(format!(
            "run {} needs attempt {}, and no other pod runs",
            self.run.id, self.run.attempt
        ));
        // Before the deletion of ended pods: the run must not wait for it when it fails.
        let create = Action::CreatePod {
            pod: Box::new(pod),
            only_at,
        };
        self.plan.actions.insert(0, create);
        self.plan.retry_at = self.now.checked_add(self.settings.refusal_retry).ok();
        let state = Explanation::new(Reason::PodCreated, format!("pod {name} waits for a node"));
        NextStep::ReportAfter(state, Some(self.now))
    }

    /// Records the end of the current attempt. Returns what to report when another attempt follows, or `None` when the
    /// run has its result.
    pub(crate) fn ended(&mut self, end: &AttemptEnd) -> Option<Explanation> {
        let was_suspended = matches!(self.reported(), Some((Reason::Suspended, _)));
        // Legion ends the pod of a suspended run itself.
        let on_request = self.object.policy.suspend || was_suspended;
        let again = self.count(end.verdict, on_request);
        self.failure = end.failure.clone().map(|failure| Failure {
            attempt: Some(self.run.attempt),
            ..failure
        });
        if again {
            Some(self.claim(end, on_request))
        } else {
            self.finish(end);
            None
        }
    }

    /// Counts an ended attempt. Returns whether another one may follow.
    fn count(&mut self, verdict: Verdict, on_request: bool) -> bool {
        let (run, settings) = (&mut self.run, self.settings);
        let bounded = |count: &mut i32, max: i32| {
            *count = count.saturating_add(1);
            *count <= max
        };
        match verdict {
            Verdict::Success | Verdict::Final => false,
            Verdict::User => bounded(&mut run.failures, self.object.policy.retries),
            Verdict::Disruption if on_request => true,
            Verdict::Disruption => bounded(&mut run.disruptions, settings.max_disruptions),
            Verdict::Rejected | Verdict::StartTimeout => bounded(&mut run.rejections, settings.max_rejections),
            Verdict::Step => bounded(&mut run.step_failures, settings.max_step_failures),
            Verdict::SecretMissing => bounded(&mut run.step_failures, i32::MAX),
            Verdict::Recreate => true,
        }
    }

    /// Claims the next attempt. A later pass sees the claim and creates the pod.
    fn claim(&mut self, end: &AttemptEnd, on_request: bool) -> Explanation {
        let ended = self.run.attempt;
        let run = &mut self.run;
        run.attempt = ended.saturating_add(1);
        run.pod = Some(labels::pod_name(self.object.name, &run.id, run.attempt));
        run.pod_uid = None;
        run.waiting = None;
        if let Some(failure) = self.failure.as_mut().filter(|_| end.verdict.may_pass()) {
            failure.remedy = None;
        }
        let why = self.failure.as_ref().map(one_line).unwrap_or_default();
        let recreate = end.verdict == Verdict::Recreate;
        let resumed = on_request && end.verdict == Verdict::Disruption;
        if recreate || resumed {
            // Neither a requested change nor a suspension is a failure.
            self.failure = None;
            run.not_before = None;
        } else {
            let since = end.at.filter(|at| *at <= self.now).unwrap_or(self.now);
            let delay = backoff::delay(self.settings, &run.id, ended);
            run.not_before = since.checked_add(delay).ok().map(seconds);
            if let Some(at) = &run.not_before {
                self.plan.requeue_by(at.0);
            }
        }
        if recreate && !self.has_worked() {
            // The inputs were not used yet. They are resolved again.
            self.run.inputs.clear();
        }
        self.plan.note(format!("attempt {ended} has ended: {why}"));
        if self.object.policy.suspend {
            return Explanation::new(Reason::Suspended, "suspended: no pod runs");
        }
        let next = self.run.attempt;
        if end.verdict == Verdict::SecretMissing {
            return Explanation::new(Reason::SecretMissing, why);
        }
        let message = if on_request && (recreate || resumed) {
            format!("attempt {next} resumes the run")
        } else if recreate {
            format!("attempt {next} follows: the pod is recreated")
        } else {
            format!("attempt {next} follows after attempt {ended} ended: {why}")
        };
        Explanation::new(Reason::Retrying, message)
    }

    fn finish(&mut self, end: &AttemptEnd) {
        let run = &mut self.run;
        run.result = Some(if end.verdict == Verdict::Success {
            RunResult::Succeeded
        } else {
            RunResult::Failed
        });
        run.reason = Some(end.reason.as_str().to_owned());
        run.finished_at = Some(seconds(end.at.unwrap_or(self.now)));
        run.waiting = None;
        run.not_before = None;
    }

    /// Returns the time from the first pod of a run to its result, for people.
    pub(crate) fn duration(&self) -> Option<String> {
        let finished = self.run.finished_at.as_ref()?.0.as_second();
        let took = finished.saturating_sub(self.run.started_at.as_ref()?.0.as_second());
        Some(Span::from_secs(u64::try_from(took).unwrap_or(0)).to_string())
    }

    /// Reports a state after it has lasted for a while. A state that passes within seconds is not worth a write.
    pub(crate) fn report_after(mut self, state: Explanation, since: Option<Timestamp>) -> (Plan<()>, RunReport) {
        let passes = matches!(
            state.reason,
            Reason::PodCreated | Reason::Starting | Reason::Fetching | Reason::Publishing | Reason::Unschedulable
        );
        // Some reports must not wait. A status that names this generation must not describe the run before. A change
        // that starts no run is reported immediately, because nothing shows how long it has waited for its report.
        let observed = self.object.observed_generation == Some(self.object.generation);
        let misleads = self.new == observed;
        // The first report of a run waits for one such state only, however quickly they follow each other.
        let first = self.run.started_at.as_ref().map(|at| at.0).filter(|_| self.new);
        let since_known = since
            .map(|since| first.map_or(since, |first| first.min(since)))
            .filter(|since| passes && !misleads && *since <= self.now);
        if let Some(at) = since_known.and_then(|since| since.checked_add(self.settings.status_delay).ok())
            && at > self.now
        {
            self.plan.write = Write::NotBefore(at);
            self.plan.requeue_by(at);
        }
        self.set_status(state, since)
    }

    /// Reports a state immediately.
    pub(crate) fn report(self, state: Explanation) -> (Plan<()>, RunReport) {
        self.set_status(state, None)
    }

    fn set_status(mut self, state: Explanation, since: Option<Timestamp>) -> (Plan<()>, RunReport) {
        let waits = state.reason.kind() == ReasonKind::Waiting && state.reason != Reason::Suspended;
        self.run.waiting = waits.then(|| settle::waiting(Some(&self.run), state.reason, since.unwrap_or(self.now)));
        let ended_well = state.reason.kind() == ReasonKind::Success;
        let noteworthy = waits
            || ended_well
            || matches!(state.reason.kind(), ReasonKind::Invalid | ReasonKind::Failure)
            || state.reason == Reason::Retrying;
        if noteworthy && self.reported() != Some((state.reason, state.message.as_str())) {
            // An attempt that follows on request is no warning.
            let by_request = state.reason == Reason::Retrying && self.failure.is_none();
            self.plan.events.push(EventNote {
                warning: !by_request && !ended_well,
                reason: state.reason,
                message: state.message.clone(),
            });
        }
        let generation = self.object.generation;
        let report = RunReport {
            observed_generation: generation,
            conditions: conditions::for_run(self.object.conditions, &state, generation, self.now),
            run: self.run,
            failure: self.failure,
        };
        (self.plan, report)
    }
}

/// Returns a failure in one line: what happened, and the remedy.
fn one_line(failure: &Failure) -> String {
    match &failure.remedy {
        Some(remedy) => format!("{} ({remedy})", failure.message),
        None => failure.message.clone(),
    }
}
