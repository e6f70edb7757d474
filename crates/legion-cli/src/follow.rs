//! Follows a training: prints its conditions, events and log, and measures the overhead of Legion.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt as _, StreamExt as _, stream::BoxStream};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::{ContainerState, Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::LogParams,
    runtime::{WatchStreamExt as _, watcher},
};
use legion_api::ModelTraining;
use legion_plan::training::labels;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    client::Session,
    exit::{CliError, Code, Result},
    kinds,
    log_lines::LogLines,
    output,
    training::{self, TrainingState},
};

/// A followed training after its end.
pub(crate) struct Followed {
    pub(crate) training: ModelTraining,
    /// Overhead of the last attempt. Empty if the attempt was not followed from its start.
    pub(crate) overhead: Overhead,
}

/// Time that Legion adds to a training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Overhead {
    /// From the creation of the pod to the start of the trainer, without `fetch` and `environment`.
    pub(crate) start: Option<Duration>,
    /// Run time of the container `fetch`.
    pub(crate) fetch: Duration,
    /// Time to create the trainer's environment.
    pub(crate) environment: Duration,
    /// From the end of the trainer to `Succeeded`: check, pack, store and report the results.
    pub(crate) finish: Option<Duration>,
}

/// Prints progress to standard error. On a terminal it also shows a spinner.
pub(crate) struct Progress {
    began: Instant,
    spinner: Option<ProgressBar>,
    log_lines: bool,
}

impl Progress {
    /// Starts the clock. `log_lines` selects whether the log of the training is printed.
    #[must_use]
    pub(crate) fn new(log_lines: bool) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is a valid constant. If it were not, the default style would do.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            began: Instant::now(),
            spinner,
            log_lines,
        }
    }

    /// Prints a step, with the time since the start.
    pub(crate) fn step(&self, text: &str) {
        let line = format!("{:7.2}s  {text}", self.began.elapsed().as_secs_f64());
        if let Some(bar) = &self.spinner {
            bar.set_message(text.to_owned());
        }
        self.print(&line);
    }

    /// Prints a line of the training's log.
    fn log(&self, line: &str) {
        if self.log_lines {
            self.print(&format!("          | {line}"));
        }
    }

    fn print(&self, line: &str) {
        match &self.spinner {
            Some(bar) => bar.suspend(|| output::note(format_args!("{line}"))),
            None => output::note(format_args!("{line}")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.spinner {
            bar.finish_and_clear();
        }
    }
}

/// Runs a future with the time limit of `--timeout`. `what` names the command in the error.
pub(crate) async fn limited<T>(
    timeout: Option<Duration>,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout {
        None => work.await,
        Some(timeout) => tokio::time::timeout(timeout, work).await.map_err(|_| {
            CliError::new(
                Code::Timeout,
                format!("{what}: the training has not ended within {timeout:?}"),
            )
            .remedy("use a longer --timeout; `legionctl get mt` shows what the training is doing or waiting for")
        })?,
    }
}

/// Number of lines that wait to be printed. A terminal is slower than a log, and the reader waits for it.
const WAITING_LINES: usize = 1024;
/// A log ends with its container. If nothing comes for so long after the end of the training, the connection hangs.
const LOG_STALL: Duration = Duration::from_secs(5);

/// Follows a training until it has ended in a state of which `accept` says that it belongs to the content that was
/// applied. Only conditions, pods and lines of the run that is followed are printed: not those of an earlier run.
pub(crate) async fn follow(
    session: &Session,
    current: &ModelTraining,
    progress: &Progress,
    accept: impl Fn(&ModelTraining) -> bool,
) -> Result<Followed> {
    let name = &current.name_any();
    let mut streams = Streams::open(session, name);
    let mut attempt = AttemptProgress::after(current);
    let (lines, mut printed) = mpsc::channel::<String>(WAITING_LINES);
    let mut reader = LogReader::new(session.client.clone(), lines);
    let training = loop {
        let steps = tokio::select! {
            Some(line) = printed.recv() => {
                progress.log(&line);
                continue;
            }
            Some(pod) = streams.pods.next() => attempt.pod(&pod, Instant::now()),
            Some(event) = streams.events.next() => attempt.event(&event, Instant::now()).into_iter().collect(),
            next = streams.trainings.next() => {
                let Some(training) = next else {
                    return Err(CliError::new(Code::Other, "the watch ended"));
                };
                let Some(training) = training else {
                    return Err(kinds::no_training(&session.namespace, name).context("while following"));
                };
                // An older status is of the run before, or of a run that is replaced.
                if training::is_observed(&training) && accept(&training) {
                    let steps = attempt.training(&training);
                    if training::state(&training) != TrainingState::Open {
                        for step in steps {
                            progress.step(&step);
                        }
                        break training;
                    }
                    steps
                } else {
                    Vec::new()
                }
            }
        };
        for step in steps {
            progress.step(&step);
        }
        if let Some(pod) = attempt.starts_log() {
            reader.start(pod);
        }
    };
    let seen = Instant::now();
    // The watches are independent. The end may be seen before the start of the container.
    if let Some(pod) = training::pod(&training) {
        let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
        if let Some(pod) = pods.get_opt(pod).await? {
            attempt.pod(&pod, seen);
        }
    }
    if let Some(pod) = attempt.starts_log() {
        reader.start(pod);
    }
    drop(reader);
    while let Ok(Some(line)) = tokio::time::timeout(LOG_STALL, printed.recv()).await {
        progress.log(&line);
    }
    Ok(Followed {
        training,
        overhead: attempt.overhead(seen),
    })
}

/// Reads the logs of one attempt after the other. Dropping it lets the last log end.
struct LogReader {
    client: kube::Client,
    lines: mpsc::Sender<String>,
    current: Option<JoinHandle<()>>,
}

impl LogReader {
    fn new(client: kube::Client, lines: mpsc::Sender<String>) -> Self {
        Self {
            client,
            lines,
            current: None,
        }
    }

    /// Reads the log of a pod as soon as the log of the pod before has ended.
    fn start(&mut self, pod: Pod) {
        let before = self.current.take();
        let read = read_log(self.client.clone(), pod, self.lines.clone());
        self.current = Some(tokio::spawn(async move {
            if let Some(before) = before {
                // A log that cannot be read to its end must not hide the next one.
                let _ = before.await;
            }
            read.await;
        }));
    }
}

/// The watches of a followed training.
struct Streams {
    /// The training, or `None` after it was deleted.
    trainings: BoxStream<'static, Option<ModelTraining>>,
    pods: BoxStream<'static, Pod>,
    events: BoxStream<'static, Event>,
}

impl Streams {
    fn open(session: &Session, name: &str) -> Self {
        let client = &session.client;
        let namespace = &session.namespace;
        let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let trainings = watcher(Api::<ModelTraining>::namespaced(client.clone(), namespace), by_name)
            .default_backoff()
            .filter_map(async |event| match event {
                Ok(watcher::Event::Apply(training) | watcher::Event::InitApply(training)) => Some(Some(training)),
                Ok(watcher::Event::Delete(_)) => Some(None),
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => None,
            });
        let by_label = watcher::Config::default().labels(&format!("{}={name}", labels::TRAINING));
        let pods = watcher(Api::<Pod>::namespaced(client.clone(), namespace), by_label)
            .default_backoff()
            .applied_objects()
            .filter_map(async |pod| pod.ok());
        let of_pods = watcher::Config::default().fields("involvedObject.kind=Pod");
        let events = watcher(Api::<Event>::namespaced(client.clone(), namespace), of_pods)
            .default_backoff()
            .applied_objects()
            .filter_map(async |event| event.ok());
        Self {
            trainings: trainings.boxed(),
            pods: pods.boxed(),
            events: events.boxed(),
        }
    }
}

/// What the watches have shown of the current attempt.
#[derive(Default)]
struct AttemptProgress {
    /// The run and the last attempt that had ended before.
    previous: Option<(String, i64)>,
    /// Id of the run that is followed, after its training has reported it.
    run: Option<String>,
    /// Pods of runs that are not reported yet, with the time at which they were seen. The watch of pods may be ahead of
    /// the watch of trainings.
    early: Vec<(Pod, Instant)>,
    condition: Option<(String, String)>,
    pod: Option<Pod>,
    /// Whether the pod was seen before its first container started. Only then are its times known.
    seen_from_start: bool,
    created: Option<Instant>,
    fetch: Option<(Instant, Option<Instant>)>,
    trainer: Option<(Instant, Option<Instant>)>,
    reads_log: bool,
    preparing: Option<Instant>,
    environment: Duration,
    messages: Vec<String>,
}

impl AttemptProgress {
    /// Starts to follow a training. If its current run has ended, the next run or attempt is followed.
    fn after(training: &ModelTraining) -> Self {
        let has_ended = training::succeeded(training).is_some_and(|condition| condition.status != "Unknown");
        Self {
            previous: training::attempt(training).filter(|_| has_ended),
            ..Self::default()
        }
    }

    /// Returns the steps for a training whose status is current: its condition, and the pods that were seen early.
    fn training(&mut self, training: &ModelTraining) -> Vec<String> {
        let mut steps = Vec::new();
        let now = training::attempt(training);
        if self.previous.is_some() && self.previous == now {
            return steps;
        }
        let run = now.map(|(run, _)| run);
        if let Some(condition) = training::succeeded(training) {
            let reported = (condition.reason.clone(), condition.message.clone());
            if self.condition.as_ref() != Some(&reported) {
                steps.push(format!("{}: {}", reported.0, reported.1));
                self.condition = Some(reported);
            }
        }
        if run.is_some() && run != self.run {
            self.run = run;
            for (pod, seen) in std::mem::take(&mut self.early) {
                steps.extend(self.pod(&pod, seen));
            }
        }
        steps
    }

    /// Returns the steps for a pod. A pod of another run than the followed one is kept or ignored.
    fn pod(&mut self, pod: &Pod, now: Instant) -> Vec<String> {
        let mut steps = Vec::new();
        let Some((run, attempt)) = identity(pod) else {
            return steps;
        };
        if self
            .previous
            .as_ref()
            .is_some_and(|(of, last)| *of == run && attempt <= *last)
        {
            return steps;
        }
        if self.run.as_deref() != Some(run) {
            self.early.push((pod.clone(), now));
            return steps;
        }
        let current = self.pod.as_ref().and_then(identity);
        if current != Some((run, attempt)) {
            // The pod of an earlier attempt may still exist and change. The pod of the later attempt counts.
            if current.is_some_and(|current| current.0 == run && current.1 > attempt) {
                return steps;
            }
            *self = Self {
                previous: self.previous.take(),
                run: self.run.take(),
                early: std::mem::take(&mut self.early),
                condition: self.condition.take(),
                created: Some(now),
                ..Self::default()
            };
            self.seen_from_start =
                container(pod, "fetch").is_none_or(|state| state.running.is_none() && state.terminated.is_none());
            steps.push(format!("pod {}", pod.name_any()));
        }
        record_times(&mut self.fetch, container(pod, "fetch"), now);
        record_times(&mut self.trainer, container(pod, "trainer"), now);
        self.pod = Some(pod.clone());
        steps
    }

    /// Returns the pod whose log can be read now, once.
    fn starts_log(&mut self) -> Option<Pod> {
        let starts = !self.reads_log && self.trainer.is_some();
        self.reads_log |= starts;
        self.pod.clone().filter(|_| starts)
    }

    /// Returns the message of an event of the current pod: about an image, or a warning.
    fn event(&mut self, event: &Event, now: Instant) -> Option<String> {
        let pod = self.pod.as_ref()?;
        if event.involved_object.name != pod.metadata.name {
            return None;
        }
        let message = event.message.clone()?;
        let field = event.involved_object.field_path.as_deref().unwrap_or_default();
        let trainer = field.contains("{trainer}");
        match event.reason.as_deref()? {
            "Pulling" => {
                if trainer {
                    self.preparing.get_or_insert(now);
                }
            }
            "Pulled" => {
                if let Some(since) = self.preparing.take_if(|_| trainer) {
                    self.environment += now - since;
                }
                // An image that is present needs no line.
                if message.contains("already present") {
                    return None;
                }
            }
            _ if event.type_.as_deref() == Some("Warning") => {}
            _ => return None,
        }
        // A repeated event is the same object with a higher count.
        if self.messages.contains(&message) {
            return None;
        }
        self.messages.push(message.clone());
        Some(message)
    }

    fn overhead(&self, done: Instant) -> Overhead {
        let fetch = match self.fetch {
            Some((begin, Some(end))) => end - begin,
            _ => Duration::ZERO,
        };
        let start = match (self.created, self.trainer) {
            (Some(created), Some((begin, _))) if self.seen_from_start => {
                Some((begin - created).saturating_sub(fetch).saturating_sub(self.environment))
            }
            _ => None,
        };
        let finish = self
            .trainer
            .and_then(|(_, end)| end)
            .filter(|_| self.seen_from_start)
            .map(|end| done - end);
        Overhead {
            start,
            fetch,
            environment: self.environment,
            finish,
        }
    }
}

/// Returns the run and the attempt of a pod.
fn identity(pod: &Pod) -> Option<(&str, i64)> {
    let labels = pod.metadata.labels.as_ref()?;
    Some((labels.get(labels::RUN)?, labels.get(labels::ATTEMPT)?.parse().ok()?))
}

fn record_times(times: &mut Option<(Instant, Option<Instant>)>, state: Option<&ContainerState>, now: Instant) {
    let Some(state) = state else { return };
    if state.running.is_some() || state.terminated.is_some() {
        let times = times.get_or_insert((now, None));
        if state.terminated.is_some() {
            times.1.get_or_insert(now);
        }
    }
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerState> {
    let status = pod.status.as_ref()?;
    let all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    all.filter(|status| status.name == name)
        .find_map(|status| status.state.as_ref())
}

async fn read_log(client: kube::Client, pod: Pod, lines: mpsc::Sender<String>) {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let params = LogParams {
        container: Some("trainer".to_owned()),
        follow: true,
        ..LogParams::default()
    };
    let mut log = match pods.log_stream(&pod.name_any(), &params).await {
        Ok(stream) => Box::pin(stream),
        Err(error) => {
            tracing::debug!(%error, "the log cannot be read while it is written");
            return;
        }
    };
    let mut split = LogLines::default();
    let mut buffer = vec![0; 64 << 10];
    // A log that breaks off ends here. The stored log is whole.
    while let Ok(count @ 1..) = log.read(&mut buffer).await {
        for line in split.push(&buffer[..count]) {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    }
    if let Some(line) = split.finish() {
        // The receiver is gone when no one waits for lines anymore.
        let _ = lines.send(line).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the pod `TRAINING-RUN-ATTEMPT`.
    fn pod(name: &str, fetch: &str, trainer: &str) -> Pod {
        let mut parts = name.split('-').skip(1);
        let (run, attempt) = (parts.next().unwrap(), parts.next().unwrap());
        let state = |state: &str| match state {
            "running" => json!({"running": {}}),
            "ended" => json!({"terminated": {"exitCode": 0}}),
            _ => json!({"waiting": {"reason": "PodInitializing"}}),
        };
        let status = |name: &str, text: &str| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state(text)});
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {labels::RUN: run, labels::ATTEMPT: attempt}},
            "status": {"initContainerStatuses": [status("fetch", fetch)], "containerStatuses": [status("trainer", trainer)]},
        }))
        .unwrap()
    }

    fn training(run: &str, attempt: i32, succeeded: &str) -> ModelTraining {
        serde_json::from_value(json!({
            "metadata": {"name": "t", "generation": 1},
            "spec": {"model": {"name": "m", "version": "1"}, "toolchain": "script", "source": {"git": {"uri": "https://example.com/x.git"}}},
            "status": {
                "observedGeneration": 1,
                "run": {"id": run, "sequence": 1, "generation": 1, "attempt": attempt},
                "conditions": [{"type": "Succeeded", "status": succeeded, "reason": "R", "message": run, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }))
        .unwrap()
    }

    /// Follows a run from its start.
    fn following(run: &str) -> AttemptProgress {
        let mut attempt = AttemptProgress::default();
        assert_eq!(attempt.training(&training(run, 1, "Unknown")), [format!("R: {run}")]);
        attempt
    }

    fn event(pod: &str, reason: &str, message: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {"name": "e"}, "reason": reason, "message": message, "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": pod, "fieldPath": "spec.containers{trainer}"},
        }))
        .unwrap()
    }

    #[test]
    fn overhead_excludes_fetch_and_the_environment() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let mut attempt = following("1");
        assert_eq!(attempt.pod(&pod("t-1-1", "", ""), at(0)), ["pod t-1-1"]);
        attempt.pod(&pod("t-1-1", "running", ""), at(20));
        attempt.pod(&pod("t-1-1", "ended", ""), at(120));
        assert!(
            attempt
                .event(&event("t-1-1", "Pulling", "Creating the environment"), at(130))
                .is_some()
        );
        assert!(
            attempt
                .event(&event("other", "Pulling", "of another pod"), at(131))
                .is_none()
        );
        attempt.event(&event("t-1-1", "Pulled", "Successfully pulled"), at(1130));
        assert!(attempt.starts_log().is_none());
        attempt.pod(&pod("t-1-1", "ended", "running"), at(1150));
        assert_eq!(attempt.starts_log(), Some(pod("t-1-1", "ended", "running")));
        assert!(attempt.starts_log().is_none(), "a log is read once");
        attempt.pod(&pod("t-1-1", "ended", "ended"), at(5000));
        assert_eq!(
            attempt.overhead(at(5070)),
            Overhead {
                start: Some(Duration::from_millis(50)),
                fetch: Duration::from_millis(100),
                environment: Duration::from_millis(1000),
                finish: Some(Duration::from_millis(70)),
            }
        );
    }

    #[test]
    fn a_pod_that_has_started_before_has_no_overhead() {
        let now = Instant::now();
        let mut attempt = following("1");
        attempt.pod(&pod("t-1-1", "ended", "running"), now);
        assert_eq!(
            (attempt.overhead(now).start, attempt.overhead(now).finish),
            (None, None)
        );
    }

    #[test]
    fn a_remaining_pod_of_an_earlier_attempt_is_ignored() {
        let now = Instant::now();
        let mut attempt = following("7f");
        attempt.pod(&pod("t-7f-10", "", ""), now);
        assert!(attempt.pod(&pod("t-7f-9", "ended", "ended"), now).is_empty());
        assert_eq!(attempt.pod, Some(pod("t-7f-10", "", "")));
    }

    #[test]
    fn the_conditions_and_pods_of_earlier_runs_are_ignored() {
        let now = Instant::now();
        let mut attempt = AttemptProgress::after(&training("7f", 1, "True"));
        assert!(attempt.training(&training("7f", 1, "True")).is_empty());
        for old in ["t-7e-1", "t-7f-1"] {
            assert!(attempt.pod(&pod(old, "ended", "ended"), now).is_empty(), "{old}");
            assert!(attempt.starts_log().is_none(), "{old}");
        }
        assert_eq!(attempt.training(&training("80", 1, "Unknown")), ["R: 80"]);
        assert!(
            attempt.starts_log().is_none(),
            "an old pod does not become one of the new run"
        );
        assert_eq!(attempt.pod(&pod("t-80-1", "", "running"), now), ["pod t-80-1"]);
        assert!(attempt.starts_log().is_some());
        for old in ["t-7e-1", "t-7f-1"] {
            assert!(
                attempt.pod(&pod(old, "ended", "ended"), now).is_empty(),
                "{old}, seen last"
            );
            assert!(attempt.starts_log().is_none(), "{old}");
        }

        // A run that goes on is followed.
        let mut attempt = AttemptProgress::after(&training("7f", 1, "Unknown"));
        attempt.training(&training("7f", 1, "Unknown"));
        assert_eq!(attempt.pod(&pod("t-7f-1", "ended", "running"), now), ["pod t-7f-1"]);
    }

    #[test]
    fn a_pod_that_is_seen_before_its_run_is_followed_from_that_time() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let mut attempt = AttemptProgress::default();
        assert!(attempt.pod(&pod("t-1-1", "", ""), at(0)).is_empty());
        assert!(attempt.pod(&pod("t-1-1", "ended", "running"), at(30)).is_empty());
        assert_eq!(
            attempt.training(&training("1", 1, "Unknown")),
            ["R: 1", "pod t-1-1"],
            "once"
        );
        assert_eq!(attempt.starts_log(), Some(pod("t-1-1", "ended", "running")));
        assert_eq!(attempt.overhead(at(50)).start, Some(Duration::from_millis(30)));
    }

    #[test]
    fn further_attempts_of_an_ended_run_are_followed() {
        let now = Instant::now();
        let mut attempt = AttemptProgress::after(&training("7f", 2, "False"));
        assert_eq!(attempt.training(&training("7f", 3, "Unknown")), ["R: 7f"]);
        assert!(attempt.pod(&pod("t-7f-2", "ended", "ended"), now).is_empty());
        assert_eq!(attempt.pod(&pod("t-7f-3", "", ""), now), ["pod t-7f-3"]);
    }
}
