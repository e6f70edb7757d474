//! A runtime that runs nothing: a test says what each container does, and tokio's clock says when.
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

/// What a container does after SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTerm {
    Die,
    Ignore,
    Exit { after: Duration, code: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(i32),
    OutOfMemory,
}

/// What one instance of a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    run: Option<Duration>,
    end: End,
    on_term: OnTerm,
    message: Vec<u8>,
    log: Vec<(Duration, Bytes)>,
    start_failure: Option<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            run: Some(Duration::ZERO),
            end: End::Code(0),
            on_term: OnTerm::Die,
            message: Vec::new(),
            log: Vec::new(),
            start_failure: None,
        }
    }
}

impl Script {
    /// A container that ends at once with code 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs this long before it ends by itself.
    #[must_use]
    pub fn runs(mut self, time: Duration) -> Self {
        self.run = Some(time);
        self
    }

    /// Runs until somebody ends it.
    #[must_use]
    pub fn runs_for_ever(mut self) -> Self {
        self.run = None;
        self
    }

    /// Ends with this exit code.
    #[must_use]
    pub fn exits(mut self, code: i32) -> Self {
        self.end = End::Code(code);
        self
    }

    /// Ends by this signal.
    #[must_use]
    pub fn dies_of(mut self, signal: i32) -> Self {
        self.end = End::Signal(signal);
        self
    }

    /// Ends by its memory limit.
    #[must_use]
    pub fn runs_out_of_memory(mut self) -> Self {
        self.end = End::OutOfMemory;
        self
    }

    /// Ignores SIGTERM.
    #[must_use]
    pub fn ignores_term(mut self) -> Self {
        self.on_term = OnTerm::Ignore;
        self
    }

    /// Answers SIGTERM by ending with `code` after this time.
    #[must_use]
    pub fn traps_term(mut self, after: Duration, code: i32) -> Self {
        self.on_term = OnTerm::Exit { after, code };
        self
    }

    /// Leaves this termination message, however it ends.
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

    /// Writes this to its log some time after its start. Call in order of time.
    #[must_use]
    pub fn logs_at(mut self, after: Duration, text: impl Into<Bytes>) -> Self {
        self.log.push((after, text.into()));
        self
    }

    /// Does not start at all.
    #[must_use]
    pub fn fails_to_start(mut self, message: impl Into<String>) -> Self {
        self.start_failure = Some(message.into());
        self
    }
}

/// One start of a container, as a test can look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The pod.
    pub pod: PodKey,
    /// Which instance of which container.
    pub key: ContainerKey,
    /// When, by tokio's clock, since the runtime was made.
    pub at: Duration,
    /// The expanded command line (mount paths untouched: there are no directories).
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
struct State {
    scripts: HashMap<String, VecDeque<Script>>,
    pods: BTreeSet<String>,
    containers: BTreeMap<ContainerKey, ContainerState>,
    started: Vec<Started>,
    volumes: BTreeMap<String, Vec<Volume>>,
    outgrown: BTreeMap<(String, String), watch::Sender<bool>>,
    claims: BTreeSet<String>,
}

/// The scripted runtime. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct ScriptedRuntime {
    clock: Arc<dyn Clock>,
    origin: tokio::time::Instant,
    state: Arc<Mutex<State>>,
}

impl ScriptedRuntime {
    /// A runtime whose containers all end at once with code 0 until scripts say otherwise. Use the API server's clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            origin: tokio::time::Instant::now(),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is only ever replaced whole under the lock, so a panic elsewhere leaves it consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What containers of this name do from now on. The name may be `pod/container` for one pod's container, which
    /// goes before the plain name.
    pub fn script(&self, container: &str, script: Script) {
        self.state()
            .scripts
            .insert(container.to_owned(), VecDeque::from([script]));
    }

    /// What the next instances of containers of this name do, one after the other; the last one repeats.
    pub fn scripts(&self, container: &str, scripts: impl IntoIterator<Item = Script>) {
        self.state()
            .scripts
            .insert(container.to_owned(), scripts.into_iter().collect());
    }

    /// Every start so far, in order.
    pub fn started(&self) -> Vec<Started> {
        self.state().started.clone()
    }

    /// The volumes a pod was prepared with.
    pub fn volumes(&self, pod_uid: &str) -> Vec<Volume> {
        self.state().volumes.get(pod_uid).cloned().unwrap_or_default()
    }

    /// Makes a pod's volume outgrow its limit.
    pub fn outgrow(&self, pod_uid: &str, volume: &str) {
        self.state()
            .outgrown
            .entry((pod_uid.to_owned(), volume.to_owned()))
            .or_insert_with(|| watch::channel(false).0)
            .send_replace(true);
    }

    fn next_script(state: &mut State, pod: &PodKey, container: &str) -> Script {
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
        // A task of its own, as a process is: it goes on when the node that started it is gone.
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
                // An error means that the sender is gone, which the task does last.
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
                // An error means that the container was forgotten, which ends it as a kill does.
                if !matches!(changed.as_deref(), Ok(Some(Stop::Term))) {
                    end = End::Signal(SIGKILL);
                    break;
                }
                term_seen = true;
                match script.on_term {
                    OnTerm::Die => {
                        end = End::Signal(SIGTERM);
                        break;
                    }
                    OnTerm::Ignore => {}
                    OnTerm::Exit { after, code } => {
                        end = End::Code(code);
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
        End::Code(code) => (code, None, false),
        End::Signal(signal) => (128 + signal, Some(signal), false),
        End::OutOfMemory => (128 + SIGKILL, Some(SIGKILL), true),
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
        // Dropping the stop channel ends what still runs.
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
                    // Without a sender the pod is gone, and nobody waits any more.
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
