//! Following a training: what it does, what it prints, and how long Legion's own part took.

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

/// How a followed training ended.
pub(crate) struct Followed {
    /// The training at its end.
    pub(crate) training: ModelTraining,
    /// What Legion's own part took in the last attempt, where it was seen from its beginning.
    pub(crate) overhead: Overhead,
}

/// What Legion's own part took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Overhead {
    /// From the pod's creation to the trainer's start, without the next two.
    pub(crate) start: Option<Duration>,
    /// How long `fetch` ran.
    pub(crate) fetch: Duration,
    /// How long the trainer's environment took to make.
    pub(crate) environment: Duration,
    /// From the trainer's end to `Succeeded`: checking, packing, storing, telling.
    pub(crate) finish: Option<Duration>,
}

/// Prints progress to standard error: with a spinner on a terminal, as plain lines elsewhere.
pub(crate) struct Progress {
    began: Instant,
    spinner: Option<ProgressBar>,
    log_lines: bool,
}

impl Progress {
    /// Begins now.
    #[must_use]
    pub(crate) fn new(log_lines: bool) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is a constant; were it wrong, the default would do.
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

    /// Something happened.
    pub(crate) fn step(&self, text: &str) {
        let line = format!("{:7.2}s  {text}", self.began.elapsed().as_secs_f64());
        if let Some(bar) = &self.spinner {
            bar.set_message(text.to_owned());
        }
        self.print(&line);
    }

    /// The training printed a line.
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

/// Follows a training until it has ended in a state that `accept` takes. What an earlier run has left is no news.
pub(crate) async fn follow(
    session: &Session,
    current: &ModelTraining,
    progress: &Progress,
    accept: impl Fn(&ModelTraining) -> bool,
) -> Result<Followed> {
    let name = &current.name_any();
    let mut streams = Streams::open(session, name);
    let mut view = View::after(current);
    let (lines, mut printed) = mpsc::unbounded_channel::<String>();
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            Some(line) = printed.recv() => progress.log(&line),
            Some(pod) = streams.pods.next() => {
                for step in view.pod(&pod, Instant::now()) {
                    progress.step(&step);
                }
                if view.begins_log(&pod) {
                    readers.spawn(read_log(session.client.clone(), pod, lines.clone()));
                }
            }
            Some(event) = streams.events.next() => {
                if let Some(step) = view.event(&event, Instant::now()) {
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
                if let Some(step) = view.training(&training) {
                    progress.step(&step);
                }
                if training::state(&training) != TrainingState::Open && accept(&training) {
                    let seen = Instant::now();
                    drop(lines);
                    // A log ends with its container; more than a moment means a connection that hangs.
                    let rest = async {
                        while let Some(line) = printed.recv().await {
                            progress.log(&line);
                        }
                    };
                    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
                    return Ok(Followed { training, overhead: view.overhead(seen) });
                }
            }
        }
    }
}

/// What is watched.
struct Streams {
    /// The training; none when it is gone.
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

/// What was seen so far of the current attempt.
#[derive(Default)]
struct View {
    /// Id of the run that had ended before.
    past: Option<String>,
    said: Option<(String, String)>,
    pod: Option<String>,
    /// Whether the pod was seen before its first container began: only then are its times known.
    from_the_beginning: bool,
    created: Option<Instant>,
    fetch: Option<(Instant, Option<Instant>)>,
    trainer: Option<(Instant, Option<Instant>)>,
    reads_log: bool,
    making: Option<Instant>,
    environment: Duration,
    told: Vec<String>,
}

impl View {
    /// Of a training whose next end is waited for.
    fn after(training: &ModelTraining) -> Self {
        let has_ended = training::succeeded(training).is_some_and(|condition| condition.status != "Unknown");
        Self {
            past: training::run_id(training).filter(|_| has_ended).map(ToOwned::to_owned),
            ..Self::default()
        }
    }

    fn training(&mut self, training: &ModelTraining) -> Option<String> {
        if self.past.is_some() && self.past.as_deref() == training::run_id(training) {
            return None;
        }
        let condition = training::succeeded(training)?;
        let said = (condition.reason.clone(), condition.message.clone());
        if self.said.as_ref() == Some(&said) {
            return None;
        }
        let step = format!("{}: {}", said.0, said.1);
        self.said = Some(said);
        Some(step)
    }

    fn pod(&mut self, pod: &Pod, now: Instant) -> Vec<String> {
        let name = pod.name_any();
        let mut steps = Vec::new();
        if self.past.is_some() && self.past.as_ref() == pod.labels().get(labels::RUN) {
            return steps;
        }
        if self.pod.as_ref() != Some(&name) {
            // An earlier attempt's pod may linger and change: the later name wins.
            if self.pod.as_ref().is_some_and(|current| later(current, &name)) {
                return steps;
            }
            *self = Self {
                past: self.past.take(),
                said: self.said.take(),
                pod: Some(name.clone()),
                created: Some(now),
                ..Self::default()
            };
            self.from_the_beginning =
                container(pod, "fetch").is_none_or(|state| state.running.is_none() && state.terminated.is_none());
            steps.push(format!("pod {name}"));
        }
        note(&mut self.fetch, container(pod, "fetch"), now);
        note(&mut self.trainer, container(pod, "trainer"), now);
        steps
    }

    fn begins_log(&mut self, pod: &Pod) -> bool {
        let begins = !self.reads_log && self.trainer.is_some() && self.pod.as_deref() == pod.metadata.name.as_deref();
        self.reads_log |= begins;
        begins
    }

    /// What an event of the current pod says about images, and what went wrong.
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
                    self.making.get_or_insert(now);
                }
            }
            "Pulled" => {
                if let Some(since) = self.making.take_if(|_| trainer) {
                    self.environment += now - since;
                }
                // Those that were there already are no news.
                if message.contains("already present") {
                    return None;
                }
            }
            _ if event.type_.as_deref() == Some("Warning") => {}
            _ => return None,
        }
        // A repeated event comes again with a higher count.
        if self.told.contains(&message) {
            return None;
        }
        self.told.push(message.clone());
        Some(message)
    }

    fn overhead(&self, done: Instant) -> Overhead {
        let fetch = match self.fetch {
            Some((begin, Some(end))) => end - begin,
            _ => Duration::ZERO,
        };
        let start = match (self.created, self.trainer) {
            (Some(created), Some((begin, _))) if self.from_the_beginning => {
                Some((begin - created).saturating_sub(fetch).saturating_sub(self.environment))
            }
            _ => None,
        };
        let finish = self
            .trainer
            .and_then(|(_, end)| end)
            .filter(|_| self.from_the_beginning)
            .map(|end| done - end);
        Overhead {
            start,
            fetch,
            environment: self.environment,
            finish,
        }
    }
}

/// Attempts are the last part of a pod's name; runs have other names altogether.
fn later(a: &str, b: &str) -> bool {
    match (a.rsplit_once('-'), b.rsplit_once('-')) {
        (Some((run_a, a)), Some((run_b, b))) if run_a == run_b => a.parse::<u64>().ok() > b.parse::<u64>().ok(),
        _ => false,
    }
}

fn note(seen: &mut Option<(Instant, Option<Instant>)>, state: Option<&ContainerState>, now: Instant) {
    let Some(state) = state else { return };
    if state.running.is_some() || state.terminated.is_some() {
        let times = seen.get_or_insert((now, None));
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
        // Nothing that user code prints may steer the terminal.
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
    fn overhead_leaves_out_fetching_and_the_environment() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let mut view = View::default();
        assert_eq!(view.pod(&pod("t-1-1", "", ""), at(0)), ["pod t-1-1"]);
        view.pod(&pod("t-1-1", "running", ""), at(20));
        view.pod(&pod("t-1-1", "ended", ""), at(120));
        assert!(
            view.event(&event("t-1-1", "Pulling", "Making the environment"), at(130))
                .is_some()
        );
        assert!(
            view.event(&event("other", "Pulling", "of another pod"), at(131))
                .is_none()
        );
        view.event(&event("t-1-1", "Pulled", "Successfully pulled"), at(1130));
        assert!(!view.begins_log(&pod("t-1-1", "ended", "")));
        view.pod(&pod("t-1-1", "ended", "running"), at(1150));
        assert!(view.begins_log(&pod("t-1-1", "ended", "running")));
        view.pod(&pod("t-1-1", "ended", "ended"), at(5000));
        assert_eq!(
            view.overhead(at(5070)),
            Overhead {
                start: Some(Duration::from_millis(50)),
                fetch: Duration::from_millis(100),
                environment: Duration::from_millis(1000),
                finish: Some(Duration::from_millis(70)),
            }
        );
    }

    #[test]
    fn of_a_pod_that_was_joined_midway_no_time_is_claimed() {
        let now = Instant::now();
        let mut view = View::default();
        view.pod(&pod("t-1-1", "ended", "running"), now);
        assert_eq!((view.overhead(now).start, view.overhead(now).finish), (None, None));
    }

    #[test]
    fn a_lingering_pod_of_an_earlier_attempt_is_passed_over() {
        let now = Instant::now();
        let mut view = View::default();
        view.pod(&pod("t-7f-10", "", ""), now);
        assert!(view.pod(&pod("t-7f-9", "ended", "ended"), now).is_empty());
        assert_eq!(view.pod.as_deref(), Some("t-7f-10"));
    }

    #[test]
    fn what_the_run_before_has_left_is_no_news() {
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
        let mut view = View::after(&training("7f", "True"));
        assert_eq!(view.training(&training("7f", "True")), None);
        assert!(view.pod(&of_run("7f"), now).is_empty());
        assert!(!view.begins_log(&of_run("7f")));
        assert_eq!(view.training(&training("80", "Unknown")).as_deref(), Some("R: 80"));
        assert_eq!(view.pod(&of_run("80"), now), ["pod t-80-1"]);
        assert!(view.pod(&of_run("7f"), now).is_empty(), "also when it is seen last");

        // A run that goes on is followed.
        let mut view = View::after(&training("7f", "Unknown"));
        assert_eq!(view.pod(&of_run("7f"), now), ["pod t-7f-1"]);
    }
}
