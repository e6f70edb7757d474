//! The decision about a training: one pass from the World to the Plan.
//!
//! An attempt lives through three states that are told apart by observation alone:
//! *claimed* (`run.attempt` names it, `run.podUid` is empty), *seen* (`run.podUid` is the pod's) and *ended* (the claim
//! of the next attempt, or the result of the run). Attempt 1 needs no claim: its name follows from the run. A pass either
//! claims or creates, never both, so that a claim is known to be stored before its pod can exist.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use legion_api::{
    ModelTrainingStatus, Problem, Reason, ReasonKind,
    condition::{SUCCEEDED, find},
    duration::Span,
    names::TRAINING_NAME_MAX,
    run::{Failure, RunResult, RunStatus, Waiting},
};

use super::{
    current::{Current, begin, current, is_settled},
    facts,
    inputs::{self, Inputs},
    world::{ConfigMapView, World},
};
use crate::{
    Settings,
    conditions::{self, State, seconds},
    plan::{Action, EventNote, Need, Note, Plan, Write},
    run::{
        attempt::Attempt,
        backoff,
        containers::Containers,
        ending::{End, Verdict, end_of, fetch_facts},
        labels,
        waiting::{self, Doing},
    },
};

/// Decides about a training.
#[must_use]
pub fn decide(world: &World, settings: &Settings, now: Timestamp) -> Plan<ModelTrainingStatus> {
    if world.training.metadata.deletion_timestamp.is_some() {
        // Its pods go with it by their owner references; nothing is created that would be left behind.
        return Plan::default();
    }
    if is_settled(world) {
        return Plan::default();
    }
    let old = world.status();
    let (run, status, new) = match current(world) {
        Current::Unread(name) => {
            return Plan {
                needs: vec![Need::ConfigMap { name }],
                ..Plan::default()
            };
        }
        Current::Same(run) => (run, old.clone().into_owned(), false),
        Current::New(run) => (run, begin(&old), true),
        Current::Blocked(problem) => {
            let mut decision = Decision::new(
                world,
                settings,
                now,
                RunStatus::default(),
                old.clone().into_owned(),
                false,
            );
            decision.status.run.clone_from(&old.run);
            return decision.blocked(problem);
        }
    };
    Decision::new(world, settings, now, run, status, new).decide()
}

/// How long a container that is not Legion's may outlive the run: long enough for one that ends by itself once the others
/// have, and for a kubelet's report of the trainer's end that comes after that of `publish`.
const LINGER: SignedDuration = SignedDuration::from_secs(5);

struct Decision<'a> {
    world: &'a World,
    settings: &'a Settings,
    now: Timestamp,
    plan: Plan<ModelTrainingStatus>,
    /// The status in the making. Its `run` is filled in at the end.
    status: ModelTrainingStatus,
    run: RunStatus,
    /// Whether the run is not the one that the status tells of.
    new: bool,
}

/// What the pods of a training are to this run.
struct Pods<'a> {
    current: Option<Containers<'a>>,
    /// A pod of an earlier run or attempt may still be running.
    others_run: bool,
}

/// The training in the cache is older than one of its pods.
struct Outdated;

impl<'a> Decision<'a> {
    fn new(
        world: &'a World,
        settings: &'a Settings,
        now: Timestamp,
        run: RunStatus,
        status: ModelTrainingStatus,
        new: bool,
    ) -> Self {
        Self {
            world,
            settings,
            now,
            plan: Plan::default(),
            status,
            run,
            new,
        }
    }

    /// The status that the resource has.
    fn old_conditions(&self) -> &'a [Condition] {
        self.world
            .training
            .status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }

    /// Reason and message that the status tells at present.
    fn told(&self) -> Option<(Reason, &'a str)> {
        let condition = find(self.old_conditions(), SUCCEEDED)?;
        Some((condition.reason.parse().ok()?, condition.message.as_str()))
    }

    fn decide(mut self) -> Plan<ModelTrainingStatus> {
        let pods = match self.sort_pods() {
            Ok(pods) => pods,
            Err(Outdated) => return self.wait_for_the_cache(),
        };
        if self.run.result.is_some() {
            return self.finished(pods.current);
        }
        match pods.current {
            Some(pod) => self.with_pod(pod),
            None => self.without_pod(pods.others_run),
        }
    }

    /// A pod that is newer than the status: whatever were decided now would be decided on yesterday's facts.
    fn wait_for_the_cache(self) -> Plan<ModelTrainingStatus> {
        let at = self.now.checked_add(self.settings.status_delay).ok();
        Plan {
            requeue_at: at,
            why: vec![Note::Borrowed(
                "a pod of a later run or attempt exists: the view of the training is outdated",
            )],
            ..Plan::default()
        }
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

    /// Finds the current attempt's pod and ends those that should no longer be there.
    fn sort_pods(&mut self) -> Result<Pods<'a>, Outdated> {
        let world = self.world;
        let mut pods = Pods {
            current: None,
            others_run: false,
        };
        let number = |pod: &Pod, key: &str| labels::annotation(pod, key).and_then(|text| text.parse::<i64>().ok());
        let recorded = world.run().map_or(0, |run| run.sequence);
        let mut others = Vec::new();
        for pod in world.own_pods() {
            let Some((run, attempt)) = labels::identity(pod, world.name()) else {
                continue;
            };
            let same_run = run == self.run.id;
            // The run after the one on record may have its pod before it is on record itself; no later one can.
            let of_later_run = number(pod, labels::SEQUENCE) > Some(recorded.saturating_add(1))
                || number(pod, labels::GENERATION) > Some(world.generation());
            if of_later_run || (same_run && attempt > self.run.attempt) {
                return Err(Outdated);
            }
            if same_run && attempt == self.run.attempt {
                pods.current = Some(Containers::of(pod));
            } else {
                others.push(Containers::of(pod));
            }
        }
        for pod in others {
            if pod.has_stopped() {
                self.expire(&pod);
            } else {
                self.delete(pod.pod, "it belongs to an earlier run or attempt");
                // A pod that no node has, and that is being deleted, will never run.
                pods.others_run |= pod.is_scheduled() || !pod.is_terminating();
            }
        }
        Ok(pods)
    }

    /// Removes a pod that has ended, once it was kept as long as asked. Its facts are stored: they came back through the
    /// watch, or this would not be an ended attempt.
    fn expire(&mut self, pod: &Containers<'_>) {
        let ended = pod.ended_at().or_else(|| pod.created_at()).unwrap_or(self.now);
        match ended.checked_add(self.world.training.spec.ttl_after_finished.get()) {
            Ok(at) if at > self.now => self.plan.look_again(at),
            _ => self.delete(pod.pod, "it was kept for spec.ttlAfterFinished"),
        }
    }

    fn finished(mut self, pod: Option<Containers<'a>>) -> Plan<ModelTrainingStatus> {
        match pod {
            Some(pod) if pod.has_stopped() => self.expire(&pod),
            // Something that Legion did not put there keeps it running.
            Some(pod) => match self
                .run
                .finished_at
                .as_ref()
                .and_then(|at| at.0.checked_add(LINGER).ok())
            {
                Some(at) if at > self.now => self.plan.look_again(at),
                _ => self.delete(pod.pod, "the run has ended and another container keeps it running"),
            },
            None => {}
        }
        let state = self.final_state();
        self.say(state)
    }

    /// What a run that has ended says of itself: follows from the status alone, so that it can be said again.
    fn final_state(&self) -> State {
        let reason = self
            .run
            .reason
            .as_deref()
            .and_then(|reason| reason.parse().ok())
            .unwrap_or(match self.run.result {
                Some(RunResult::Succeeded) => Reason::RunSucceeded,
                _ => Reason::TrainerFailed,
            });
        if reason == Reason::RunSucceeded {
            return State::new(
                reason,
                match &self.status.score {
                    Some(score) => format!("the model is trained: {score}"),
                    None => "the model is trained".to_owned(),
                },
            );
        }
        State::new(
            reason,
            self.status.failure.as_ref().map_or_else(|| reason.meaning(), in_words),
        )
    }

    fn with_pod(mut self, pod: Containers<'a>) -> Plan<ModelTrainingStatus> {
        self.run.pod = Some(pod.name().to_owned());
        self.run.pod_uid.clone_from(&pod.pod.metadata.uid);
        if self.run.started_at.is_none() {
            self.run.started_at = pod.created_at().map(seconds);
        }
        self.run.not_before = None;
        let inputs = self.inputs_of(&pod);
        if let Some(end) = end_of(&pod) {
            return self.ended(end, inputs.as_ref());
        }
        let image_field = match self.world.training.spec.image {
            Some(_) => "spec.image",
            None => "spec.toolchain",
        };
        let mut doing = waiting::doing(&pod, image_field, self.told(), self.now);
        if doing.state.reason == Reason::VolumeNotMounted
            && let Some(field) = inputs
                .as_ref()
                .and_then(|inputs| inputs.field_of_claim_in(&doing.state.message))
        {
            doing.state.message.insert_str(0, &format!("{field}: "));
        }
        if doing.unmounted
            && let Some(uid) = &pod.pod.metadata.uid
        {
            match self.world.mounts.get(uid) {
                Some(Some(word)) => doing = doing.explained(pod.name(), word, inputs.as_ref()),
                Some(None) => {}
                None => {
                    let need = Need::Mounts {
                        pod: pod.name().to_owned(),
                        uid: uid.clone(),
                    };
                    return Plan {
                        needs: vec![need],
                        ..Plan::default()
                    };
                }
            }
        }
        if pod.trainer_started_at().is_none()
            && !pod.is_terminating()
            && let Some(end) = self.late(&pod, &doing).or_else(|| self.outdated(&pod, &doing))
        {
            return self.ended(end, inputs.as_ref());
        }
        if self.world.training.spec.suspend {
            self.delete(pod.pod, "spec.suspend is true");
            return self.say(State::new(Reason::Suspended, "suspended: the pod is being ended"));
        }
        if let Some(until) = doing.until {
            self.plan.look_again(until);
        }
        self.say_since(doing.state.with_remedy(), doing.since)
    }

    /// The inputs of the current attempt, with what its `fetch` has found. They are shown, and kept for later attempts.
    fn inputs_of(&mut self, pod: &Containers<'a>) -> Option<Inputs> {
        let kept = self.run.inputs.as_deref().and_then(Inputs::from_json);
        let mut inputs = kept.or_else(|| Inputs::from_json(labels::annotation(pod.pod, labels::INPUTS)?))?;
        let image_id = pod.trainer.map(|trainer| trainer.image_id.as_str());
        facts::show_inputs(&mut self.status, &inputs, image_id);
        if let Some(fetched) = fetch_facts(pod) {
            facts::show_fetched(&mut self.status, &mut inputs, &fetched);
        }
        self.run.inputs = Some(inputs.to_json());
        Some(inputs)
    }

    /// A pod that was given to a node and does not start there in time.
    fn late(&mut self, pod: &Containers<'_>, doing: &Doing) -> Option<End> {
        let limit = self.world.training.spec.start_timeout;
        let deadline = pod.scheduled_at()?.checked_add(limit.get()).ok()?;
        if deadline > self.now {
            self.plan.look_again(deadline);
            return None;
        }
        let message = format!(
            "pod {} did not start within spec.startTimeout ({limit}): {}",
            pod.name(),
            doing.state.message
        );
        Some(End::new(
            Verdict::StartTimeout,
            Reason::StartTimeout,
            "pod",
            "StartTimeout",
            message,
        ))
    }

    /// A pod that cannot start, and would be made otherwise by now: what its message asked for was done.
    fn outdated(&mut self, pod: &Containers<'_>, doing: &Doing) -> Option<End> {
        let mended_by_change = matches!(
            doing.state.reason,
            Reason::Unschedulable | Reason::VolumeNotMounted | Reason::ImageNotPulled | Reason::ContainerNotCreated
        );
        if !mended_by_change {
            return None;
        }
        let inputs = if self.has_begun() {
            self.run.inputs.as_deref().and_then(Inputs::from_json)
        } else {
            self.resolve().ok()
        }?;
        let shape = self.attempt(&inputs).shape();
        (labels::annotation(pod.pod, labels::SHAPE) != Some(&shape)).then(|| {
            let message = format!(
                "pod {} could not start ({}), and is made anew because what shapes it has changed",
                pod.name(),
                doing.state.message
            );
            End::new(Verdict::Replan, doing.state.reason, "pod", "Replanned", message)
        })
    }

    /// Whether an attempt of this run has got as far as to work: from then on its inputs stay.
    fn has_begun(&self) -> bool {
        self.run.failures + self.run.disruptions + self.run.step_failures > 0
    }

    fn attempt<'b>(&'b self, inputs: &'b Inputs) -> Attempt<'b> {
        Attempt {
            spec: &self.world.training.spec,
            namespace: self.world.namespace(),
            name: self.world.name(),
            uid: self.world.uid(),
            run: &self.run,
            inputs,
            settings: self.settings,
        }
    }

    fn resolve(&self) -> Result<Inputs, Vec<Problem>> {
        let name = self.world.name();
        if name.len() > TRAINING_NAME_MAX {
            let message =
                format!("{name:?} is longer than {TRAINING_NAME_MAX} characters: it becomes part of pod names");
            return Err(vec![Problem::new(Reason::InvalidSpec, "metadata.name", message)]);
        }
        inputs::resolve(
            self.world,
            self.settings,
            &self.run.id,
            self.run.source_digest.as_deref(),
        )
    }

    fn without_pod(mut self, others_run: bool) -> Plan<ModelTrainingStatus> {
        let name = labels::pod_name(self.world.name(), &self.run.id, self.run.attempt);
        if self.run.pod_uid.is_some() {
            // A pod that lost its label looks deleted; only the API server knows.
            if !self.world.probed.contains_key(&name) {
                return Plan {
                    needs: vec![Need::Pod { name }],
                    ..Plan::default()
                };
            }
            return self.ended(End::vanished(&name), None);
        }
        self.run.pod = Some(name);
        if self.world.training.spec.suspend {
            return self.say(State::new(Reason::Suspended, "suspended: no pod runs"));
        }
        let earlier = self
            .told()
            .filter(|(reason, _)| !self.new && matches!(reason, Reason::Retrying | Reason::SecretMissing));
        let retrying = earlier.map(|(reason, message)| State::new(reason, message));
        if let Some(at) = self.run.not_before.as_ref().map(|at| at.0).filter(|at| *at > self.now) {
            self.plan.look_again(at);
            let attempt = self.run.attempt;
            return self.say(
                retrying.unwrap_or_else(|| {
                    State::new(Reason::Retrying, format!("attempt {attempt} follows after a while"))
                }),
            );
        }
        if others_run {
            return self.say(retrying.unwrap_or_else(|| {
                State::new(
                    Reason::Replacing,
                    "waits until the pod of an earlier run or attempt has ended",
                )
            }));
        }
        self.create()
    }

    fn create(mut self) -> Plan<ModelTrainingStatus> {
        let pinned = self.run.inputs.as_deref().and_then(Inputs::from_json);
        let inputs = match pinned {
            Some(inputs) => self.source_is_there().map(|()| inputs).map_err(|problem| vec![problem]),
            None => self.resolve(),
        };
        let inputs = match inputs {
            Ok(inputs) => inputs,
            Err(problems) => return self.problems(problems),
        };
        facts::show_inputs(&mut self.status, &inputs, None);
        let pod = self.attempt(&inputs).pod();
        let name = self.run.pod.clone().unwrap_or_default();
        let only_at = (self.run.attempt > 1)
            .then(|| self.world.training.metadata.resource_version.clone())
            .flatten();
        self.plan.note(format!(
            "run {} needs attempt {}, and no other pod runs",
            self.run.id, self.run.attempt
        ));
        // Before the removal of pods that have ended: should that fail, the run must not wait for it.
        let create = Action::CreatePod {
            pod: Box::new(pod),
            only_at,
        };
        self.plan.actions.insert(0, create);
        self.plan.retry_at = self.now.checked_add(self.settings.refusal_retry).ok();
        let now = self.now;
        self.say_since(
            State::new(Reason::PodCreated, format!("pod {name} waits to be given to a node")),
            Some(now),
        )
    }

    /// A later attempt mounts the ConfigMap again.
    fn source_is_there(&self) -> Result<(), Problem> {
        match (
            super::world::config_map_name(&self.world.training),
            &self.world.config_map,
        ) {
            (Some(name), ConfigMapView::Absent) => {
                let message = format!(
                    "there is no ConfigMap {name:?} in namespace {:?}",
                    self.world.namespace()
                );
                Err(Problem::new(
                    Reason::SourceNotFound,
                    "spec.source.configMap.name",
                    message,
                ))
            }
            _ => Ok(()),
        }
    }

    fn problems(mut self, problems: Vec<Problem>) -> Plan<ModelTrainingStatus> {
        let state =
            State::of_problems(&problems).unwrap_or_else(|| State::new(Reason::InvalidSpec, "the spec cannot be used"));
        self.plan.problems = problems;
        self.say(state)
    }

    /// A new run is asked for and cannot be named: pods of the old one end, and the old one stays on record.
    fn blocked(mut self, problem: Problem) -> Plan<ModelTrainingStatus> {
        let kept = self.status.run.clone();
        if let Err(Outdated) = self.sort_pods() {
            return self.wait_for_the_cache();
        }
        let state = State::new(problem.reason, problem.to_string());
        self.plan.problems = vec![problem];
        let mut plan = self.say(state);
        if let Some(status) = &mut plan.status {
            status.run = kept;
        }
        plan
    }

    fn ended(mut self, end: End, inputs: Option<&Inputs>) -> Plan<ModelTrainingStatus> {
        let spec = &self.world.training.spec;
        let was_suspended = matches!(self.told(), Some((Reason::Suspended, _)));
        let own_doing = spec.suspend || was_suspended;
        let run = &mut self.run;
        let bounded = |count: &mut i32, max: i32| {
            *count = count.saturating_add(1);
            *count <= max
        };
        let again = match end.verdict {
            Verdict::Success | Verdict::Final => false,
            Verdict::User => bounded(&mut run.failures, spec.retries),
            // Ending a pod on purpose is no disruption.
            Verdict::Disruption if own_doing => true,
            Verdict::Disruption => bounded(&mut run.disruptions, self.settings.max_disruptions),
            Verdict::Rejected | Verdict::StartTimeout => bounded(&mut run.rejections, self.settings.max_rejections),
            Verdict::Step => bounded(&mut run.step_failures, self.settings.max_step_failures),
            Verdict::SecretMissing => bounded(&mut run.step_failures, i32::MAX),
            Verdict::Replan => true,
        };
        let failure = end.failure.clone().map(|failure| Failure {
            attempt: Some(self.run.attempt),
            ..failure
        });
        self.status.failure = failure;
        if again {
            self.claim(&end, own_doing)
        } else {
            self.finish(&end, inputs)
        }
    }

    /// Records how an attempt ended and lays claim to the next. The pod is created by a later pass, which sees the claim.
    fn claim(mut self, end: &End, own_doing: bool) -> Plan<ModelTrainingStatus> {
        let ended = self.run.attempt;
        let run = &mut self.run;
        run.attempt = ended.saturating_add(1);
        run.pod = Some(labels::pod_name(self.world.name(), &run.id, run.attempt));
        run.pod_uid = None;
        run.waiting = None;
        if let Some(failure) = self
            .status
            .failure
            .as_mut()
            .filter(|_| is_tried_again_by_itself(end.verdict))
        {
            failure.remedy = None;
        }
        let why = self.status.failure.as_ref().map(in_words).unwrap_or_default();
        let at_once = end.verdict == Verdict::Replan || (own_doing && end.verdict == Verdict::Disruption);
        if at_once {
            // Neither a change that was asked for nor a pause on purpose is a failure.
            self.status.failure = None;
            run.not_before = None;
        } else {
            let since = end.at.filter(|at| *at <= self.now).unwrap_or(self.now);
            let delay = backoff::delay(self.settings, &run.id, ended);
            run.not_before = since.checked_add(delay).ok().map(seconds);
            if let Some(at) = &run.not_before {
                self.plan.look_again(at.0);
            }
        }
        if end.verdict == Verdict::Replan {
            // Nothing has been done with the old ones. They are resolved anew.
            if !self.has_begun() {
                self.run.inputs = None;
            }
        }
        self.plan.note(format!("attempt {ended} has ended: {why}"));
        if self.world.training.spec.suspend {
            return self.say(State::new(Reason::Suspended, "suspended: no pod runs"));
        }
        let next = self.run.attempt;
        let state = match end.verdict {
            Verdict::SecretMissing => State::new(Reason::SecretMissing, why),
            _ if own_doing && at_once => State::new(Reason::Retrying, format!("attempt {next} takes the run up again")),
            Verdict::Replan => State::new(
                Reason::Retrying,
                format!("attempt {next} follows: the pod is made anew"),
            ),
            _ => State::new(
                Reason::Retrying,
                format!("attempt {next} follows after attempt {ended} ended: {why}"),
            ),
        };
        self.say(state)
    }

    fn finish(mut self, end: &End, inputs: Option<&Inputs>) -> Plan<ModelTrainingStatus> {
        let succeeded = end.verdict == Verdict::Success;
        let at = end.at.unwrap_or(self.now);
        let run = &mut self.run;
        run.result = Some(if succeeded {
            RunResult::Succeeded
        } else {
            RunResult::Failed
        });
        run.reason = Some(end.reason.as_str().to_owned());
        run.finished_at = Some(seconds(at));
        run.waiting = None;
        run.not_before = None;
        if let Some(started) = &run.started_at {
            let took = at.as_second().saturating_sub(started.0.as_second());
            self.status.duration = Some(Span::from_secs(u64::try_from(took).unwrap_or(0)).to_string());
        }
        if let Some(facts) = &end.facts {
            let objective = self
                .world
                .training
                .spec
                .objective
                .as_ref()
                .map(|objective| objective.metric.as_str());
            facts::show_published(&mut self.status, facts, &self.run.id, objective, inputs);
        }
        let state = self.final_state();
        self.say(state)
    }

    /// Says it now.
    fn say(mut self, state: State) -> Plan<ModelTrainingStatus> {
        self.conclude(state, None);
        self.plan
    }

    /// Says it once it has lasted: a state that passes by itself within seconds is not worth a write.
    fn say_since(mut self, state: State, since: Option<Timestamp>) -> Plan<ModelTrainingStatus> {
        let passes = matches!(
            state.reason,
            Reason::PodCreated | Reason::Starting | Reason::Fetching | Reason::Publishing | Reason::Unschedulable
        );
        // A status that already speaks of this generation must not tell of the run before; and a change that starts no run
        // is answered at once, because nothing would tell how long it has been waiting for its answer.
        let misleads = self.new == (self.world.status().observed_generation == Some(self.world.generation()));
        // The first word about a run must not wait for more than one such state, however quickly they follow each other.
        let first = self.run.started_at.as_ref().map(|at| at.0).filter(|_| self.new);
        let since_known = since
            .map(|since| first.map_or(since, |first| first.min(since)))
            .filter(|since| passes && !misleads && *since <= self.now);
        if let Some(at) = since_known.and_then(|since| since.checked_add(self.settings.status_delay).ok())
            && at > self.now
        {
            self.plan.write = Write::NotBefore(at);
            self.plan.look_again(at);
        }
        self.conclude(state, since);
        self.plan
    }

    fn conclude(&mut self, state: State, since: Option<Timestamp>) {
        let generation = self.world.generation();
        let told = self.told();
        let waits = state.reason.kind() == ReasonKind::Waiting && state.reason != Reason::Suspended;
        self.run.waiting = waits.then(|| {
            let before = self
                .run
                .waiting
                .take()
                .filter(|waiting| waiting.reason == state.reason.as_str());
            before.unwrap_or_else(|| Waiting {
                reason: state.reason.as_str().to_owned(),
                since: seconds(since.unwrap_or(self.now)),
            })
        });
        let noteworthy = waits
            || matches!(state.reason.kind(), ReasonKind::Invalid | ReasonKind::Failure)
            || state.reason == Reason::Retrying;
        if noteworthy && told != Some((state.reason, state.message.as_str())) {
            // An attempt that follows on request is no cause for concern.
            let by_request = state.reason == Reason::Retrying && self.status.failure.is_none();
            self.plan.events.push(EventNote {
                warning: !by_request,
                reason: state.reason,
                message: state.message.clone(),
            });
        }
        self.status.observed_generation = Some(generation);
        self.status.conditions = conditions::for_run(self.old_conditions(), &state, generation, self.now);
        self.status.run = Some(std::mem::take(&mut self.run));
        self.plan.status = Some(std::mem::take(&mut self.status));
    }
}

/// Whether nobody needs to do anything: the remedy is for the case that it happens too often.
fn is_tried_again_by_itself(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Disruption | Verdict::Rejected | Verdict::StartTimeout | Verdict::Replan
    )
}

/// A failure in one line: what happened, and what to do about it.
fn in_words(failure: &Failure) -> String {
    match &failure.remedy {
        Some(remedy) => format!("{} ({remedy})", failure.message),
        None => failure.message.clone(),
    }
}
