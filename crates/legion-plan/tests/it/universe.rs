//! A small pure model of the planner's environment: an API server with a training and its pods, a kubelet, a store of
//! success records, and a clock.
//!
//! It checks its invariants after every step. [`Universe::settle_down`] checks the final state.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use legion_api::{
    ModelTraining, ModelTrainingStatus,
    condition::{STALLED, SUCCEEDED, find, is_true},
    run::RunResult,
};
use legion_plan::{
    Action, ApiError, Need, Outcome, Settings, StatusPatch, StepResult,
    training::{ConfigMapContent, ConfigMapView, World, classify_existing, decide, requeue, settle},
};
use legion_protocol::{
    exit::ExitRecord,
    message::PublishOutcome,
    reason::{StepError, StepReason},
};
use serde_json::{Value, json};

use crate::factory::{self, fetched, publish_message, running, set};

/// The progress of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Created,
    Scheduled,
    Fetching,
    Training,
    Publishing,
    Over,
}

#[derive(Debug, Clone)]
struct SimPod {
    pod: Pod,
    stage: Stage,
    /// Whether its labels were removed, so that the watch does not show it.
    hidden: bool,
    /// How the training code ends.
    exit: ExitRecord,
}

pub(crate) struct Universe {
    pub training: ModelTraining,
    pub settings: Settings,
    pub now: Timestamp,
    /// Whether a ResourceQuota refuses pods.
    pub quota: bool,
    /// Whether the toolchain is registered.
    pub toolchain: bool,
    /// Whether the next status write meets a conflict.
    pub conflict: bool,
    script: u32,
    version: u64,
    pods: BTreeMap<String, SimPod>,
    /// Success records: run id to attempt.
    records: BTreeMap<String, i64>,
    /// Runs with training code that has failed on its own.
    failed: Vec<String>,
    /// How often the result of a run was published.
    published: BTreeMap<String, u32>,
    wake: Option<Timestamp>,
    /// When the current generation was first reconciled before the status reports it. Losing the pod before the first
    /// report resets this time, because nothing records it.
    unspoken: Option<(Option<i64>, Timestamp)>,
    pub writes: u32,
    pub creations: u32,
}

impl Universe {
    pub(crate) fn new(training: ModelTraining) -> Self {
        Self {
            training,
            settings: factory::settings(),
            now: factory::start(),
            quota: false,
            toolchain: true,
            conflict: false,
            script: 1,
            version: 100,
            pods: BTreeMap::new(),
            records: BTreeMap::new(),
            failed: Vec::new(),
            published: BTreeMap::new(),
            wake: None,
            unspoken: None,
            writes: 0,
            creations: 0,
        }
    }

    pub(crate) fn status(&self) -> ModelTrainingStatus {
        self.training.status.clone().unwrap_or_default()
    }

    pub(crate) fn world(&self) -> World {
        let mut world = factory::world(self.training.clone());
        if !self.toolchain {
            world.platform_toolchain = None;
        }
        if let Some(source) = &self.training.spec.source.config_map {
            let version = self.script.to_string();
            let known = self
                .training
                .status
                .as_ref()
                .and_then(|status| status.run.as_ref()?.source_version.clone());
            world.config_map = if known.as_ref() == Some(&version) {
                ConfigMapView::Seen {
                    resource_version: version,
                }
            } else {
                ConfigMapView::Read(ConfigMapContent::of(
                    &factory::config_map(&version, &format!("print({version})")),
                    source,
                ))
            };
        }
        world.pods = self
            .pods
            .values()
            .filter(|pod| !pod.hidden)
            .map(|pod| Arc::new(pod.pod.clone()))
            .collect();
        world
    }

    fn bump(&mut self) {
        self.version += 1;
        self.training.metadata.resource_version = Some(self.version.to_string());
    }

    /// Changes the spec, as a user does.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut legion_api::ModelTrainingSpec)) {
        let before = self.training.spec.clone();
        change(&mut self.training.spec);
        if self.training.spec != before {
            *self.training.metadata.generation.as_mut().unwrap() += 1;
            self.bump();
        }
    }

    /// Changes the content of the ConfigMap.
    pub(crate) fn edit_source(&mut self) {
        self.script += 1;
        self.unspoken = None;
    }

    pub(crate) fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// Runs one pass of the operator. Returns whether it changed anything.
    pub(crate) fn pass(&mut self) -> bool {
        let mut world = self.world();
        let mut plan = decide(&world, &self.settings, self.now);
        assert_eq!(
            plan,
            decide(&world, &self.settings, self.now),
            "equal worlds give equal plans"
        );
        for round in 0.. {
            assert!(round < 4, "the planner still needs: {:?}", plan.needs);
            if plan.needs.is_empty() {
                break;
            }
            assert!(plan.actions.is_empty() && plan.status.is_none(), "needs come first");
            for need in &plan.needs {
                match need {
                    Need::Pod { name } => {
                        let found = self.pods.get(name).map(|pod| Arc::new(pod.pod.clone()));
                        world.probed.insert(name.clone(), found);
                    }
                    Need::Object => world.confirmed = true,
                    Need::Mounts { uid, .. } => {
                        world.mounts.insert(uid.clone(), None);
                    }
                    Need::ConfigMap { .. } => {
                        let source = self.training.spec.source.config_map.as_ref().unwrap();
                        let version = self.script.to_string();
                        let map = factory::config_map(&version, &format!("print({version})"));
                        world.config_map = ConfigMapView::Read(ConfigMapContent::of(&map, source));
                    }
                }
            }
            plan = decide(&world, &self.settings, self.now);
        }
        let mut outcome = Outcome::default();
        for action in &plan.actions {
            let result = self.act(&world, action);
            let stop = !matches!(result, StepResult::Created | StepResult::Deleted);
            outcome.results.push(result);
            if stop {
                break;
            }
        }
        let acted = !outcome.results.is_empty();
        let patch = settle(&world, &plan, &outcome, self.now);
        self.wake = requeue(&plan, &outcome, self.now);
        if let Some(at) = self.wake {
            assert!(
                at > self.now || acted || patch.is_some(),
                "a wake-up in the past would spin: {plan:#?}"
            );
        }
        let lost = patch.is_some() && self.conflict;
        let wrote = patch.is_some_and(|patch| self.write(&patch));
        if !lost {
            self.check_reporting();
        }
        self.check();
        acted || wrote
    }

    fn act(&mut self, world: &World, action: &Action) -> StepResult {
        match action {
            Action::CreatePod { pod, only_at } => {
                if only_at.is_some() && *only_at != self.training.metadata.resource_version {
                    return StepResult::NotYet;
                }
                let name = pod.metadata.name.clone().unwrap();
                assert!(
                    name.len() <= 63 && name.parse::<legion_api::names::ObjectName>().is_ok(),
                    "{name}"
                );
                if let Some(found) = self.pods.get(&name) {
                    return classify_existing(world, pod, &found.pod);
                }
                if self.quota {
                    let message = format!(
                        "pods {name:?} is forbidden: exceeded quota: q, requested: cpu=1, used: cpu={}, limited: cpu=1",
                        self.version
                    );
                    return StepResult::Refused(ApiError {
                        code: 403,
                        reason: "Forbidden".into(),
                        message,
                    });
                }
                self.creations += 1;
                self.writes += 1;
                let mut pod = factory::stored(pod.as_ref().clone(), self.now);
                pod.metadata.uid = Some(format!("uid-{}", self.creations));
                let sim = SimPod {
                    pod,
                    stage: Stage::Created,
                    hidden: false,
                    exit: factory::exit(0),
                };
                self.pods.insert(name, sim);
                StepResult::Created
            }
            Action::DeletePod { name, uid, .. } => {
                self.writes += 1;
                let owned = self
                    .pods
                    .get(name)
                    .is_some_and(|sim| sim.pod.metadata.uid.as_ref() == Some(uid));
                if owned {
                    self.delete(&name.clone());
                }
                StepResult::Deleted
            }
        }
    }

    fn write(&mut self, patch: &StatusPatch) -> bool {
        assert_eq!(
            patch.body["metadata"]["resourceVersion"].as_str(),
            self.training.metadata.resource_version.as_deref(),
            "every status write carries the resourceVersion"
        );
        if std::mem::take(&mut self.conflict) {
            return true;
        }
        let before = self.status();
        let mut status = serde_json::to_value(&before).unwrap();
        merge(&mut status, &patch.body["status"]);
        let after: ModelTrainingStatus = serde_json::from_value(status).unwrap();
        if let (Some(old), Some(new)) = (&before.run, &after.run) {
            assert!(new.sequence >= old.sequence, "sequences never go back");
            assert!(new.sequence > old.sequence || new.id == old.id, "a run keeps its id");
            assert!(
                new.sequence > old.sequence || new.attempt >= old.attempt,
                "attempts never go back"
            );
            assert!(
                new.id != old.id || old.result.is_none() || new.result == old.result,
                "a result is final"
            );
        }
        for condition in &after.conditions {
            if let Some(old) = find(&before.conditions, &condition.type_) {
                assert!(
                    condition.last_transition_time.0 >= old.last_transition_time.0,
                    "times never go back"
                );
                assert_eq!(
                    condition.last_transition_time == old.last_transition_time,
                    condition.status == old.status || condition.last_transition_time.0 == old.last_transition_time.0,
                    "the transition time moves with the status"
                );
            }
        }
        assert!(after.history.len() <= 5 && after.metrics.len() <= 64);
        self.training.status = Some(after);
        self.writes += 1;
        self.bump();
        true
    }

    /// Checks that the status reports a generation within five seconds of its first reconciliation.
    fn check_reporting(&mut self) {
        let generation = self.training.metadata.generation;
        if self.status().observed_generation == generation {
            self.unspoken = None;
            return;
        }
        let first = match self.unspoken {
            Some((seen, first)) if seen == generation => first,
            _ => self.now,
        };
        self.unspoken = Some((generation, first));
        let limit = first.checked_add(SignedDuration::from_secs(5)).unwrap();
        assert!(
            self.now < limit,
            "it was reconciled at {first} and is not reported at {}",
            self.now
        );
        assert!(
            self.wake.is_some_and(|at| at <= limit),
            "it is requeued at {:?}, later than {limit}",
            self.wake
        );
    }

    /// Checks the invariants.
    fn check(&self) {
        let mut running: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (name, sim) in &self.pods {
            let never = sim.stage == Stage::Created && sim.pod.metadata.deletion_timestamp.is_some();
            if sim.stage != Stage::Over && !never {
                let run = sim.pod.metadata.labels.as_ref().unwrap()["legion-platform.org/run"].clone();
                running.entry(run).or_default().push(name);
            }
        }
        for (run, pods) in running {
            assert!(pods.len() <= 1, "two pods of run {run}: {pods:?}");
        }
    }

    fn pick(&self, index: usize) -> Option<String> {
        let live: Vec<&String> = self
            .pods
            .iter()
            .filter(|(_, sim)| sim.stage != Stage::Over)
            .map(|(name, _)| name)
            .collect();
        live.get(index % live.len().max(1)).map(|name| (*name).clone())
    }

    fn seconds(&self) -> i64 {
        self.now.as_second() - factory::start().as_second()
    }

    /// Moves one pod to its next stage.
    pub(crate) fn progress(&mut self, index: usize) {
        let Some(name) = self.pick(index) else { return };
        let at = self.seconds();
        let Some(sim) = self.pods.get_mut(&name) else { return };
        let pod = &mut sim.pod;
        let terminating = pod.metadata.deletion_timestamp.is_some();
        match sim.stage {
            Stage::Created if terminating => {
                self.pods.remove(&name);
                self.unspoken = None;
            }
            Stage::Created => {
                factory::schedule(pod, at);
                sim.stage = Stage::Scheduled;
            }
            Stage::Scheduled => {
                set(pod, "fetch", running(at));
                sim.stage = Stage::Fetching;
            }
            Stage::Fetching => {
                let run = pod.metadata.labels.as_ref().unwrap()["legion-platform.org/run"].clone();
                set(pod, "fetch", factory::ended(0, "Completed", &fetched(""), at));
                set(pod, "trainer", running(at));
                set(pod, "publish", running(at));
                factory::phase(pod, "Running");
                sim.stage = Stage::Training;
                if self.records.contains_key(&run) {
                    sim.exit = factory::exit(0);
                    sim.stage = Stage::Publishing;
                }
            }
            Stage::Training => {
                if terminating {
                    sim.exit.outside_signal = Some(15);
                }
                let code = sim.exit.exit_code.unwrap_or(137);
                set(pod, "trainer", factory::ended(code, "Completed", "", at));
                sim.stage = Stage::Publishing;
            }
            Stage::Publishing => self.publish(&name),
            Stage::Over => {}
        }
    }

    fn publish(&mut self, name: &str) {
        let at = self.seconds();
        let Some(sim) = self.pods.get_mut(name) else { return };
        let labels = sim.pod.metadata.labels.clone().unwrap();
        let run = labels["legion-platform.org/run"].clone();
        let attempt: i64 = labels["legion-platform.org/attempt"].parse().unwrap();
        let (outcome, exit) = if self.records.contains_key(&run) {
            (PublishOutcome::Skipped, None)
        } else if sim.exit.succeeded() {
            self.records.insert(run.clone(), attempt);
            *self.published.entry(run).or_default() += 1;
            (PublishOutcome::Published, Some(sim.exit.clone()))
        } else {
            if sim.exit.outside_signal.is_none() {
                self.failed.push(run);
            }
            (PublishOutcome::Failed, Some(sim.exit.clone()))
        };
        let code = i32::from(outcome == PublishOutcome::Failed);
        let trainer = factory::ended(sim.exit.exit_code.unwrap_or(137), "Completed", "", at);
        factory::end(&mut sim.pod, trainer, code, &publish_message(outcome, exit, None), at);
        sim.stage = Stage::Over;
        if sim.pod.metadata.deletion_timestamp.is_some() {
            self.pods.remove(name);
            self.unspoken = None;
        }
    }

    /// The training code fails on its own.
    pub(crate) fn fail(&mut self, index: usize) {
        if let Some(sim) = self
            .pick(index)
            .and_then(|name| self.pods.get_mut(&name))
            .filter(|sim| sim.stage == Stage::Training)
        {
            sim.exit = factory::exit(3);
        }
    }

    /// `fetch` fails for a reason that passes.
    pub(crate) fn fail_fetch(&mut self, index: usize) {
        let at = self.seconds();
        if let Some(sim) = self
            .pick(index)
            .and_then(|name| self.pods.get_mut(&name))
            .filter(|sim| sim.stage == Stage::Fetching)
        {
            let message = factory::fetch_failed(StepError::new(StepReason::SourceUnreachable, "no route"));
            set(&mut sim.pod, "fetch", factory::ended(1, "Error", &message, at));
            factory::phase(&mut sim.pod, "Failed");
            sim.stage = Stage::Over;
            // An ended pod that is being deleted disappears immediately. The operator may never see its end.
            let before = self.pods.len();
            self.pods
                .retain(|_, sim| sim.stage != Stage::Over || sim.pod.metadata.deletion_timestamp.is_none());
            if self.pods.len() < before {
                self.unspoken = None;
            }
        }
    }

    /// Deletes a pod with its grace period.
    fn delete(&mut self, name: &str) {
        let now = self.now;
        let Some(sim) = self.pods.get_mut(name) else { return };
        if sim.stage == Stage::Over {
            self.pods.remove(name);
        } else if sim.pod.metadata.deletion_timestamp.is_none() {
            sim.pod.metadata.deletion_timestamp = Some(Time(now.checked_add(SignedDuration::from_secs(75)).unwrap()));
        }
    }

    pub(crate) fn delete_from_outside(&mut self, index: usize) {
        if let Some(name) = self.pick(index) {
            self.unspoken = None;
            self.delete(&name);
        }
    }

    /// Removes the pod without any record.
    pub(crate) fn lose(&mut self, index: usize) {
        if let Some(name) = self.pick(index) {
            self.pods.remove(&name);
            self.unspoken = None;
        }
    }

    /// Removes the labels of a pod, so that the watch no longer shows it.
    pub(crate) fn relabel(&mut self, index: usize) {
        let run = self.training.status.as_ref().and_then(|status| status.run.clone());
        if let Some(name) = self.pick(index) {
            // The current attempt only: the names of other pods are not recorded.
            if let Some(sim) = self
                .pods
                .get_mut(&name)
                .filter(|_| run.is_some_and(|run| run.pod_uid.is_some() && run.pod.as_ref() == Some(&name)))
            {
                sim.hidden = true;
            }
        }
    }

    /// Returns the attempt and the stage of the latest pod.
    pub(crate) fn latest(&self) -> Option<(i32, Stage)> {
        let number = |all: &Option<BTreeMap<String, String>>, key: &str| all.as_ref()?[key].parse::<i32>().ok();
        let latest = self.pods.values().filter_map(|sim| {
            let metadata = &sim.pod.metadata;
            let sequence = number(&metadata.annotations, "legion-platform.org/sequence")?;
            let attempt = number(&metadata.labels, "legion-platform.org/attempt")?;
            Some((sequence, attempt, sim.stage))
        });
        latest.max().map(|(_, attempt, stage)| (attempt, stage))
    }

    /// Removes `status.run`, or the whole status.
    pub(crate) fn lose_status(&mut self, whole: bool) {
        match &mut self.training.status {
            Some(status) if !whole => status.run = None,
            status => *status = None,
        }
        self.unspoken = None;
        self.bump();
    }

    /// Deletes the training with its pods, and creates it again with its status, as a restore from a backup does.
    pub(crate) fn recreate(&mut self) {
        self.version += 1000;
        self.training.metadata.uid = Some(format!("uid-after-restore-{}", self.version));
        self.training.metadata.generation = Some(1);
        self.pods.clear();
        self.unspoken = None;
        self.bump();
    }

    /// Returns how often the result of a run was published.
    pub(crate) fn published(&self, run: &str) -> u32 {
        self.published.get(run).copied().unwrap_or_default()
    }

    /// Ends all faults and lets everything finish. Then checks the final state.
    pub(crate) fn settle_down(&mut self) {
        self.quota = false;
        self.toolchain = true;
        self.conflict = false;
        self.edit(|spec| spec.suspend = false);
        for step in 0.. {
            assert!(
                step < 3000,
                "it does not settle: {:#?}\n{:?}",
                self.status(),
                self.pods.keys()
            );
            if self.pass() {
                continue;
            }
            if self.pick(0).is_some() {
                self.progress(0);
                self.advance(1);
            } else if let Some(at) = self.wake {
                self.now = at.max(self.now);
            } else {
                break;
            }
        }
        let status = self.status();
        let run = status.run.clone().expect("a run");
        assert_eq!(status.observed_generation, self.training.metadata.generation);
        match run.result {
            Some(RunResult::Succeeded) => {
                assert!(is_true(&status.conditions, SUCCEEDED));
                assert_eq!(status.artifact.as_ref().unwrap().run_id, run.id);
                assert!(status.failure.is_none());
            }
            Some(RunResult::Failed) => {
                assert!(is_true(&status.conditions, STALLED));
                assert!(self.failed.contains(&run.id), "it failed without a cause: {status:#?}");
            }
            other => panic!("it ended as {other:?}"),
        }
        for (run, times) in &self.published {
            assert_eq!(*times, 1, "run {run} was published {times} times");
        }
        // A pod without labels is left alone once it is no longer needed.
        let left: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, sim)| !sim.hidden)
            .map(|(name, _)| name)
            .collect();
        assert!(left.is_empty(), "pods are left: {left:?}");
        let writes = self.writes;
        for _ in 0..3 {
            self.advance(3600);
            assert!(!self.pass(), "a settled training is left alone");
        }
        assert_eq!(self.writes, writes);
        assert_eq!(self.wake, None);
    }
}

pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let fields = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
