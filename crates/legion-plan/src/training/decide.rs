//! The decision about a training: one pass from the World to the Plan. What all runs share is in [`crate::run`].

use jiff::Timestamp;
use legion_api::{
    ModelTrainingStatus, Problem, Reason,
    names::TRAINING_NAME_MAX,
    run::{Notice, RunStatus},
};

use super::{
    container,
    current::{CurrentRun, begin, current, is_settled},
    facts,
    inputs::{self, Inputs},
    kind::pod_settings,
    world::{ConfigMapView, World, config_map_name},
};
use crate::{
    Settings,
    conditions::Explanation,
    plan::{Need, Plan},
    run::{
        attempt::Attempt,
        attempt_end::AttemptEnd,
        containers::Containers,
        decide::{NextStep, RunDecision, RunReport},
        ending::{end_of, fetch_report},
        labels,
        recover::later_pod,
        waiting,
    },
};

/// Decides about a training.
#[must_use]
pub fn decide(world: &World, settings: &Settings, now: Timestamp) -> Plan<ModelTrainingStatus> {
    if world.training.metadata.deletion_timestamp.is_some() {
        // Kubernetes deletes the pods by their owner references. Nothing is created that would be left behind.
        return Plan::default();
    }
    if is_settled(world) {
        return Plan::default();
    }
    let object = world.object();
    let later = later_pod(&object, world.own_pods());
    if later.is_some() && !world.confirmed {
        return Plan::reading(Need::Object);
    }
    let recovered = later.map(|pod| pod.run(object.run));
    let old = world.status().into_owned();
    let decision = |run: RunStatus, status: ModelTrainingStatus, new: bool| TrainingDecision {
        world,
        base: RunDecision {
            object,
            settings,
            now,
            plan: Plan::default(),
            run,
            failure: status.failure.clone(),
            new,
        },
        status,
        fetch_notices: Vec::new(),
    };
    let previous = recovered.as_ref().or(object.run);
    match current(world, previous) {
        CurrentRun::Unread(name) => Plan::reading(Need::ConfigMap { name }),
        CurrentRun::Same(run) => decision(run, old, false).decide(),
        CurrentRun::New(run) => decision(run, begin(&old), true).decide(),
        CurrentRun::Blocked(problem) => decision(RunStatus::default(), old, false).blocked(problem, previous.cloned()),
    }
}

struct TrainingDecision<'a> {
    world: &'a World,
    base: RunDecision<'a>,
    /// The new status. Its shared parts are filled in at the end, from the [`RunReport`].
    status: ModelTrainingStatus,
    /// What `fetch` of the current attempt has noticed.
    fetch_notices: Vec<Notice>,
}

impl<'a> TrainingDecision<'a> {
    fn decide(mut self) -> Plan<ModelTrainingStatus> {
        let pods = self.base.sort_pods(self.world.own_pods());
        if self.base.run.result.is_some() {
            if let Some(pod) = &pods.current {
                self.base.clean_up(pod);
            }
            return self.report_result();
        }
        match pods.current {
            Some(pod) => self.with_pod(pod),
            None => {
                let next = self.base.without_pod(pods.others_run, &self.world.probed);
                self.follow(next, None)
            }
        }
    }

    fn follow(mut self, next: NextStep, inputs: Option<&Inputs>) -> Plan<ModelTrainingStatus> {
        match next {
            NextStep::Read(need) => Plan::reading(need),
            NextStep::Ended(end) => self.ended(&end, inputs),
            NextStep::Create => self.create(),
            NextStep::Report(state) => self.report(state),
            NextStep::ReportAfter(state, since) => {
                let (plan, report) = self.base.report_after(state, since);
                self.status = with_report(self.status, report);
                plan.with_status(self.status)
            }
        }
    }

    fn with_pod(mut self, pod: Containers<'a>) -> Plan<ModelTrainingStatus> {
        self.base.record_pod(&pod);
        let inputs = self.inputs_of(&pod);
        if let Some(end) = end_of(&pod) {
            return self.ended(&end, inputs.as_ref());
        }
        let image_field = match self.world.training.spec.image {
            Some(_) => "spec.image",
            None => "spec.toolchain",
        };
        let claims = inputs.as_ref().map(Inputs::claims).unwrap_or_default();
        let activity = waiting::activity(&pod, image_field, self.base.reported(), self.base.now);
        let activity = match activity.with_volumes(&pod, &claims, &self.world.mounts) {
            Ok(activity) => activity,
            Err(need) => return Plan::reading(need),
        };
        let world = self.world;
        let next = self.base.with_activity(&pod, activity, |base| shape(base, world));
        self.follow(next, inputs.as_ref())
    }

    /// Returns the inputs of the current attempt, with what its `fetch` has found. The status shows them, and later
    /// attempts use them too.
    fn inputs_of(&mut self, pod: &Containers<'a>) -> Option<Inputs> {
        let run = &mut self.base.run;
        let kept = Inputs::from_lines(&run.inputs);
        let mut inputs = kept.or_else(|| Inputs::from_json(labels::annotation(pod.pod, labels::INPUTS)?))?;
        let image_id = pod.main.map(|main| main.image_id.as_str());
        facts::show_inputs(&mut self.status, &inputs, image_id);
        if let Some(fetched) = fetch_report(pod) {
            facts::show_fetched(&mut self.status, &mut inputs, &fetched);
            self.fetch_notices = facts::fetch_notices(&fetched);
            if !self.fetch_notices.is_empty() {
                self.status.notices.clone_from(&self.fetch_notices);
            }
        }
        run.inputs = inputs.to_lines();
        Some(inputs)
    }

    fn create(mut self) -> Plan<ModelTrainingStatus> {
        let inputs = match Inputs::from_lines(&self.base.run.inputs) {
            Some(inputs) => self.check_source().map(|()| inputs).map_err(|problem| vec![problem]),
            None => resolve(&self.base, self.world),
        };
        let inputs = match inputs {
            Ok(inputs) => inputs,
            Err(problems) => return self.problems(problems),
        };
        facts::show_inputs(&mut self.status, &inputs, None);
        let pod = container::pod(&attempt(&self.base, self.world), &self.world.training.spec, &inputs);
        let next = self.base.create(pod);
        self.follow(next, Some(&inputs))
    }

    /// Checks that the ConfigMap source still exists: a later attempt mounts it again.
    fn check_source(&self) -> Result<(), Problem> {
        match (config_map_name(&self.world.training), &self.world.config_map) {
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
        let state = Explanation::of_problems(&problems)
            .unwrap_or_else(|| Explanation::new(Reason::InvalidSpec, "the spec cannot be used"));
        self.base.plan.problems = problems;
        self.report(state)
    }

    /// A new run is requested and has no id yet. Pods of the old run end, and the status keeps the old run.
    fn blocked(mut self, problem: Problem, kept: Option<RunStatus>) -> Plan<ModelTrainingStatus> {
        self.base.sort_pods(self.world.own_pods());
        let state = Explanation::new(problem.reason, problem.to_string());
        self.base.plan.problems = vec![problem];
        let mut plan = self.report(state);
        if let Some(status) = &mut plan.status {
            status.run = kept;
        }
        plan
    }

    fn ended(mut self, end: &AttemptEnd, inputs: Option<&Inputs>) -> Plan<ModelTrainingStatus> {
        if let Some(state) = self.base.ended(end) {
            return self.report(state);
        }
        if let Some(duration) = self.base.duration() {
            self.status.duration = Some(duration);
        }
        if let Some(report) = &end.report {
            let objective = self.world.training.spec.objective.as_ref();
            let objective = objective.map(|objective| objective.metric.as_str());
            let notices = std::mem::take(&mut self.fetch_notices);
            facts::show_published(&mut self.status, report, notices, &self.base.run.id, objective, inputs);
        }
        self.report_result()
    }

    /// Reports the result of a run. The message follows from the status alone, so that it can be repeated.
    fn report_result(self) -> Plan<ModelTrainingStatus> {
        let reason = self.base.final_reason();
        let message = if reason == Reason::RunSucceeded {
            // The status keeps the artifact of an earlier run, so the id proves that this run made one.
            let artifact = self.status.artifact.as_ref();
            let has_model = artifact.is_some_and(|artifact| artifact.run_id == self.base.run.id);
            let result = if has_model {
                "the model is trained"
            } else {
                "the run has succeeded"
            };
            match &self.status.score {
                Some(score) => format!("{result}: {score}"),
                None => result.to_owned(),
            }
        } else {
            self.base.failure_message()
        };
        self.report(Explanation::new(reason, message))
    }

    fn report(self, state: Explanation) -> Plan<ModelTrainingStatus> {
        let (plan, report) = self.base.report(state);
        plan.with_status(with_report(self.status, report))
    }
}

fn with_report(status: ModelTrainingStatus, report: RunReport) -> ModelTrainingStatus {
    ModelTrainingStatus {
        observed_generation: Some(report.observed_generation),
        conditions: report.conditions,
        run: Some(report.run),
        failure: report.failure,
        ..status
    }
}

fn attempt<'b>(base: &'b RunDecision<'_>, world: &'b World) -> Attempt<'b> {
    Attempt {
        object: world.object(),
        run: &base.run,
        pod: pod_settings(&world.training.spec),
        settings: base.settings,
    }
}

fn resolve(base: &RunDecision<'_>, world: &World) -> Result<Inputs, Vec<Problem>> {
    let name = world.name();
    if name.len() > TRAINING_NAME_MAX {
        let message = format!("{name:?} is longer than {TRAINING_NAME_MAX} characters: it becomes part of pod names");
        return Err(vec![Problem::new(Reason::InvalidSpec, "metadata.name", message)]);
    }
    inputs::resolve(world, base.settings, &base.run.id, base.run.source_digest.as_deref())
}

/// Returns the hash of the configuration that the current attempt's pod would have now.
fn shape(base: &RunDecision<'_>, world: &World) -> Option<String> {
    let inputs = if base.has_worked() {
        Inputs::from_lines(&base.run.inputs)
    } else {
        resolve(base, world).ok()
    }?;
    Some(container::shape(&attempt(base, world), &world.training.spec, &inputs))
}
