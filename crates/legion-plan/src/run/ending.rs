//! How an attempt ended: read from the containers `trainer` and `publish` by name, not from the pod's phase.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated};
use legion_api::{Reason, condition::cut, duration::Span, run::Failure};
use legion_protocol::{
    env,
    exit::ExitRecord,
    message::{Decoded, FetchHead, FetchMessage, FetchTail, PublishHead, PublishMessage, PublishOutcome, PublishTail},
    reason::{StepClass, StepError, StepReason},
    result::ToolError,
};

use super::containers::{Containers, has_started, terminated};

/// What `publish` reported.
pub(crate) type Facts = Decoded<PublishHead, PublishTail>;
/// What `fetch` reported.
pub(crate) type FetchFacts = Decoded<FetchHead, FetchTail>;

/// What follows from the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The run has succeeded.
    Success,
    /// The training's own fault: counts against `spec.retries`.
    User,
    /// Trying again would give the same answer.
    Final,
    /// Interrupted from outside: tried again, bounded.
    Disruption,
    /// The kubelet refused the pod, or could not start it: tried again, bounded.
    Rejected,
    /// It did not start in time: tried again, bounded.
    StartTimeout,
    /// A step of Legion's own failed for a reason that may pass: tried again, bounded.
    Step,
    /// A Secret is missing: tried again until it is there.
    SecretMissing,
    /// It could not start, and by now its pod would be made otherwise: made anew at once.
    Replan,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    pub verdict: Verdict,
    /// The reason that the run ends with, when this was its last attempt.
    pub reason: Reason,
    /// Why; absent after a success.
    pub failure: Option<Failure>,
    /// What `publish` reported, if it did.
    pub facts: Option<Box<Facts>>,
    /// When; absent when nobody has said.
    pub at: Option<Timestamp>,
}

impl End {
    pub(crate) fn new(verdict: Verdict, reason: Reason, step: &str, word: &str, message: impl Into<String>) -> Self {
        let failure = Failure {
            step: step.to_owned(),
            reason: word.to_owned(),
            message: message.into(),
            remedy: Some(reason.remedy().to_owned()).filter(|remedy| !remedy.is_empty()),
            ..Failure::default()
        };
        Self {
            verdict,
            reason,
            failure: Some(failure),
            facts: None,
            at: None,
        }
    }

    /// The same end, with the field that is at fault.
    fn field(mut self, field: &str) -> Self {
        if let Some(failure) = &mut self.failure {
            failure.field = Some(field.to_owned());
        }
        self
    }

    /// A pod that is no longer there, and left no word.
    pub(crate) fn vanished(pod: &str) -> Self {
        let message = format!("pod {pod} is gone: it was deleted, or lost with its node");
        Self::new(
            Verdict::Disruption,
            Reason::TooManyDisruptions,
            "pod",
            "PodLost",
            message,
        )
    }
}

/// What `fetch` reported, once it has ended.
pub(crate) fn fetch_facts(containers: &Containers<'_>) -> Option<FetchFacts> {
    FetchMessage::decode(terminated(containers.fetch?)?.message.as_deref()?).ok()
}

/// How the attempt ended; nothing while it has not.
pub(crate) fn end_of(containers: &Containers<'_>) -> Option<End> {
    let ending = Ending::read(containers);
    if !ending.has_ended() {
        return None;
    }
    let mut end = ending.judge();
    end.at = containers
        .ended_at()
        .or_else(|| containers.pod.metadata.deletion_timestamp.as_ref().map(|at| at.0));
    if let (Some(failure), Some(tail)) = (&mut end.failure, ending.log_tail()) {
        failure.log_tail = Some(tail);
    }
    end.facts = ending.facts.map(Box::new);
    Some(end)
}

struct Ending<'a> {
    containers: &'a Containers<'a>,
    fetch: Option<&'a ContainerStateTerminated>,
    trainer: Option<&'a ContainerStateTerminated>,
    publish: Option<&'a ContainerStateTerminated>,
    facts: Option<Facts>,
}

impl<'a> Ending<'a> {
    fn read(containers: &'a Containers<'a>) -> Self {
        let publish = containers.publish.and_then(terminated);
        Self {
            containers,
            fetch: containers.fetch.and_then(terminated),
            trainer: containers.trainer.and_then(terminated),
            publish,
            facts: publish.and_then(|end| PublishMessage::decode(end.message.as_deref()?).ok()),
        }
    }

    fn has_ended(&self) -> bool {
        let containers = self.containers;
        containers.is_over()
            || self.fetch.is_some_and(|end| end.exit_code != 0)
            // Whether or not the trainer still runs: nothing it does from here on would be published.
            || (self.publish.is_some() && !self.cause_is_to_come())
            // `publish` waits for a start that will not come.
            || self.trainer.is_some_and(|end| !has_started(end))
            // Nobody will ever report on it.
            || (containers.is_terminating() && !containers.is_scheduled())
    }

    /// The training code has failed, as `publish` knows, and its container, which is about to end, may tell why: that it was for
    /// want of memory.
    fn cause_is_to_come(&self) -> bool {
        self.trainer.is_none() && self.record().is_some_and(|record| record.exit_code != Some(0))
    }

    /// The first that matches. The order is part of the contract (docs: "How an attempt's end is judged").
    fn judge(&self) -> End {
        self.success()
            .or_else(|| self.own_deadline())
            .or_else(|| self.exit_record())
            .or_else(|| self.out_of_memory())
            .or_else(|| self.disruption())
            .or_else(|| self.evicted())
            .or_else(|| self.rejected())
            .or_else(|| self.killed_without_record())
            .or_else(|| self.failed_step())
            .unwrap_or_else(|| self.bare_exit_code())
    }

    fn success(&self) -> Option<End> {
        let outcome = self.facts.as_ref()?.head.outcome;
        matches!(outcome, PublishOutcome::Published | PublishOutcome::Skipped).then(|| End {
            verdict: Verdict::Success,
            reason: Reason::RunSucceeded,
            failure: None,
            facts: None,
            at: None,
        })
    }

    /// The pod's own deadline, a backstop: the signal that it sends does not come from outside the run.
    fn own_deadline(&self) -> Option<End> {
        (self.containers.reason() == "DeadlineExceeded").then(|| {
            let (step, what) = match (self.fetch.is_some_and(|end| end.exit_code == 0), self.trainer) {
                (false, _) => ("fetch", "source and data were still being fetched"),
                (true, None) => ("train", "the training code was still running"),
                (true, Some(_)) => ("publish", "the result was still being published"),
            };
            End::new(
                Verdict::Final,
                Reason::DeadlineExceeded,
                step,
                "PodDeadlineExceeded",
                format!("the pod reached its own deadline: {what}"),
            )
        })
    }

    fn record(&self) -> Option<&ExitRecord> {
        self.facts.as_ref()?.head.exit.as_ref()
    }

    fn exit_record(&self) -> Option<End> {
        let record = self.record()?;
        if let Some(signal) = record.outside_signal {
            // The kubelet tells a pod that exceeded its own limits to end, too: that is no interruption from outside.
            if let Some(evicted) = self.evicted() {
                return Some(evicted);
            }
            let message = format!(
                "the training code was told to end from outside ({})",
                signal_name(signal)
            );
            return Some(End::new(
                Verdict::Disruption,
                Reason::TooManyDisruptions,
                "train",
                "Interrupted",
                message,
            ));
        }
        let end = if record.timed_out {
            let limit = self.timeout().map_or_else(String::new, |limit| format!(" of {limit}"));
            End::new(
                Verdict::Final,
                Reason::DeadlineExceeded,
                "train",
                "DeadlineExceeded",
                format!("the training code ran longer than spec.timeout{limit}"),
            )
            .field("spec.timeout")
        } else if let Some(error) = &record.error {
            let verdict = match error.reason.class() {
                StepClass::User => Verdict::User,
                StepClass::Transient | StepClass::Storage => Verdict::Step,
            };
            let mut end = End::new(
                verdict,
                Reason::TrainerFailed,
                "train",
                error.reason.as_str(),
                error.message.clone(),
            )
            // Whose command it is.
            .field("spec.toolchain");
            if let Some(failure) = &mut end.failure {
                failure.remedy = Some(error.reason.remedy().to_owned());
            }
            end
        } else if record.exit_code == Some(0) {
            return None;
        } else if let Some(out_of_memory) = self.out_of_memory() {
            // The kernel killed a child and not PID 1: the record tells of a signal 9.
            out_of_memory
        } else if let Some(error) = self.tool_error() {
            refused(error)
        } else {
            let how = match (record.exit_code, record.signal) {
                (_, Some(signal)) => format!("was ended by {}", signal_name(signal)),
                // A shell says so that its command was ended by a signal.
                (Some(code @ 129..=159), None) => {
                    format!("ended with exit code {code}: {}", signal_name(code - 128))
                }
                (Some(code), None) => format!("ended with exit code {code}"),
                (None, None) => "ended without a word".to_owned(),
            };
            End::new(
                Verdict::User,
                Reason::TrainerFailed,
                "train",
                "TrainerFailed",
                format!("the training code {how}"),
            )
            .field("spec.source")
        };
        let mut end = end;
        if let Some(failure) = &mut end.failure {
            (failure.exit_code, failure.signal) = (record.exit_code, record.signal);
        }
        Some(end)
    }

    fn tool_error(&self) -> Option<&ToolError> {
        match &self.facts.as_ref()?.tail {
            legion_protocol::message::Tail::Whole(tail) => tail.tool_error.as_ref(),
            _ => None,
        }
    }

    /// The trainer as its pod was made.
    fn trainer_spec(&self) -> Option<&Container> {
        let containers = &self.containers.pod.spec.as_ref()?.containers;
        containers
            .iter()
            .find(|container| container.name == super::pod::TRAINER)
    }

    /// How long the training code was allowed to run.
    fn timeout(&self) -> Option<Span> {
        let variables = self.trainer_spec()?.env.as_ref()?;
        let timeout = variables
            .iter()
            .find(|variable| variable.name == env::TIMEOUT_SECONDS)?;
        timeout.value.as_ref()?.parse().ok().map(Span::from_secs)
    }

    fn out_of_memory(&self) -> Option<End> {
        let end = self.trainer.filter(|end| end.reason.as_deref() == Some("OOMKilled"))?;
        let limit = self
            .trainer_spec()
            .and_then(|trainer| trainer.resources.as_ref()?.limits.as_ref()?.get("memory"));
        let message = match limit {
            Some(limit) => format!("the training code used more memory than its limit of {}", limit.0),
            None => "the training code used more memory than its node could give".to_owned(),
        };
        let mut out = End::new(Verdict::User, Reason::OutOfMemory, "train", "OutOfMemory", message)
            .field("spec.resources.limits.memory");
        if let Some(failure) = &mut out.failure {
            failure.exit_code = Some(end.exit_code);
        }
        Some(out)
    }

    fn disruption(&self) -> Option<End> {
        let containers = self.containers;
        let name = containers.name();
        let target = containers
            .condition("DisruptionTarget")
            .filter(|condition| condition.status == "True");
        let message = if let Some(target) = target {
            let why = target.reason.as_deref().unwrap_or("DisruptionTarget");
            let message = target.message.as_deref().unwrap_or_default();
            format!("pod {name} was disrupted: {why}: {message}")
        } else if matches!(
            containers.reason(),
            "NodeLost" | "NodeShutdown" | "Terminated" | "Shutdown" | "Preempting"
        ) {
            format!(
                "pod {name} ended with its node: {}: {}",
                containers.reason(),
                containers.message()
            )
        } else if containers.is_terminating() {
            format!("pod {name} was deleted")
        } else {
            return None;
        };
        let message = message.trim_end_matches([':', ' ']);
        Some(End::new(
            Verdict::Disruption,
            Reason::TooManyDisruptions,
            "pod",
            "Disrupted",
            message,
        ))
    }

    fn evicted(&self) -> Option<End> {
        let containers = self.containers;
        let target = containers
            .condition("DisruptionTarget")
            .is_some_and(|condition| condition.status == "True");
        (containers.reason() == "Evicted" && !target).then(|| {
            End::new(
                Verdict::User,
                Reason::Evicted,
                "pod",
                "Evicted",
                format!("the pod was evicted: {}", containers.message()),
            )
        })
    }

    fn rejected(&self) -> Option<End> {
        let containers = self.containers;
        let unreported = containers.phase() == "Failed" && containers.all().next().is_none();
        if unreported {
            let reason = if containers.reason().is_empty() {
                "no reason given"
            } else {
                containers.reason()
            };
            let message = format!("the kubelet refused the pod: {reason}: {}", containers.message());
            let message = message.trim_end_matches([':', ' ']);
            return Some(End::new(
                Verdict::Rejected,
                Reason::PodRejected,
                "pod",
                "PodRejected",
                message,
            ));
        }
        let end = self.trainer.filter(|end| !has_started(end))?;
        let message = format!(
            "the container \"trainer\" could not be started: {}",
            end.message.as_deref().unwrap_or("no reason given")
        );
        Some(End::new(
            Verdict::Rejected,
            Reason::PodRejected,
            "train",
            "TrainerNotStarted",
            cut(&message, 1024),
        ))
    }

    /// A container that was killed and left no record: the node went away under it, or the kubelet ended it.
    fn killed_without_record(&self) -> Option<End> {
        if self.record().is_some() {
            return None;
        }
        let killed = |end: &&ContainerStateTerminated| {
            matches!(end.exit_code, 137 | 255) && end.reason.as_deref() != Some("OOMKilled")
        };
        let (step, end) = match (self.fetch.filter(killed), self.trainer.filter(killed)) {
            (Some(end), _) => ("fetch", end),
            (None, Some(end)) => ("train", end),
            (None, None) => return None,
        };
        let message = format!(
            "the container {:?} was killed (exit code {}) and left no record",
            if step == "fetch" { "fetch" } else { "trainer" },
            end.exit_code
        );
        Some(End::new(
            Verdict::Disruption,
            Reason::TooManyDisruptions,
            step,
            "Killed",
            message,
        ))
    }

    fn failed_step(&self) -> Option<End> {
        if let Some(end) = self.fetch.filter(|end| end.exit_code != 0) {
            let facts = fetch_facts(self.containers);
            return Some(step_failure("fetch", facts.and_then(|facts| facts.error()), end));
        }
        let publish = self.publish?;
        // A trainer that failed without a record is judged by its own code, unless `publish` knows better.
        let error = self.facts.as_ref().and_then(|facts| facts.error());
        if error.is_none() && self.trainer.is_some_and(|end| end.exit_code != 0) {
            return None;
        }
        if let Some(tool) = self.tool_error().filter(|_| {
            error
                .as_ref()
                .is_none_or(|error| error.reason == StepReason::ToolchainError)
        }) {
            return Some(refused(tool));
        }
        Some(step_failure("publish", error, publish))
    }

    fn bare_exit_code(&self) -> End {
        match self.trainer {
            Some(end) if end.exit_code != 0 => {
                let message = format!("the container \"trainer\" ended with exit code {}", end.exit_code);
                let mut out = End::new(Verdict::User, Reason::TrainerFailed, "train", "TrainerFailed", message);
                if let Some(failure) = &mut out.failure {
                    failure.exit_code = Some(end.exit_code);
                }
                out
            }
            _ => {
                let message = format!(
                    "pod {} ended in phase {:?} without a result",
                    self.containers.name(),
                    self.containers.phase()
                );
                End::new(Verdict::Rejected, Reason::PodRejected, "pod", "NoResult", message)
            }
        }
    }

    /// The last lines of the log: from `publish`, which has all of it, or from the kubelet.
    fn log_tail(&self) -> Option<String> {
        let whole = match self.facts.as_ref().map(|facts| &facts.tail) {
            Some(legion_protocol::message::Tail::Whole(tail)) => tail.log_tail.as_str(),
            _ => "",
        };
        let kept = || self.trainer.and_then(|end| end.message.as_deref()).unwrap_or_default();
        let text = if whole.is_empty() { kept() } else { whole };
        let clean: String = text
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
            .collect();
        let clean = clean.trim_end();
        // The end of a log says more than its beginning.
        let start = clean.ceil_char_boundary(clean.len().saturating_sub(LOG_TAIL_MAX));
        (!clean.is_empty()).then(|| clean[start..].to_owned())
    }
}

/// Longest log tail in the status, in bytes.
const LOG_TAIL_MAX: usize = 2048;

/// A failure in the toolchain's own words.
fn refused(error: &ToolError) -> End {
    let mut end = End::new(
        Verdict::User,
        Reason::ToolchainRefused,
        "train",
        &error.reason,
        error.message.clone(),
    );
    if let Some(failure) = &mut end.failure {
        failure.field = Some(error.field.clone()).filter(|field| !field.is_empty());
        if !error.remedy.is_empty() {
            failure.remedy = Some(error.remedy.clone());
        }
    }
    end
}

/// The end of an attempt in which a step of Legion's own failed.
fn step_failure(step: &str, error: Option<StepError>, end: &ContainerStateTerminated) -> End {
    let own = if step == "fetch" {
        Reason::FetchFailed
    } else {
        Reason::PublishFailed
    };
    let Some(error) = error else {
        let why = end.reason.as_deref().unwrap_or("Error");
        let mut message = format!(
            "{step} ended with exit code {} ({why}) and left no report",
            end.exit_code
        );
        if let Some(last) = end.message.as_deref().filter(|message| !message.trim().is_empty()) {
            message.push_str(": ");
            message.push_str(&legion_protocol::text::bounded(last.trim(), 512));
        }
        return End::new(Verdict::Step, own, step, why, message);
    };
    use StepReason as S;
    let (verdict, reason) = match error.reason {
        S::SecretMissing => (Verdict::SecretMissing, Reason::SecretMissing),
        S::ModelMissing
        | S::OutputHostile
        | S::ProtocolViolation
        | S::TooLarge
        | S::PathEscapes
        | S::ContentRefused
            if step == "publish" =>
        {
            (Verdict::Final, Reason::OutputInvalid)
        }
        other => match other.class() {
            StepClass::User => (Verdict::Final, own),
            StepClass::Transient | StepClass::Storage => (Verdict::Step, own),
        },
    };
    let mut end = End::new(verdict, reason, step, error.reason.as_str(), error.message.clone());
    if let Some(failure) = &mut end.failure {
        failure.field = match (&reason, error.reason) {
            _ if !error.field.is_empty() => Some(error.field.clone()),
            // `publish` knows no manifest: what it found wrong was written by the toolchain, or by the training code.
            (Reason::OutputInvalid, S::ProtocolViolation) => Some("spec.toolchain".to_owned()),
            (Reason::OutputInvalid, _) => Some("spec.source".to_owned()),
            _ => None,
        };
        let remedy = if error.remedy.is_empty() {
            error.reason.remedy()
        } else {
            &error.remedy
        };
        failure.remedy = Some(remedy.to_owned());
    }
    end
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal}, {name}")
}
