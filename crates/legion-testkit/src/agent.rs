//! A container runtime for training pods in paused time. Its containers behave like Legion's: `fetch` checks for the
//! success record, `trainer` trains, and `publish` writes the record last and reports it in its termination message.
//!
//! `legion-protocol` builds the messages from the tasks that the operator gave the containers. A [`Ledger`] holds the
//! facts for the invariants: the number of started and finished trainers of each run, and the published records.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use kube_embed::{
    Clock,
    node::runtime::{
        ContainerKey, ContainerSpec, Exit, LogItem, Outgrown, PodKey, PodRuntime, Recovered, Running, StartFailure,
        Stop, Volume,
        scripted::{Script, ScriptedRuntime},
    },
};
use legion_protocol::{
    digest, env,
    exit::ExitRecord,
    message::{
        Counts, FetchHead, FetchMessage, FetchOutcome, FetchTail, FetchedSource, PublishHead, PublishMessage,
        PublishOutcome, PublishTail, WireArtifact,
    },
    reason::{StepError, StepReason},
    summary::{MetricSummary, NamedValue},
    task::{FetchTask, PublishTask},
    time::rfc3339_millis,
};
use serde::de::DeserializeOwned;

/// The course of one attempt without disturbances.
#[derive(Clone, Debug)]
pub struct Behavior {
    /// Run time of `fetch`.
    pub fetch: Duration,
    /// The reason for which `fetch` fails, if any.
    pub fetch_error: Option<StepReason>,
    /// Run time of the training.
    pub train: Duration,
    /// Exit code of the training.
    pub exit_code: i32,
    /// Whether the training runs out of memory.
    pub out_of_memory: bool,
    /// Run time of `publish` after the end of the training.
    pub publish: Duration,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            fetch: Duration::from_secs(2),
            fetch_error: None,
            train: Duration::from_secs(30),
            exit_code: 0,
            out_of_memory: false,
            publish: Duration::from_secs(3),
        }
    }
}

/// Key of a run: uid of the training, id of the run.
pub type RunKey = (String, String);

/// Effects of the containers outside Kubernetes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Number of starts of the training code.
    pub started: BTreeMap<RunKey, usize>,
    /// Number of times when the training code succeeded.
    pub finished: BTreeMap<RunKey, usize>,
    /// The success record of each run.
    pub published: BTreeMap<RunKey, PublishMessage>,
}

#[derive(Default)]
struct AgentState {
    behaviors: VecDeque<Behavior>,
    /// The course of each pod, fixed when its `fetch` starts.
    plays: HashMap<String, Play>,
    ledger: Ledger,
}

#[derive(Clone)]
struct Play {
    behavior: Behavior,
    run: RunKey,
    skip: bool,
}

/// The container runtime. Clones share the same state.
#[derive(Clone)]
pub struct Agents {
    inner: ScriptedRuntime,
    state: Arc<Mutex<AgentState>>,
}

impl Agents {
    /// Creates a runtime where every attempt succeeds.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: ScriptedRuntime::new(clock),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, AgentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the behavior of the next attempts, in order. The last one repeats.
    pub fn behave(&self, behaviors: impl IntoIterator<Item = Behavior>) {
        self.state().behaviors = behaviors.into_iter().collect();
    }

    /// Returns the effects so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.state().ledger.clone()
    }

    fn fetch(&self, spec: &ContainerSpec) -> Script {
        let Some(task) = task::<FetchTask>(spec) else {
            return Script::new().exits(64).message("no task");
        };
        let mut state = self.state();
        let behavior = match state.behaviors.len() {
            0 => Behavior::default(),
            1 => state.behaviors[0].clone(),
            _ => state.behaviors.pop_front().unwrap_or_default(),
        };
        let run = (task.training.uid.clone(), task.training.run_id.clone());
        let skip = state.ledger.published.contains_key(&run);
        let script = Script::new().runs(behavior.fetch);
        let message = match behavior.fetch_error {
            Some(reason) if !skip => FetchMessage::failed(StepError::new(reason, "as the test wants it"), 1),
            _ => FetchMessage {
                head: FetchHead {
                    outcome: if skip { FetchOutcome::Skip } else { FetchOutcome::Ready },
                    source: Some(FetchedSource {
                        digest: digest::of_bytes(b"source"),
                        files: 1,
                        size_bytes: 6,
                        ..FetchedSource::default()
                    }),
                    error: None,
                },
                tail: FetchTail {
                    elapsed_ms: 2000,
                    ..FetchTail::default()
                },
            },
        };
        let failed = message.head.outcome == FetchOutcome::Error;
        state.plays.insert(spec.pod.uid.clone(), Play { behavior, run, skip });
        let script = script.message(message.encode(task.message_budget as usize));
        if failed { script.exits(1) } else { script }
    }

    fn play(&self, pod: &PodKey) -> Option<Play> {
        self.state().plays.get(&pod.uid).cloned()
    }

    fn trainer(&self, play: &Play) -> Script {
        if play.skip {
            return Script::new();
        }
        *self.state().ledger.started.entry(play.run.clone()).or_default() += 1;
        let script = Script::new().runs(play.behavior.train).logs("epoch 1\n");
        if play.behavior.out_of_memory {
            script.runs_out_of_memory()
        } else {
            script.exits(play.behavior.exit_code)
        }
    }

    fn publish(&self, play: &Play) -> Script {
        let Behavior { train, publish, .. } = play.behavior;
        Script::new().runs(if play.skip { publish } else { train + publish })
    }

    /// Returns the termination message of `publish` for this exit. Writes the success record on success.
    fn publish_message(&self, play: &Play, task: &PublishTask, exit: &Exit) -> String {
        let budget = task.message_budget as usize;
        let started_at = rfc3339_millis(exit.started_at.as_millisecond());
        let mut record = ExitRecord {
            version: legion_protocol::WIRE_VERSION,
            exit_code: Some(play.behavior.exit_code),
            started_at,
            finished_at: rfc3339_millis(exit.finished_at.as_millisecond()),
            ..ExitRecord::default()
        };
        let failed = |exit: Option<ExitRecord>| PublishMessage {
            head: PublishHead {
                outcome: PublishOutcome::Failed,
                exit,
                artifact: None,
                objective: None,
                counts: Counts::default(),
                error: None,
            },
            tail: PublishTail {
                log_tail: "epoch 1\n".to_owned(),
                ..PublishTail::default()
            },
        };
        if exit.signal.is_some() {
            record.outside_signal = Some(15);
            record.exit_code = None;
            record.signal = Some(15);
            return failed(Some(record)).encode(budget);
        }
        if play.behavior.out_of_memory {
            return failed(None).encode(budget);
        }
        if play.behavior.exit_code != 0 {
            return failed(Some(record)).encode(budget);
        }
        let mut state = self.state();
        if let Some(published) = state.ledger.published.get(&play.run) {
            let mut message = published.clone();
            message.head.outcome = PublishOutcome::Skipped;
            return message.encode(budget);
        }
        let objective = task.objective.as_ref().map(|objective| objective.metric.clone());
        let metric = MetricSummary {
            name: objective.unwrap_or_else(|| "loss".to_owned()),
            value: "0.9722".to_owned(),
            step: 4,
            timestamp: None,
            count: 5,
            min: "0.9".to_owned(),
            max: "1.0".to_owned(),
        };
        let uri = format!("s3://models/team/{}/model.tar", task.run_id);
        let message = PublishMessage {
            head: PublishHead {
                outcome: PublishOutcome::Published,
                exit: Some(record),
                artifact: Some(WireArtifact {
                    digest: digest::of_bytes(task.run_id.as_bytes()),
                    size_bytes: 20480,
                    uri: uri.clone(),
                }),
                objective: Some(metric.value.clone()),
                counts: Counts {
                    metrics: 1,
                    parameters: 1,
                    tags: 1,
                },
                error: None,
            },
            tail: PublishTail {
                artifact_uri: uri,
                format: task.format.clone(),
                model: "model".to_owned(),
                metrics: vec![metric],
                parameters: vec![NamedValue {
                    name: "c".to_owned(),
                    value: "0.5".to_owned(),
                }],
                tags: vec![NamedValue {
                    name: "dataset".to_owned(),
                    value: "wine".to_owned(),
                }],
                ..PublishTail::default()
            },
        };
        state.ledger.published.insert(play.run.clone(), message.clone());
        message.encode(budget)
    }

    /// Returns the exit of a container as with the code of the agent.
    fn ended(&self, spec: &ContainerSpec, play: Option<&Play>, mut exit: Exit) -> Exit {
        let Some(play) = play else { return exit };
        match spec.key.name.as_str() {
            "trainer" if exit.code == 0 && exit.signal.is_none() && !play.skip => {
                *self.state().ledger.finished.entry(play.run.clone()).or_default() += 1;
            }
            "publish" => {
                if let Some(task) = task::<PublishTask>(spec) {
                    exit.message = self.publish_message(play, &task, &exit).into_bytes();
                }
            }
            // A killed process writes no message.
            "fetch" if exit.signal.is_some() => exit.message.clear(),
            _ => {}
        }
        exit
    }
}

/// Returns the task in the environment of a container of Legion.
fn task<T: DeserializeOwned>(spec: &ContainerSpec) -> Option<T> {
    let (_, text) = spec.declaration.env.iter().find(|(name, _)| name == env::TASK)?;
    serde_json::from_str(text).ok()
}

impl PodRuntime for Agents {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn prepare(&self, pod: &PodKey, volumes: Vec<Volume>) -> BoxFuture<'static, Result<(), String>> {
        self.inner.prepare(pod, volumes)
    }

    fn start(&self, spec: ContainerSpec) -> BoxFuture<'static, Result<Running, StartFailure>> {
        let script = match spec.key.name.as_str() {
            "fetch" => Some(self.fetch(&spec)),
            "trainer" => self.play(&spec.pod).map(|play| self.trainer(&play)),
            "publish" => self.play(&spec.pod).map(|play| self.publish(&play)),
            _ => None,
        };
        if let Some(script) = script {
            self.inner
                .script(&format!("{}/{}", spec.pod.name, spec.key.name), script);
        }
        let this = self.clone();
        let play = self.play(&spec.pod);
        let start = self.inner.start(spec.clone());
        async move {
            let running = start.await?;
            let exit = running.exit;
            Ok(Running {
                exit: async move { this.ended(&spec, play.as_ref(), exit.await) }.boxed(),
                ..running
            })
        }
        .boxed()
    }

    fn stop(&self, container: &ContainerKey, stop: Stop) {
        self.inner.stop(container, stop);
    }

    fn recover(&self, pod: &PodKey, container: &str) -> BoxFuture<'static, Option<(u32, Recovered)>> {
        self.inner.recover(pod, container)
    }

    fn pods(&self) -> BoxFuture<'static, Vec<String>> {
        self.inner.pods()
    }

    fn remove(&self, uid: &str) -> BoxFuture<'static, ()> {
        self.inner.remove(uid)
    }

    fn log(
        &self,
        container: &ContainerKey,
        follow: bool,
    ) -> BoxFuture<'static, Option<BoxStream<'static, std::io::Result<LogItem>>>> {
        self.inner.log(container, follow)
    }

    fn log_tail(&self, container: &ContainerKey) -> BoxFuture<'static, Vec<u8>> {
        self.inner.log_tail(container)
    }

    fn outgrown(&self, pod: &PodKey, volumes: &[Volume]) -> BoxFuture<'static, Outgrown> {
        self.inner.outgrown(pod, volumes)
    }

    fn provision(&self, claim: &str) -> BoxFuture<'static, Result<(), String>> {
        self.inner.provision(claim)
    }

    fn release(&self, claim: &str) -> BoxFuture<'static, ()> {
        self.inner.release(claim)
    }
}
