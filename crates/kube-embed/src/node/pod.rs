//! The task of one pod on this node. It starts containers, waits for the next event and reports the status.
//!
//! Every slow operation (reading volumes, preparing an image, starting, running, backing off) is a future in one set.
//! Each returns a [`WorkResult`]. Between two results the data is consistent. The status that follows from it goes to
//! the [writer](super::writer), which may lag behind but always writes the last one.

mod ending;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Context;
use super::events::InvolvedObject;
use super::prepare::{self, Blocked};
use super::runtime::{ContainerKey, ContainerSpec, Exit, Outgrown, PodKey, Recovered, Running, StartFailure, Volume};
use super::status::{self, ContainerRecord, PodRecord, RecordedState, Terminated};
use super::termination;
use super::volumes::{self, Problem};
use super::writer::{DesiredPod, StatusWriter};

/// The kubelet's back-off for containers and images: 10 s, doubling to 5 min.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// The kubelet's back-off for volumes.
const MOUNT_FIRST: Duration = Duration::from_millis(500);
const MOUNT_MAX: Duration = Duration::from_secs(122);
/// Seconds after which a running container's back-off is reset.
const BACKOFF_RESET: i64 = 600;
/// Grace period of an evicted pod's containers.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// A command from the node to a pod's task.
#[derive(Debug)]
pub(crate) enum Command {
    /// The current pod.
    Update(Arc<Pod>),
    /// The object no longer exists: stop everything immediately and write nothing.
    Gone,
    /// The node shuts down.
    Shutdown {
        /// The longest allowed grace period.
        grace: Duration,
    },
}

enum WorkResult {
    Volumes(Result<Vec<Volume>, Problem>),
    Ready(usize, Box<Result<prepare::Launch, Blocked>>),
    Started(usize, Result<Running, StartFailure>),
    Exited(usize, Exit, Option<String>),
    BackedOff(usize),
    Retry(usize),
    RetryVolumes,
    Outgrown(Outgrown),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContainerStep {
    Idle,
    Preparing,
    Starting,
    Running,
    Backoff,
    Ended,
}

struct ContainerSlot {
    container: Container,
    record: ContainerRecord,
    step: ContainerStep,
    attempt: u32,
    failures: u32,
    stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TerminationCause {
    Deleted,
    Gone,
    Deadline,
    Evicted,
    Shutdown,
    /// The main containers have ended, and only sidecars are left.
    Completed,
}

struct Termination {
    cause: TerminationCause,
    kill_at: Instant,
    killed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MountState {
    None,
    Working,
    Ready,
}

struct PodWorker {
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    key: PodKey,
    slots: Vec<ContainerSlot>,
    mounts: MountState,
    mount_backoff: Duration,
    work: FuturesUnordered<BoxFuture<'static, WorkResult>>,
    ending: Option<Termination>,
    pod_record: PodRecord,
    status: k8s_openapi::api::core::v1::PodStatus,
    writer: Option<StatusWriter>,
}

/// Runs a pod until it has ended and its last status is written.
pub(crate) async fn run(ctx: Arc<Context>, pod: Arc<Pod>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let mut worker = PodWorker::new(ctx, pod);
    worker.recover().await;
    worker.consider_deletion();
    loop {
        if worker.advance() {
            break;
        }
        worker.report();
        let deadline = worker.deadline();
        let kill_at = worker.ending.as_ref().filter(|e| !e.killed).map(|e| e.kill_at);
        tokio::select! {
            biased;
            command = inbox.recv() => worker.command(command.unwrap_or(Command::Gone)),
            Some(done) = worker.work.next() => worker.done(done),
            () = until(kill_at) => worker.kill(),
            () = until(deadline), if worker.ending.is_none() => worker.exceed_deadline(),
        }
    }
    worker.finish(&mut inbox).await;
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl PodWorker {
    fn new(ctx: Arc<Context>, pod: Arc<Pod>) -> Self {
        let key = PodKey {
            uid: pod.uid().unwrap_or_default(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
        };
        let spec = pod.spec.clone().unwrap_or_default();
        let has_init = spec.init_containers.as_ref().is_some_and(|list| !list.is_empty());
        let init = spec.init_containers.into_iter().flatten().map(|c| (c, true));
        let waiting = if has_init {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        let slots = init
            .chain(spec.containers.into_iter().map(|c| (c, false)))
            .map(|(container, init)| ContainerSlot {
                record: ContainerRecord {
                    name: container.name.clone(),
                    image: container.image.clone().unwrap_or_default(),
                    image_id: String::new(),
                    init,
                    sidecar: init && container.restart_policy.as_deref() == Some("Always"),
                    state: RecordedState::waiting(waiting),
                    last: None,
                    restarts: 0,
                },
                container,
                step: ContainerStep::Idle,
                attempt: 0,
                failures: 0,
                stopping: false,
            })
            .collect();
        let old = pod.status.clone().unwrap_or_default();
        let now = ctx.clock.now();
        let pod_record = PodRecord {
            start_time: Some(old.start_time.as_ref().map_or(now, |t| t.0)),
            container_prefix: ctx.runtime.name(),
            ..PodRecord::default()
        };
        let writer = StatusWriter::spawn(&ctx, &key);
        Self {
            ctx,
            pod,
            key,
            slots,
            mounts: MountState::None,
            mount_backoff: MOUNT_FIRST,
            work: FuturesUnordered::new(),
            ending: None,
            pod_record,
            status: old,
            writer: Some(writer),
        }
    }

    /// Recovers from a restart of the node. Running containers are adopted, ended ones are counted, and nothing is
    /// started twice.
    async fn recover(&mut self) {
        let old = self.status.clone();
        let known = |name: &str| {
            let lists = [&old.init_container_statuses, &old.container_statuses];
            lists.into_iter().flatten().flatten().find(|s| s.name == name).cloned()
        };
        for index in 0..self.slots.len() {
            let name = self.slots[index].record.name.clone();
            let before = known(&name);
            if let Some(status) = &before {
                self.slots[index].record.image_id.clone_from(&status.image_id);
            }
            let recovered = self.ctx.runtime.recover(&self.key, &name);
            match recovered.await {
                Some((attempt, Recovered::Running(running))) => {
                    self.set_attempt(index, attempt);
                    self.adopt(index, running);
                }
                Some((attempt, Recovered::Exited { id, exit })) => {
                    self.set_attempt(index, attempt);
                    let message = self.message_of(index, exit.clone());
                    let message = message.await;
                    self.exited(index, &id, &exit, message);
                }
                None => {
                    let state = before.and_then(|s| s.state);
                    let ran = state.is_some_and(|s| s.running.is_some() || s.terminated.is_some());
                    if ran {
                        // The container ran, but the runtime no longer knows it. Its end is unknown, and it must not
                        // run again.
                        let now = self.ctx.clock.now();
                        let exit = Exit {
                            code: 137,
                            signal: None,
                            oom_killed: false,
                            lost: true,
                            started_at: now,
                            finished_at: now,
                            message: Vec::new(),
                        };
                        self.exited(index, "", &exit, None);
                    }
                }
            }
        }
    }

    fn set_attempt(&mut self, index: usize, attempt: u32) {
        let slot = &mut self.slots[index];
        slot.attempt = attempt;
        slot.record.restarts = attempt;
    }

    fn policy(&self) -> &str {
        self.pod
            .spec
            .as_ref()
            .and_then(|s| s.restart_policy.as_deref())
            .unwrap_or("Always")
    }

    /// Starts everything that can start now. Returns true if the pod has ended.
    fn advance(&mut self) -> bool {
        let busy = |slot: &ContainerSlot| matches!(slot.step, ContainerStep::Starting | ContainerStep::Running);
        if self.ending.is_some() {
            self.terminate();
            return !self.slots.iter().any(busy);
        }
        let init_failed = self
            .slots
            .iter()
            .any(|s| s.record.init && !s.record.sidecar && s.step == ContainerStep::Ended && !s.record.init_passed());
        let main_ended = self
            .slots
            .iter()
            .filter(|s| !s.record.init)
            .all(|s| s.step == ContainerStep::Ended);
        if init_failed || main_ended {
            if !self.slots.iter().any(busy) {
                return true;
            }
            let kill_at = Instant::now() + self.grace();
            self.ending = Some(Termination {
                cause: TerminationCause::Completed,
                kill_at,
                killed: false,
            });
            self.terminate();
            return false;
        }
        if self.mounts == MountState::None {
            self.mounts = MountState::Working;
            let (ctx, pod, key) = (Arc::clone(&self.ctx), Arc::clone(&self.pod), self.key.clone());
            self.work.push(
                async move {
                    let resolved = match volumes::resolve(&ctx.client, &pod).await {
                        Ok(volumes) => ctx
                            .runtime
                            .prepare(&key, volumes.clone())
                            .await
                            .map(|()| volumes)
                            .map_err(|message| Problem {
                                volume: String::new(),
                                message,
                            }),
                        Err(problem) => Err(problem),
                    };
                    WorkResult::Volumes(resolved)
                }
                .boxed(),
            );
        }
        if self.mounts != MountState::Ready {
            return false;
        }
        for index in 0..self.slots.len() {
            if self.slots[index].step == ContainerStep::Idle {
                self.begin(index);
            }
            if self.slots[index].record.init && !self.slots[index].record.init_passed() {
                return false;
            }
        }
        false
    }

    fn begin(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.step = ContainerStep::Preparing;
        let (ctx, pod) = (Arc::clone(&self.ctx), Arc::clone(&self.pod));
        let (container, init) = (slot.container.clone(), slot.record.init);
        self.work.push(
            async move { WorkResult::Ready(index, Box::new(prepare::launch(&ctx, &pod, &container, init).await)) }
                .boxed(),
        );
    }

    fn done(&mut self, done: WorkResult) {
        match done {
            WorkResult::Volumes(Ok(volumes)) => {
                self.mounts = MountState::Ready;
                self.pod_record.ready_to_start = true;
                let outgrown = self.ctx.runtime.outgrown(&self.key, &volumes);
                self.work.push(outgrown.map(WorkResult::Outgrown).boxed());
            }
            WorkResult::Volumes(Err(problem)) => self.mount_failed(&problem),
            WorkResult::RetryVolumes if self.mounts == MountState::Working => self.mounts = MountState::None,
            WorkResult::RetryVolumes => {}
            WorkResult::Ready(index, _) if self.ending.is_some() => self.slots[index].step = ContainerStep::Idle,
            WorkResult::Ready(index, result) => match *result {
                Ok(launch) => self.start(index, launch),
                Err(blocked) => self.blocked(index, blocked),
            },
            WorkResult::Started(index, result) => self.started(index, result),
            WorkResult::Exited(index, exit, message) => {
                let id = match &self.slots[index].record.state {
                    RecordedState::Running { id, .. } => id.clone(),
                    _ => String::new(),
                };
                self.exited(index, &id, &exit, message);
            }
            WorkResult::BackedOff(index) if self.slots[index].step == ContainerStep::Backoff => {
                self.image_back_off(index)
            }
            WorkResult::BackedOff(_) => {}
            WorkResult::Retry(index) if self.slots[index].step == ContainerStep::Backoff => {
                self.slots[index].step = ContainerStep::Idle
            }
            WorkResult::Retry(_) => {}
            WorkResult::Outgrown(outgrown) => self.evict(&outgrown),
        }
    }

    fn mount_failed(&mut self, problem: &Problem) {
        let message = if problem.volume.is_empty() {
            problem.message.clone()
        } else {
            format!(
                "MountVolume.SetUp failed for volume {:?} : {}",
                problem.volume, problem.message
            )
        };
        self.ctx
            .recorder
            .warning(InvolvedObject::pod(&self.pod), "FailedMount", message);
        self.work.push(
            self.ctx
                .changed_or_after(self.mount_backoff)
                .map(|()| WorkResult::RetryVolumes)
                .boxed(),
        );
        self.mount_backoff = (self.mount_backoff * 2).min(MOUNT_MAX);
    }

    fn about(&self, index: usize) -> InvolvedObject {
        let record = &self.slots[index].record;
        InvolvedObject::container(&self.pod, &record.name, record.init)
    }

    fn blocked(&mut self, index: usize, blocked: Blocked) {
        let about = self.about(index);
        let slot = &mut self.slots[index];
        slot.step = ContainerStep::Backoff;
        let retry = match &blocked {
            Blocked::Image { message } => {
                let image = slot.record.image.clone();
                self.ctx.recorder.warning(
                    about.clone(),
                    "Failed",
                    format!("Failed to pull image {image:?}: {message}"),
                );
                self.ctx.recorder.warning(about, "Failed", "Error: ErrImagePull");
                slot.record.state = RecordedState::Waiting {
                    reason: "ErrImagePull".into(),
                    message: Some(message.clone()),
                };
                slot.failures += 1;
                let after = backoff(slot.failures);
                self.work.push(
                    tokio::time::sleep(Duration::from_secs(1))
                        .map(move |()| WorkResult::BackedOff(index))
                        .boxed(),
                );
                tokio::time::sleep(after).boxed()
            }
            Blocked::Config { message } => {
                self.ctx.recorder.warning(about, "Failed", format!("Error: {message}"));
                slot.record.state = RecordedState::Waiting {
                    reason: "CreateContainerConfigError".into(),
                    message: Some(message.clone()),
                };
                self.ctx.changed_or_after(BACKOFF_FIRST)
            }
        };
        self.work.push(retry.map(move |()| WorkResult::Retry(index)).boxed());
    }

    fn image_back_off(&mut self, index: usize) {
        let about = self.about(index);
        let record = &mut self.slots[index].record;
        let RecordedState::Waiting { reason, message } = &mut record.state else {
            return;
        };
        if reason != "ErrImagePull" {
            return;
        }
        let detail = message.take().unwrap_or_default();
        let image = &record.image;
        *reason = "ImagePullBackOff".into();
        *message = Some(format!("Back-off pulling image {image:?}: ErrImagePull: {detail}"));
        self.ctx
            .recorder
            .normal(about.clone(), "BackOff", format!("Back-off pulling image {image:?}"));
        self.ctx.recorder.warning(about, "Failed", "Error: ImagePullBackOff");
    }

    fn container_key(&self, index: usize) -> ContainerKey {
        let slot = &self.slots[index];
        ContainerKey {
            pod: self.key.uid.clone(),
            name: slot.record.name.clone(),
            attempt: slot.attempt,
        }
    }

    fn start(&mut self, index: usize, launch: prepare::Launch) {
        let about = self.about(index);
        let key = self.container_key(index);
        let slot = &mut self.slots[index];
        slot.step = ContainerStep::Starting;
        slot.record.image_id = launch.image_id;
        self.ctx
            .recorder
            .normal(about, "Created", format!("Created container: {}", slot.record.name));
        let spec = ContainerSpec {
            key,
            pod: self.key.clone(),
            declaration: launch.declaration,
            mounts: launch.mounts,
            memory_limit: launch.memory_limit,
            cpu_limit_milli: launch.cpu_limit_milli,
        };
        let start = self.ctx.runtime.start(spec);
        self.work
            .push(start.map(move |result| WorkResult::Started(index, result)).boxed());
    }

    fn started(&mut self, index: usize, result: Result<Running, StartFailure>) {
        let about = self.about(index);
        match result {
            Ok(running) => {
                let name = &self.slots[index].record.name;
                self.ctx
                    .recorder
                    .normal(about, "Started", format!("Started container {name}"));
                self.adopt(index, running);
            }
            Err(failure) => {
                self.ctx.recorder.warning(about, "Failed", format!("Error: {failure}"));
                let now = self.ctx.clock.now();
                // This is what containerd reports for a container that its runtime could not start.
                let end = Terminated {
                    id: String::new(),
                    code: 128,
                    signal: None,
                    reason: "StartError".into(),
                    message: self.cut(failure.message.as_bytes()),
                    started_at: jiff::Timestamp::UNIX_EPOCH,
                    finished_at: now,
                };
                self.ended(index, end, false);
            }
        }
    }

    fn cut(&self, message: &[u8]) -> Option<String> {
        termination::message(message, None, self.slots.len())
    }

    fn adopt(&mut self, index: usize, running: Running) {
        let slot = &mut self.slots[index];
        slot.step = ContainerStep::Running;
        slot.stopping = false;
        slot.record.state = RecordedState::Running {
            id: running.id,
            started_at: running.started_at,
        };
        let (ctx, key, fallback, total) = (
            Arc::clone(&self.ctx),
            self.container_key(index),
            self.fallback(index),
            self.slots.len(),
        );
        self.work.push(
            async move {
                let exit = running.exit.await;
                let message = message(&ctx, &key, &exit, fallback, total).await;
                WorkResult::Exited(index, exit, message)
            }
            .boxed(),
        );
    }

    fn fallback(&self, index: usize) -> bool {
        self.slots[index].container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
    }

    /// Reads a container's termination message. The future borrows nothing, so `self` stays usable.
    fn message_of(&self, index: usize, exit: Exit) -> impl Future<Output = Option<String>> + Send + use<> {
        let (ctx, key, fallback, total) = (
            Arc::clone(&self.ctx),
            self.container_key(index),
            self.fallback(index),
            self.slots.len(),
        );
        async move { message(&ctx, &key, &exit, fallback, total).await }
    }

    fn exited(&mut self, index: usize, id: &str, exit: &Exit, message: Option<String>) {
        let (reason, message) = match exit {
            Exit { lost: true, .. } => (
                "ContainerStatusUnknown",
                Some("The container could not be located when the pod was terminated".to_owned()),
            ),
            Exit {
                oom_killed: true, code, ..
            } if *code != 0 => ("OOMKilled", message),
            Exit { code: 0, .. } => ("Completed", message),
            _ => ("Error", message),
        };
        let long = exit.finished_at.as_second() - exit.started_at.as_second() >= BACKOFF_RESET;
        let end = Terminated {
            id: id.to_owned(),
            code: exit.code,
            signal: exit.signal,
            reason: reason.into(),
            message,
            started_at: exit.started_at,
            finished_at: exit.finished_at,
        };
        self.ended(index, end, long);
    }

    fn ended(&mut self, index: usize, end: Terminated, reset: bool) {
        let policy = self.policy().to_owned();
        let ending = self.ending.is_some();
        let about = self.about(index);
        let slot = &mut self.slots[index];
        let again = !ending
            && match policy.as_str() {
                _ if slot.record.sidecar => true,
                "Never" => false,
                "OnFailure" => end.code != 0,
                _ => !slot.record.init || end.code != 0,
            };
        slot.record.state = RecordedState::Terminated(end.clone());
        if !again {
            slot.step = ContainerStep::Ended;
            return;
        }
        slot.failures = if reset { 0 } else { slot.failures };
        let wait = if slot.failures == 0 {
            Duration::ZERO
        } else {
            backoff(slot.failures)
        };
        slot.failures += 1;
        slot.attempt += 1;
        slot.record.restarts += 1;
        slot.record.last = Some(end);
        slot.step = ContainerStep::Backoff;
        if !wait.is_zero() {
            let place = format!("{}_{}({})", self.key.name, self.key.namespace, self.key.uid);
            let name = &slot.record.name;
            slot.record.state = RecordedState::Waiting {
                reason: "CrashLoopBackOff".into(),
                message: Some(format!(
                    "back-off {}s restarting failed container={name} pod={place}",
                    wait.as_secs()
                )),
            };
            let text = format!("Back-off restarting failed container {name} in pod {place}");
            self.ctx.recorder.warning(about, "BackOff", text);
        }
        self.work
            .push(tokio::time::sleep(wait).map(move |()| WorkResult::Retry(index)).boxed());
    }

    fn report(&mut self) {
        let Some(writer) = &self.writer else { return };
        let records: Vec<_> = self.slots.iter().map(|s| s.record.clone()).collect();
        let mut old = self.status.clone();
        let foreign = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let conditions = old.conditions.get_or_insert_default();
        for condition in foreign {
            if !conditions.iter().any(|c| c.type_ == condition.type_) {
                conditions.push(condition.clone());
            }
        }
        let new = status::build(&self.pod, &records, &self.pod_record, &old, self.ctx.clock.now());
        if new != self.status {
            writer.write(DesiredPod {
                status: new.clone(),
                remove: false,
            });
            self.status = new;
        }
    }

    async fn finish(mut self, inbox: &mut mpsc::UnboundedReceiver<Command>) {
        self.pod_record.finished = true;
        let initialized = self
            .slots
            .iter()
            .any(|s| !s.record.init && s.step == ContainerStep::Ended);
        let cut_short = self
            .ending
            .as_ref()
            .is_some_and(|e| e.cause != TerminationCause::Completed);
        let now = self.ctx.clock.now();
        for slot in self
            .slots
            .iter_mut()
            .filter(|s| initialized && cut_short && s.step != ContainerStep::Ended)
        {
            slot.record.state = RecordedState::Terminated(Terminated {
                id: String::new(),
                code: 137,
                signal: None,
                reason: "ContainerStatusUnknown".into(),
                message: Some("The container could not be located when the pod was terminated".into()),
                started_at: now,
                finished_at: now,
            });
        }
        self.report();
        if self.pod.metadata.deletion_timestamp.is_some()
            && let Some(writer) = &self.writer
        {
            writer.write(DesiredPod {
                status: self.status.clone(),
                remove: true,
            });
        }
        let Some(writer) = self.writer.take() else { return };
        let written = writer.finish();
        tokio::pin!(written);
        loop {
            tokio::select! {
                () = &mut written => return,
                command = inbox.recv() => if matches!(command, None | Some(Command::Gone)) { return },
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(8))
        .min(BACKOFF_MAX)
}

async fn message(ctx: &Context, key: &ContainerKey, exit: &Exit, fallback: bool, containers: usize) -> Option<String> {
    if fallback && exit.code != 0 && exit.message.is_empty() {
        let log = ctx.runtime.log_tail(key).await;
        return termination::message(b"", Some(&log), containers);
    }
    termination::message(&exit.message, None, containers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_five_minutes() {
        let seconds: Vec<_> = (1..=8).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
