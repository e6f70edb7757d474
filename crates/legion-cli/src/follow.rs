//! Follows a training: prints its conditions, events and log, and measures the overhead of Legion.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use futures::{AsyncBufReadExt as _, StreamExt as _, stream::BoxStream};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::{ContainerState, Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::LogParams,
    runtime::{WatchStreamExt as _, watcher},
};
use legion_api::ModelTraining;
use legion_plan::training::labels;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    client::Session,
    exit::{CliError, Code, Result},
    kinds, output,
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

/// Follows a training until it has ended in a state that `accept` accepts. Conditions and pods of an earlier run are
/// not printed.
pub(crate) async fn follow(
    session: &Session,
    current: &ModelTraining,
    progress: &Progress,
    accept: impl Fn(&ModelTraining) -> bool,
) -> Result<Followed> {
    let name = &current.name_any();
    let mut streams = Streams::open(session, name);
    let mut attempt = AttemptProgress::after(current);
    let (lines, mut printed) = mpsc::unbounded_channel::<String>();
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            Some(line) = printed.recv() => progress.log(&line),
            Some(pod) = streams.pods.next() => {
                for step in attempt.pod(&pod, Instant::now()) {
                    progress.step(&step);
                }
                if attempt.starts_log(&pod) {
                    readers.spawn(read_log(session.client.clone(), pod, lines.clone()));
                }
            }
            Some(event) = streams.events.next() => {
                if let Some(step) = attempt.event(&event, Instant::now()) {
                    progress.step(&step);
                }
            }
            next = streams.trainings.next() => {
                let Some(training) = next else {
                    return Err(CliError::new(Code::Other, "the watch ended"));
                };
                let Some(training) = training else {
                    return Err(kinds::no_training(&session.namespace, name).context("while following"));
                };
                if let Some(step) = attempt.training(&training) {
                    progress.step(&step);
                }
                if training::state(&training) != TrainingState::Open && accept(&training) {
                    let seen = Instant::now();
                    drop(lines);
                    // A log ends with its container. If it takes longer, the connection hangs.
                    let rest = async {
                        while let Some(line) = printed.recv().await {
                            progress.log(&line);
                        }
                    };
                    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
                    return Ok(Followed { training, overhead: attempt.overhead(seen) });
                }
            }
        }
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
    /// Id of the run that had ended before.
    previous_run: Option<String>,
    condition: Option<(String, String)>,
    pod: Option<String>,
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
    /// Starts to follow a training. If its current run has ended, the next run is followed.
    fn after(training: &ModelTraining) -> Self {
        let has_ended = training::succeeded(training).is_some_and(|condition| condition.status != "Unknown");
        Self {
            previous_run: training::run_id(training).filter(|_| has_ended).map(ToOwned::to_owned),
            ..Self::default()
        }
    }

    fn training(&mut self, training: &ModelTraining) -> Option<String> {
        if self.previous_run.is_some() && self.previous_run.as_deref() == training::run_id(training) {
            return None;
        }
        let condition = training::succeeded(training)?;
        let reported = (condition.reason.clone(), condition.message.clone());
        if self.condition.as_ref() == Some(&reported) {
            return None;
        }
        let step = format!("{}: {}", reported.0, reported.1);
        self.condition = Some(reported);
        Some(step)
    }

    fn pod(&mut self, pod: &Pod, now: Instant) -> Vec<String> {
        let name = pod.name_any();
        let mut steps = Vec::new();
        if self.previous_run.is_some() && self.previous_run.as_ref() == pod.labels().get(labels::RUN) {
            return steps;
        }
        if self.pod.as_ref() != Some(&name) {
            // The pod of an earlier attempt may still exist and change. The pod of the later attempt counts.
            if self.pod.as_ref().is_some_and(|current| later(current, &name)) {
                return steps;
            }
            *self = Self {
                previous_run: self.previous_run.take(),
                condition: self.condition.take(),
                pod: Some(name.clone()),
                created: Some(now),
                ..Self::default()
            };
            self.seen_from_start =
                container(pod, "fetch").is_none_or(|state| state.running.is_none() && state.terminated.is_none());
            steps.push(format!("pod {name}"));
        }
        record_times(&mut self.fetch, container(pod, "fetch"), now);
        record_times(&mut self.trainer, container(pod, "trainer"), now);
        steps
    }

    fn starts_log(&mut self, pod: &Pod) -> bool {
        let starts = !self.reads_log && self.trainer.is_some() && self.pod.as_deref() == pod.metadata.name.as_deref();
        self.reads_log |= starts;
        starts
    }

    /// Returns the message of an event of the current pod: about an image, or a warning.
    fn event(&mut self, event: &Event, now: Instant) -> Option<String> {
        if self.pod.is_none() || event.involved_object.name != self.pod {
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

/// Returns whether pod `a` belongs to a later attempt of the same run than pod `b`. The attempt is the last part of the
/// name.
fn later(a: &str, b: &str) -> bool {
    match (a.rsplit_once('-'), b.rsplit_once('-')) {
        (Some((run_a, a)), Some((run_b, b))) if run_a == run_b => a.parse::<u64>().ok() > b.parse::<u64>().ok(),
        _ => false,
    }
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

async fn read_log(client: kube::Client, pod: Pod, lines: mpsc::UnboundedSender<String>) {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let params = LogParams {
        container: Some("trainer".to_owned()),
        follow: true,
        ..LogParams::default()
    };
    let stream = match pods.log_stream(&pod.name_any(), &params).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "the log cannot be read while it is written");
            return;
        }
    };
    let mut stream = Box::pin(stream).lines();
    while let Some(Ok(line)) = stream.next().await {
        // The output of user code must not control the terminal.
        let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        if lines.send(line).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, fetch: &str, trainer: &str) -> Pod {
        let state = |state: &str| match state {
            "running" => json!({"running": {}}),
            "ended" => json!({"terminated": {"exitCode": 0}}),
            _ => json!({"waiting": {"reason": "PodInitializing"}}),
        };
        let status = |name: &str, text: &str| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state(text)});
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "status": {"initContainerStatuses": [status("fetch", fetch)], "containerStatuses": [status("trainer", trainer)]},
        }))
        .unwrap()
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
        let mut attempt = AttemptProgress::default();
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
        assert!(!attempt.starts_log(&pod("t-1-1", "ended", "")));
        attempt.pod(&pod("t-1-1", "ended", "running"), at(1150));
        assert!(attempt.starts_log(&pod("t-1-1", "ended", "running")));
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
        let mut attempt = AttemptProgress::default();
        attempt.pod(&pod("t-1-1", "ended", "running"), now);
        assert_eq!(
            (attempt.overhead(now).start, attempt.overhead(now).finish),
            (None, None)
        );
    }

    #[test]
    fn a_remaining_pod_of_an_earlier_attempt_is_ignored() {
        let now = Instant::now();
        let mut attempt = AttemptProgress::default();
        attempt.pod(&pod("t-7f-10", "", ""), now);
        assert!(attempt.pod(&pod("t-7f-9", "ended", "ended"), now).is_empty());
        assert_eq!(attempt.pod.as_deref(), Some("t-7f-10"));
    }

    #[test]
    fn the_conditions_and_pods_of_the_previous_run_are_ignored() {
        let training = |run: &str, succeeded: &str| -> ModelTraining {
            serde_json::from_value(json!({
                "metadata": {"name": "t"},
                "spec": {"model": {"name": "m", "version": "1"}, "toolchain": "script", "source": {"git": {"uri": "https://example.com/x.git"}}},
                "status": {
                    "run": {"id": run, "sequence": 1, "generation": 1, "attempt": 1},
                    "conditions": [{"type": "Succeeded", "status": succeeded, "reason": "R", "message": run, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                },
            }))
            .unwrap()
        };
        let of_run = |run: &str| {
            let mut pod = pod(&format!("t-{run}-1"), "ended", "ended");
            pod.metadata.labels = Some([(labels::RUN.to_owned(), run.to_owned())].into());
            pod
        };
        let now = Instant::now();
        let mut attempt = AttemptProgress::after(&training("7f", "True"));
        assert_eq!(attempt.training(&training("7f", "True")), None);
        assert!(attempt.pod(&of_run("7f"), now).is_empty());
        assert!(!attempt.starts_log(&of_run("7f")));
        assert_eq!(attempt.training(&training("80", "Unknown")).as_deref(), Some("R: 80"));
        assert_eq!(attempt.pod(&of_run("80"), now), ["pod t-80-1"]);
        assert!(attempt.pod(&of_run("7f"), now).is_empty(), "also when it is seen last");

        // A run that goes on is followed.
        let mut attempt = AttemptProgress::after(&training("7f", "Unknown"));
        assert_eq!(attempt.pod(&of_run("7f"), now), ["pod t-7f-1"]);
    }
}
