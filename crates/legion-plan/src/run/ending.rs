//! Classifies how an attempt ended. The evidence is in the containers, found by name, and not in the pod's phase.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated};
use legion_api::{Reason, condition::cut, duration::Span};
use legion_protocol::{
    env,
    exit::{ExitError, ExitRecord},
    message::{Decoded, FetchHead, FetchMessage, FetchTail, PublishMessage, PublishOutcome, Tail},
    reason::{StepClass, StepError, StepReason},
    result::{Origin, ToolError},
};

use super::{
    attempt_end::{AttemptEnd, PublishReport, Verdict},
    containers::{Containers, FETCH, PUBLISH, has_started, terminated},
};

/// What `fetch` reported.
pub(crate) type FetchReport = Decoded<FetchHead, FetchTail>;

/// Returns what `fetch` reported, once it has ended.
pub(crate) fn fetch_report(containers: &Containers<'_>) -> Option<FetchReport> {
    FetchMessage::decode(terminated(containers.fetch?)?.message.as_deref()?).ok()
}

/// Returns how the attempt ended, or `None` while it has not ended.
pub(crate) fn end_of(containers: &Containers<'_>) -> Option<AttemptEnd> {
    let evidence = EndEvidence::of(containers);
    if !evidence.has_ended() {
        return None;
    }
    let at = containers
        .ended_at()
        .or_else(|| containers.pod.metadata.deletion_timestamp.as_ref().map(|at| at.0));
    let namespace = containers.pod.metadata.namespace.as_deref().unwrap_or_default();
    let end = evidence
        .classify()
        .named(namespace, containers.name(), containers.kind.container)
        .log_tail(evidence.log_tail());
    Some(end.reported(evidence.report, at))
}

/// What shows how an attempt ended.
struct EndEvidence<'a> {
    containers: &'a Containers<'a>,
    fetch: Option<&'a ContainerStateTerminated>,
    main: Option<&'a ContainerStateTerminated>,
    publish: Option<&'a ContainerStateTerminated>,
    report: Option<PublishReport>,
}

impl<'a> EndEvidence<'a> {
    fn of(containers: &'a Containers<'a>) -> Self {
        let publish = containers.publish.and_then(terminated);
        Self {
            containers,
            fetch: containers.fetch.and_then(terminated),
            main: containers.main.and_then(terminated),
            publish,
            report: publish.and_then(|end| PublishMessage::decode(end.message.as_deref()?).ok()),
        }
    }

    fn has_ended(&self) -> bool {
        let containers = self.containers;
        containers.is_over()
            || self.fetch.is_some_and(|end| end.exit_code != 0)
            // The main container may still run: nothing that it does from now on is published.
            || (self.publish.is_some() && !self.cause_is_to_come())
            // `publish` waits for a start that will not come.
            || self.main.is_some_and(|end| !has_started(end))
            // No kubelet will ever report on this pod.
            || (containers.is_terminating() && !containers.is_scheduled())
    }

    /// Returns whether the main container is about to show why its code failed. `publish` already knows that it failed,
    /// but only the end of the container shows that it ran out of memory.
    fn cause_is_to_come(&self) -> bool {
        self.main.is_none() && self.record().is_some_and(|record| record.exit_code != Some(0))
    }

    /// Returns the first class that matches. The order matters: earlier evidence explains later evidence. A pod that
    /// has reached its own deadline, for example, has containers that were ended by a signal.
    fn classify(&self) -> AttemptEnd {
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

    fn success(&self) -> Option<AttemptEnd> {
        let outcome = self.report.as_ref()?.head.outcome;
        matches!(outcome, PublishOutcome::Published | PublishOutcome::Skipped).then(AttemptEnd::success)
    }

    /// The pod's own deadline is a backstop. Its signal does not come from outside the run.
    fn own_deadline(&self) -> Option<AttemptEnd> {
        (self.containers.reason() == "DeadlineExceeded").then(|| {
            let kind = self.containers.kind;
            let (step, activity) = match (self.fetch.is_some_and(|end| end.exit_code == 0), self.main) {
                (false, _) => (FETCH, "source and data were still being fetched".to_owned()),
                (true, None) => (kind.step, format!("{} was still running", kind.code)),
                (true, Some(_)) => (PUBLISH, "the result was still being published".to_owned()),
            };
            let message = format!("the pod reached its own deadline: {activity}");
            AttemptEnd::failed(
                Verdict::Final,
                Reason::DeadlineExceeded,
                step,
                "PodDeadlineExceeded",
                message,
            )
        })
    }

    fn record(&self) -> Option<&ExitRecord> {
        self.report.as_ref()?.head.exit.as_ref()
    }

    fn exit_record(&self) -> Option<AttemptEnd> {
        let record = self.record()?;
        if let Some(signal) = record.outside_signal {
            return Some(self.outside_signal(signal));
        }
        let end = if record.timed_out {
            self.timed_out()
        } else if let Some(error) = &record.error {
            self.start_error(error)
        } else if record.exit_code == Some(0) {
            return None;
        } else if let Some(out_of_memory) = self.out_of_memory() {
            // The kernel killed a child process and not PID 1: the record shows a signal 9.
            out_of_memory
        } else if let Some(error) = self.tool_error() {
            self.reported_by_toolchain(error)
        } else {
            self.exit_status(record)
        };
        Some(end.exit(record.exit_code, record.signal))
    }

    fn outside_signal(&self, signal: i32) -> AttemptEnd {
        // The kubelet also sends a signal to a pod that exceeded its own limits. That is no interruption from outside.
        if let Some(evicted) = self.evicted() {
            return evicted;
        }
        let kind = self.containers.kind;
        let message = format!("{} was interrupted from outside by {}", kind.code, signal_name(signal));
        AttemptEnd::disrupted(kind.step, "Interrupted", message)
    }

    fn timed_out(&self) -> AttemptEnd {
        let kind = self.containers.kind;
        let limit = self.timeout().map_or_else(String::new, |limit| format!(" of {limit}"));
        let message = format!("{} ran longer than spec.timeout{limit}", kind.code);
        AttemptEnd::failed(
            Verdict::Final,
            Reason::DeadlineExceeded,
            kind.step,
            "DeadlineExceeded",
            message,
        )
        .field("spec.timeout")
    }

    /// The command of the toolchain could not be started.
    fn start_error(&self, error: &ExitError) -> AttemptEnd {
        let kind = self.containers.kind;
        let verdict = match error.reason.class() {
            StepClass::User => Verdict::User,
            StepClass::Transient | StepClass::Storage => Verdict::Step,
        };
        AttemptEnd::failed(
            verdict,
            kind.failed,
            kind.step,
            error.reason.as_str(),
            error.message.clone(),
        )
        .field("spec.toolchain")
        .remedy(error.reason.remedy())
    }

    fn exit_status(&self, record: &ExitRecord) -> AttemptEnd {
        let kind = self.containers.kind;
        let how = match (record.exit_code, record.signal) {
            (_, Some(signal)) => format!("was ended by {}", signal_name(signal)),
            // A shell reports in this way that a signal ended its command.
            (Some(code @ 129..=159), None) => {
                format!("ended with exit code {code}: {}", signal_name(code - 128))
            }
            (Some(code), None) => format!("ended with exit code {code}"),
            (None, None) => "ended without an exit code".to_owned(),
        };
        self.failed_code(format!("{} {how}", kind.code)).field("spec.source")
    }

    /// The end of an attempt with a failed main container.
    fn failed_code(&self, message: String) -> AttemptEnd {
        let kind = self.containers.kind;
        AttemptEnd::failed(Verdict::User, kind.failed, kind.step, kind.failed.as_str(), message)
    }

    fn tool_error(&self) -> Option<&ToolError> {
        match &self.report.as_ref()?.tail {
            Tail::Whole(tail) => tail.tool_error.as_ref(),
            _ => None,
        }
    }

    /// Returns the main container as it was created.
    fn main_spec(&self) -> Option<&Container> {
        let containers = &self.containers.pod.spec.as_ref()?.containers;
        containers
            .iter()
            .find(|container| container.name == self.containers.kind.container)
    }

    /// Returns how long the main container was allowed to run.
    fn timeout(&self) -> Option<Span> {
        let variables = self.main_spec()?.env.as_ref()?;
        let timeout = variables
            .iter()
            .find(|variable| variable.name == env::TIMEOUT_SECONDS)?;
        timeout.value.as_ref()?.parse().ok().map(Span::from_secs)
    }

    fn out_of_memory(&self) -> Option<AttemptEnd> {
        let kind = self.containers.kind;
        let end = self.main.filter(|end| end.reason.as_deref() == Some("OOMKilled"))?;
        let limit = self
            .main_spec()
            .and_then(|main| main.resources.as_ref()?.limits.as_ref()?.get("memory"));
        let message = match limit {
            Some(limit) => format!("{} used more memory than its limit of {}", kind.code, limit.0),
            None => format!("{} used more memory than its node could give", kind.code),
        };
        let out = AttemptEnd::failed(Verdict::User, Reason::OutOfMemory, kind.step, "OutOfMemory", message);
        Some(
            out.field("spec.resources.limits.memory")
                .exit(Some(end.exit_code), None),
        )
    }

    fn disruption(&self) -> Option<AttemptEnd> {
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
        Some(AttemptEnd::disrupted("pod", "Disrupted", message))
    }

    fn evicted(&self) -> Option<AttemptEnd> {
        let containers = self.containers;
        let target = containers
            .condition("DisruptionTarget")
            .is_some_and(|condition| condition.status == "True");
        (containers.reason() == "Evicted" && !target).then(|| {
            let message = format!("the pod was evicted: {}", containers.message());
            AttemptEnd::failed(Verdict::User, Reason::Evicted, "pod", "Evicted", message)
        })
    }

    fn rejected(&self) -> Option<AttemptEnd> {
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
            return Some(AttemptEnd::rejected("pod", "PodRejected", message));
        }
        let kind = containers.kind;
        let end = self.main.filter(|end| !has_started(end))?;
        let message = format!(
            "the container {:?} could not be started: {}",
            kind.container,
            end.message.as_deref().unwrap_or("no reason given")
        );
        Some(AttemptEnd::rejected(kind.step, kind.not_started, cut(&message, 1024)))
    }

    /// A container was killed and left no record: its node was lost, or the kubelet ended it.
    fn killed_without_record(&self) -> Option<AttemptEnd> {
        if self.record().is_some() {
            return None;
        }
        let kind = self.containers.kind;
        let killed = |end: &&ContainerStateTerminated| {
            matches!(end.exit_code, 137 | 255) && end.reason.as_deref() != Some("OOMKilled")
        };
        let (step, container, end) = match (self.fetch.filter(killed), self.main.filter(killed)) {
            (Some(end), _) => (FETCH, FETCH, end),
            (None, Some(end)) => (kind.step, kind.container, end),
            (None, None) => return None,
        };
        let message = format!(
            "the container {container:?} was killed (exit code {}) and left no record",
            end.exit_code
        );
        Some(AttemptEnd::disrupted(step, "Killed", message))
    }

    fn failed_step(&self) -> Option<AttemptEnd> {
        if let Some(end) = self.fetch.filter(|end| end.exit_code != 0) {
            let report = fetch_report(self.containers);
            return Some(step_failure(FETCH, report.and_then(|report| report.error()), end));
        }
        let publish = self.publish?;
        // A main container that failed without a record is classified by its own exit code, unless `publish` reported
        // an error.
        let error = self.report.as_ref().and_then(|report| report.error());
        if error.is_none() && self.main.is_some_and(|end| end.exit_code != 0) {
            return None;
        }
        if let Some(tool) = self.tool_error().filter(|_| {
            error
                .as_ref()
                .is_none_or(|error| error.reason == StepReason::ToolchainError)
        }) {
            return Some(self.reported_by_toolchain(tool));
        }
        Some(step_failure(PUBLISH, error, publish))
    }

    /// A failure in the toolchain's own words. The toolchain knows what ended the run, so its message comes first.
    fn reported_by_toolchain(&self, error: &ToolError) -> AttemptEnd {
        let kind = self.containers.kind;
        let reason = match error.origin {
            Origin::Code => kind.failed,
            Origin::Output => Reason::OutputInvalid,
            Origin::Input => Reason::ToolchainRefused,
            Origin::Environment => Reason::EnvironmentFailed,
            Origin::Toolchain => Reason::ToolchainFailed,
        };
        AttemptEnd::failed(Verdict::User, reason, kind.step, &error.reason, error.message.clone())
            .field(&error.field)
            .remedy(&error.remedy)
    }

    fn bare_exit_code(&self) -> AttemptEnd {
        match self.main {
            Some(end) if end.exit_code != 0 => {
                let name = self.containers.kind.container;
                self.failed_code(format!("the container {name:?} ended with exit code {}", end.exit_code))
                    .exit(Some(end.exit_code), None)
            }
            _ => {
                let message = format!(
                    "pod {} ended in phase {:?} without a result",
                    self.containers.name(),
                    self.containers.phase()
                );
                AttemptEnd::rejected("pod", "NoResult", message)
            }
        }
    }

    /// Returns the last lines of the log: from `publish`, which has the whole log, or from the kubelet.
    fn log_tail(&self) -> Option<String> {
        let whole = match self.report.as_ref().map(|report| &report.tail) {
            Some(Tail::Whole(tail)) => tail.log_tail.as_str(),
            _ => "",
        };
        let kept = || self.main.and_then(|end| end.message.as_deref()).unwrap_or_default();
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

/// Classifies the failure of one of Legion's own steps.
fn step_failure(step: &str, error: Option<StepError>, end: &ContainerStateTerminated) -> AttemptEnd {
    let own = if step == FETCH {
        Reason::FetchFailed
    } else {
        Reason::PublishFailed
    };
    let Some(error) = error else {
        return unreported_step(step, own, end);
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
            if step == PUBLISH =>
        {
            (Verdict::Final, Reason::OutputInvalid)
        }
        other => match other.class() {
            StepClass::User => (Verdict::Final, own),
            StepClass::Transient | StepClass::Storage => (Verdict::Step, own),
        },
    };
    let field = match (&reason, error.reason) {
        _ if !error.field.is_empty() => error.field.as_str(),
        // `publish` has no manifest: the faulty output was written by the toolchain, or by the user's code.
        (Reason::OutputInvalid, S::ProtocolViolation) => "spec.toolchain",
        (Reason::OutputInvalid, _) => "spec.source",
        _ => "",
    };
    let remedy = if error.remedy.is_empty() {
        error.reason.remedy()
    } else {
        &error.remedy
    };
    AttemptEnd::failed(verdict, reason, step, error.reason.as_str(), error.message.clone())
        .field(field)
        .remedy(remedy)
}

/// A step failed and left no report.
fn unreported_step(step: &str, reason: Reason, end: &ContainerStateTerminated) -> AttemptEnd {
    let why = end.reason.as_deref().unwrap_or("Error");
    let mut message = format!(
        "{step} ended with exit code {} ({why}) and left no report",
        end.exit_code
    );
    if let Some(last) = end.message.as_deref().filter(|message| !message.trim().is_empty()) {
        message.push_str(": ");
        message.push_str(&legion_protocol::text::bounded(last.trim(), 512));
    }
    AttemptEnd::failed(Verdict::Step, reason, step, why, message)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_of_linux() {
        let names = [
            (1, "HUP"),
            (2, "INT"),
            (3, "QUIT"),
            (4, "ILL"),
            (6, "ABRT"),
            (7, "BUS"),
            (8, "FPE"),
            (9, "KILL"),
            (11, "SEGV"),
            (13, "PIPE"),
            (15, "TERM"),
            (24, "XCPU"),
            (25, "XFSZ"),
        ];
        for (number, name) in names {
            assert_eq!(signal_name(number), format!("signal {number}, SIG{name}"));
        }
        assert_eq!(signal_name(64), "signal 64");
    }
}
