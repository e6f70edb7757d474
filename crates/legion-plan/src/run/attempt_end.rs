//! How an attempt ended, and what follows.

use jiff::Timestamp;
use legion_api::{Reason, run::Failure};
use legion_protocol::message::{Decoded, PublishHead, PublishTail};

/// What `publish` reported.
pub(crate) type PublishReport = Decoded<PublishHead, PublishTail>;

/// What follows from the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The run has succeeded.
    Success,
    /// The user's code or settings failed. Counts against `spec.retries`.
    User,
    /// Another attempt would fail in the same way.
    Final,
    /// The attempt was interrupted from outside. Another one follows, bounded.
    Disruption,
    /// The kubelet refused the pod or could not start it. Another attempt follows, bounded.
    Rejected,
    /// The pod did not start in time. Another attempt follows, bounded.
    StartTimeout,
    /// One of Legion's own steps failed, and the cause may pass. Another attempt follows, bounded.
    Step,
    /// A Secret is missing. Attempts follow until it exists.
    SecretMissing,
    /// The pod could not start, and its configuration has since changed. It is recreated immediately.
    Recreate,
}

impl Verdict {
    /// Returns whether another attempt may succeed without any action by the user. The remedy is then for the case that
    /// it happens too often.
    pub(super) fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Disruption | Self::Rejected | Self::StartTimeout | Self::Recreate
        )
    }
}

/// The command in remedies, before the names are known.
const LOGS: &str = "kubectl logs -n NAMESPACE POD -c CONTAINER";

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttemptEnd {
    pub(crate) verdict: Verdict,
    /// The run's reason, when this was its last attempt.
    pub(crate) reason: Reason,
    /// `None` after a success.
    pub(crate) failure: Option<Failure>,
    pub(crate) report: Option<Box<PublishReport>>,
    /// `None` when neither a container nor the pod has a time.
    pub(crate) at: Option<Timestamp>,
}

impl AttemptEnd {
    pub(super) fn success() -> Self {
        Self {
            verdict: Verdict::Success,
            reason: Reason::RunSucceeded,
            failure: None,
            report: None,
            at: None,
        }
    }

    /// Returns a failed end with the remedy of its reason. `word` is the machine-readable reason of the failure.
    pub(super) fn failed(verdict: Verdict, reason: Reason, step: &str, word: &str, message: impl Into<String>) -> Self {
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
            report: None,
            at: None,
        }
    }

    pub(super) fn disrupted(step: &str, word: &str, message: impl Into<String>) -> Self {
        Self::failed(Verdict::Disruption, Reason::TooManyDisruptions, step, word, message)
    }

    pub(super) fn rejected(step: &str, word: &str, message: impl Into<String>) -> Self {
        Self::failed(Verdict::Rejected, Reason::PodRejected, step, word, message)
    }

    /// The end of an attempt with a pod that no longer exists and left no report.
    pub(super) fn vanished(pod: &str) -> Self {
        let message = format!("pod {pod} no longer exists: it was deleted, or its node was lost");
        Self::disrupted("pod", "PodLost", message)
    }

    fn with_failure(mut self, change: impl FnOnce(&mut Failure)) -> Self {
        if let Some(failure) = &mut self.failure {
            change(failure);
        }
        self
    }

    /// Sets the field at fault.
    pub(super) fn field(self, field: &str) -> Self {
        self.with_failure(|failure| failure.field = Some(field.to_owned()).filter(|field| !field.is_empty()))
    }

    /// Replaces the remedy of the reason, unless `remedy` is empty.
    pub(super) fn remedy(self, remedy: &str) -> Self {
        self.with_failure(|failure| {
            if !remedy.is_empty() {
                failure.remedy = Some(remedy.to_owned());
            }
        })
    }

    /// Puts the names of the pod into a remedy that is a command.
    pub(super) fn named(self, namespace: &str, pod: &str, container: &str) -> Self {
        self.with_failure(|failure| {
            if let Some(remedy) = &mut failure.remedy {
                *remedy = remedy.replace(LOGS, &format!("kubectl logs -n {namespace} {pod} -c {container}"));
            }
        })
    }

    pub(super) fn exit(self, code: Option<i32>, signal: Option<i32>) -> Self {
        self.with_failure(|failure| (failure.exit_code, failure.signal) = (code, signal))
    }

    pub(super) fn log_tail(self, tail: Option<String>) -> Self {
        self.with_failure(|failure| failure.log_tail = tail)
    }

    pub(super) fn reported(self, report: Option<PublishReport>, at: Option<Timestamp>) -> Self {
        Self {
            report: report.map(Box::new),
            at,
            ..self
        }
    }
}
