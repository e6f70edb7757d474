//! A runtime that runs nothing. A test scripts each container, and tokio's clock controls the time.
//!
//! ```
//! # use kube_embed::node::runtime::scripted::{Script, ScriptedRuntime};
//! # use std::time::Duration;
//! # let clock = std::sync::Arc::new(kube_embed::SystemClock);
//! let runtime = ScriptedRuntime::new(clock);
//! runtime.script("trainer", Script::new().runs(Duration::from_secs(30)).logs("epoch 1\n").exits(3));
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    ContainerKey, ContainerSpec, Exit, LogItem, Outgrown, PodKey, PodRuntime, Recovered, Running, StartFailure, Stop,
    Volume,
};
use crate::clock::Clock;
use crate::node::launch::{self, CommandLine, Translator};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Reaction of a container to SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTerm {
    Die,
    Ignore,
    Exit { after: Duration, code: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScriptedEnd {
    Code(i32),
    Signal(i32),
    OutOfMemory,
}

/// Behavior of one instance of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    run: Option<Duration>,
    end: ScriptedEnd,
    on_term: OnTerm,
    message: Vec<u8>,
    log: Vec<(Duration, Bytes)>,
    start_failure: Option<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            run: Some(Duration::ZERO),
            end: ScriptedEnd::Code(0),
            on_term: OnTerm::Die,
            message: Vec::new(),
            log: Vec::new(),
            start_failure: None,
        }
    }
}

impl Script {
    /// Creates a script of a container that ends immediately with code 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs for this long and then ends.
    #[must_use]
    pub fn runs(mut self, time: Duration) -> Self {
        self.run = Some(time);
        self
    }

    /// Runs until it is stopped.
    #[must_use]
    pub fn runs_for_ever(mut self) -> Self {
        self.run = None;
        self
    }

    /// Ends with this exit code.
    #[must_use]
    pub fn exits(mut self, code: i32) -> Self {
        self.end = ScriptedEnd::Code(code);
        self
    }

    /// Ends because of this signal.
    #[must_use]
    pub fn dies_of(mut self, signal: i32) -> Self {
        self.end = ScriptedEnd::Signal(signal);
        self
    }

    /// Ends because of its memory limit.
    #[must_use]
    pub fn runs_out_of_memory(mut self) -> Self {
        self.end = ScriptedEnd::OutOfMemory;
        self
    }

    /// Ignores SIGTERM.
    #[must_use]
    pub fn ignores_term(mut self) -> Self {
        self.on_term = OnTerm::Ignore;
        self
    }

    /// Ends with `code` this long after SIGTERM.
    #[must_use]
    pub fn traps_term(mut self, after: Duration, code: i32) -> Self {
        self.on_term = OnTerm::Exit { after, code };
        self
    }

    /// Leaves this termination message for any end.
    #[must_use]
    pub fn message(mut self, message: impl Into<Vec<u8>>) -> Self {
        self.message = message.into();
        self
    }

    /// Writes this to its log at its start.
    #[must_use]
    pub fn logs(self, text: impl Into<Bytes>) -> Self {
        self.logs_at(Duration::ZERO, text)
    }

    /// Writes this to its log some time after its start. Calls must be in order of time.
    #[must_use]
    pub fn logs_at(mut self, after: Duration, text: impl Into<Bytes>) -> Self {
        self.log.push((after, text.into()));
        self
    }

    /// Fails to start.
    #[must_use]
    pub fn fails_to_start(mut self, message: impl Into<String>) -> Self {
        self.start_failure = Some(message.into());
        self
    }
}

/// A recorded start of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The pod.
    pub pod: PodKey,
    /// Identity of the instance.
    pub key: ContainerKey,
    /// Time since the creation of the runtime, by tokio's clock.
    pub at: Duration,
    /// The expanded command line. Mount paths are unchanged, because there are no directories.
    pub command: CommandLine,
}

#[derive(Default)]
struct ContainerState {
    stop: Option<watch::Sender<Option<Stop>>>,
    log: Option<watch::Receiver<Log>>,
    started_at: Option<Timestamp>,
    exit: Option<Exit>,
}

#[derive(Clone, Default)]
struct Log {
    lines: Vec<(Timestamp, Bytes)>,
    ended: bool,
}

#[derive(Default)]
struct ScriptedState {
    scripts: HashMap<String, VecDeque<Script>>,
    pods: BTreeSet<String>,
    containers: BTreeMap<ContainerKey, ContainerState>,
    started: Vec<Started>,
    volumes: BTreeMap<String, Vec<Volume>>,
    outgrown: BTreeMap<(String, String), watch::Sender<bool>>,
    claims: BTreeSet<String>,
}

/// The scripted runtime. It is cheap to clone. Clones share all data.
#[derive(Clone)]
pub struct ScriptedRuntime {
    clock: Arc<dyn Clock>,
    origin: tokio::time::Instant,
    state: Arc<Mutex<ScriptedState>>,
}

impl ScriptedRuntime {
    /// Creates a runtime. Without a script, containers end immediately with code 0. Use the API server's clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            origin: tokio::time::Instant::now(),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, ScriptedState> {
        // The data is only replaced as a whole under the lock, so a panic elsewhere leaves it consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the script of all containers with this name. The name can be `pod/container` for a container of one pod,
    /// which takes precedence over the plain name.
    pub fn script(&self, container: &str, script: Script) {
        self.state()
            .scripts
            .insert(container.to_owned(), VecDeque::from([script]));
    }

    /// Sets the scripts of the next instances of containers with this name, in order. The last one repeats.
    pub fn scripts(&self, container: &str, scripts: impl IntoIterator<Item = Script>) {
        self.state()
            .scripts
            .insert(container.to_owned(), scripts.into_iter().collect());
    }

    /// Returns every start so far, in order.
    pub fn started(&self) -> Vec<Started> {
        self.state().started.clone()
    }

    /// Returns the volumes with which a pod was prepared.
    pub fn volumes(&self, pod_uid: &str) -> Vec<Volume> {
        self.state().volumes.get(pod_uid).cloned().unwrap_or_default()
    }

    /// Lets a volume of a pod exceed its limit.
    pub fn outgrow(&self, pod_uid: &str, volume: &str) {
        self.state()
            .outgrown
            .entry((pod_uid.to_owned(), volume.to_owned()))
            .or_insert_with(|| watch::channel(false).0)
            .send_replace(true);
    }

    fn next_script(state: &mut ScriptedState, pod: &PodKey, container: &str) -> Script {
        for name in [format!("{}/{container}", pod.name), container.to_owned()] {
            if let Some(queue) = state.scripts.get_mut(&name) {
                let script = if queue.len() > 1 {
                    queue.pop_front()
                } else {
                    queue.front().cloned()
                };
                return script.unwrap_or_default();
            }
        }
        Script::default()
    }

    fn run(&self, spec: ContainerSpec) -> Result<Running, StartFailure> {
        let mut state = self.state();
        let script = Self::next_script(&mut state, &spec.pod, &spec.key.name);
        let command = launch::resolve(&spec.declaration, &Translator::default());
        state.started.push(Started {
            pod: spec.pod.clone(),
            key: spec.key.clone(),
            at: self.origin.elapsed(),
            command,
        });
        if let Some(message) = script.start_failure {
            return Err(StartFailure { message });
        }
        let (stop, stopped) = watch::channel(None);
        let (log_sender, log) = watch::channel(Log::default());
        let started_at = self.clock.now();
        let previous = state.containers.insert(
            spec.key.clone(),
            ContainerState {
                stop: Some(stop),
                log: Some(log),
                started_at: Some(started_at),
                exit: None,
            },
        );
        debug_assert!(previous.is_none(), "{:?} was started twice", spec.key);
        drop(state);
        // A separate task, like a process, continues after the node that started it has ended.
        tokio::spawn(play(
            self.clone(),
            spec.key.clone(),
            script,
            stopped,
            log_sender,
            started_at,
        ));
        Ok(Running {
            id: id(&spec.key),
            started_at,
            exit: self.wait(spec.key),
        })
    }

    fn wait(&self, key: ContainerKey) -> BoxFuture<'static, Exit> {
        let this = self.clone();
        async move {
            let log = this.state().containers.get(&key).and_then(|c| c.log.clone());
            if let Some(mut log) = log {
                // An error means that the sender was dropped, which the task does last.
                while !log.borrow_and_update().ended && log.changed().await.is_ok() {}
            }
            let exit = this.state().containers.get(&key).and_then(|c| c.exit.clone());
            exit.unwrap_or_else(|| Exit {
                code: 137,
                signal: Some(SIGKILL),
                oom_killed: false,
                lost: true,
                started_at: this.clock.now(),
                finished_at: this.clock.now(),
                message: Vec::new(),
            })
        }
        .boxed()
    }
}

fn id(key: &ContainerKey) -> String {
    format!("{}-{}-{}", key.pod, key.name, key.attempt)
}

async fn play(
    runtime: ScriptedRuntime,
    key: ContainerKey,
    script: Script,
    mut stopped: watch::Receiver<Option<Stop>>,
    log: watch::Sender<Log>,
    started_at: Timestamp,
) {
    let begin = tokio::time::Instant::now();
    let mut lines = script.log.clone().into_iter().peekable();
    let mut end_at = script.run.map(|run| begin + run);
    let mut end = script.end;
    let mut term_seen = false;
    loop {
        let line_at = lines.peek().map(|(after, _)| begin + *after);
        tokio::select! {
            biased;
            changed = stopped.wait_for(|stop| *stop == Some(Stop::Kill) || *stop == Some(Stop::Term) && !term_seen) => {
                // An error means that the container was removed, which ends it like a kill.
                if !matches!(changed.as_deref(), Ok(Some(Stop::Term))) {
                    end = ScriptedEnd::Signal(SIGKILL);
                    break;
                }
                term_seen = true;
                match script.on_term {
                    OnTerm::Die => {
                        end = ScriptedEnd::Signal(SIGTERM);
                        break;
                    }
                    OnTerm::Ignore => {}
                    OnTerm::Exit { after, code } => {
                        end = ScriptedEnd::Code(code);
                        end_at = Some(tokio::time::Instant::now() + after);
                    }
                }
            }
            () = until(line_at) => {
                if let Some((_, text)) = lines.next() {
                    let now = runtime.clock.now();
                    log.send_modify(|log| {
                        log.lines.extend(text.split_inclusive(|b| *b == b'\n').map(|l| (now, Bytes::copy_from_slice(l))));
                    });
                }
            }
            () = until(end_at) => break,
        }
    }
    let (code, signal, oom_killed) = match end {
        ScriptedEnd::Code(code) => (code, None, false),
        ScriptedEnd::Signal(signal) => (128 + signal, Some(signal), false),
        ScriptedEnd::OutOfMemory => (128 + SIGKILL, Some(SIGKILL), true),
    };
    let exit = Exit {
        code,
        signal,
        oom_killed,
        lost: false,
        started_at,
        finished_at: runtime.clock.now(),
        message: script.message,
    };
    if let Some(container) = runtime.state().containers.get_mut(&key) {
        container.exit = Some(exit);
        container.stop = None;
    }
    log.send_modify(|log| log.ended = true);
}

async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl PodRuntime for ScriptedRuntime {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn prepare(&self, pod: &PodKey, volumes: Vec<Volume>) -> BoxFuture<'static, Result<(), String>> {
        let mut state = self.state();
        state.pods.insert(pod.uid.clone());
        state.volumes.insert(pod.uid.clone(), volumes);
        async { Ok(()) }.boxed()
    }

    fn start(&self, spec: ContainerSpec) -> BoxFuture<'static, Result<Running, StartFailure>> {
        let this = self.clone();
        async move { this.run(spec) }.boxed()
    }

    fn stop(&self, container: &ContainerKey, stop: Stop) {
        if let Some(sender) = self.state().containers.get(container).and_then(|c| c.stop.as_ref()) {
            sender.send_replace(Some(stop));
        }
    }

    fn recover(&self, pod: &PodKey, container: &str) -> BoxFuture<'static, Option<(u32, Recovered)>> {
        let found = self
            .state()
            .containers
            .iter()
            .rfind(|(key, _)| key.pod == pod.uid && key.name == container)
            .map(|(key, state)| (key.clone(), state.exit.clone(), state.started_at));
        let recovered = found.map(|(key, exit, started_at)| {
            let attempt = key.attempt;
            let recovered = match exit {
                Some(exit) => Recovered::Exited { id: id(&key), exit },
                None => Recovered::Running(Running {
                    id: id(&key),
                    started_at: started_at.unwrap_or_else(|| self.clock.now()),
                    exit: self.wait(key),
                }),
            };
            (attempt, recovered)
        });
        async move { recovered }.boxed()
    }

    fn pods(&self) -> BoxFuture<'static, Vec<String>> {
        let pods = self.state().pods.iter().cloned().collect();
        async move { pods }.boxed()
    }

    fn remove(&self, uid: &str) -> BoxFuture<'static, ()> {
        let mut state = self.state();
        state.pods.remove(uid);
        state.volumes.remove(uid);
        state.outgrown.retain(|(pod, _), _| pod != uid);
        // Dropping the stop channel ends everything that still runs.
        state.containers.retain(|key, _| key.pod != uid);
        async {}.boxed()
    }

    fn log(
        &self,
        container: &ContainerKey,
        follow: bool,
    ) -> BoxFuture<'static, Option<BoxStream<'static, std::io::Result<LogItem>>>> {
        let log = self.state().containers.get(container).and_then(|c| c.log.clone());
        async move {
            let mut log = log?;
            let known = log.borrow_and_update().clone();
            let at_open = known.lines.len();
            let first = known
                .lines
                .into_iter()
                .map(|(time, data)| Ok(LogItem::Line { time, data }));
            let head = futures::stream::iter(first.chain([Ok(LogItem::CaughtUp)]));
            if !follow {
                return Some(head.boxed());
            }
            let rest = futures::stream::unfold(
                (log, at_open, known.ended),
                |(mut log, mut sent, mut ended)| async move {
                    while !ended {
                        let now = log.borrow_and_update().clone();
                        if let Some((time, data)) = now.lines.get(sent).cloned() {
                            sent += 1;
                            return Some((Ok(LogItem::Line { time, data }), (log, sent, false)));
                        }
                        ended = now.ended || log.changed().await.is_err();
                    }
                    None
                },
            );
            Some(head.chain(rest).boxed())
        }
        .boxed()
    }

    fn log_tail(&self, container: &ContainerKey) -> BoxFuture<'static, Vec<u8>> {
        let log = self.state().containers.get(container).and_then(|c| c.log.clone());
        let tail = log.map(|log| log.borrow().lines.iter().flat_map(|(_, data)| data.to_vec()).collect());
        async move { tail.unwrap_or_default() }.boxed()
    }

    fn outgrown(&self, pod: &PodKey, volumes: &[Volume]) -> BoxFuture<'static, Outgrown> {
        let watches: Vec<_> = {
            let mut state = self.state();
            volumes
                .iter()
                .map(|volume| {
                    let sender = state
                        .outgrown
                        .entry((pod.uid.clone(), volume.name.clone()))
                        .or_insert_with(|| watch::channel(false).0);
                    (volume.name.clone(), sender.subscribe())
                })
                .collect()
        };
        async move {
            let waits = watches.into_iter().map(|(name, mut seen)| {
                async move {
                    let outgrown = seen.wait_for(|outgrown| *outgrown).await.is_ok();
                    // Without a sender the pod no longer exists and has no waiters.
                    if outgrown { name } else { std::future::pending().await }
                }
                .boxed()
            });
            let waits: Vec<_> = waits.collect();
            if waits.is_empty() {
                return std::future::pending().await;
            }
            let (volume, _, _) = futures::future::select_all(waits).await;
            Outgrown { volume }
        }
        .boxed()
    }

    fn provision(&self, claim: &str) -> BoxFuture<'static, Result<(), String>> {
        self.state().claims.insert(claim.to_owned());
        async { Ok(()) }.boxed()
    }

    fn release(&self, claim: &str) -> BoxFuture<'static, ()> {
        self.state().claims.remove(claim);
        async {}.boxed()
    }
}
