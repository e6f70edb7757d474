//! The four conditions that every kind carries, from one reason.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use legion_api::{
    Problem, Reason, ReasonKind,
    condition::{READY, RECONCILING, STALLED, SUCCEEDED, Truth, condition},
};

/// Kubernetes times have whole seconds: a finer one would differ from itself once it was stored.
#[must_use]
pub(crate) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// What conditions are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Why.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

impl State {
    /// A reason in words.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The same with the reason's remedy in its message, unless it stands there already.
    pub(crate) fn with_remedy(mut self) -> Self {
        let remedy = self.reason.remedy();
        if !remedy.is_empty() && !self.message.contains(remedy) {
            self.message = format!("{} ({remedy})", self.message);
        }
        self
    }

    /// The first problem decides the reason, all of them stand in the message.
    pub(crate) fn of_problems(problems: &[Problem]) -> Option<Self> {
        let first = problems.first()?;
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Some(Self::new(first.reason, all.join("; ")))
    }
}

/// Conditions of a kind whose own truth is `Ready`.
#[must_use]
pub fn for_ready(previous: &[Condition], state: &State, generation: i64, now: Timestamp) -> Vec<Condition> {
    let now = seconds(now);
    // Nothing is ever under way here: what is not usable stays so until its user changes it.
    let (ready, stalled) = match state.reason.kind() {
        ReasonKind::Success => (Truth::True, Truth::False),
        _ => (Truth::False, Truth::True),
    };
    [(READY, ready), (RECONCILING, Truth::False), (STALLED, stalled)]
        .map(|(type_, truth)| condition(previous, type_, truth, state.reason, &state.message, generation, &now))
        .into()
}

/// Conditions of a kind whose own truth is `Succeeded`: a run.
#[must_use]
pub fn for_run(previous: &[Condition], state: &State, generation: i64, now: Timestamp) -> Vec<Condition> {
    let (succeeded, reconciling) = match (state.reason.kind(), state.reason) {
        (ReasonKind::Success, _) => (Truth::True, Truth::False),
        // Nothing is under way while a training is suspended, and nothing has failed.
        (_, Reason::Suspended) => (Truth::Unknown, Truth::False),
        (ReasonKind::Progress | ReasonKind::Waiting, _) => (Truth::Unknown, Truth::True),
        (ReasonKind::Invalid | ReasonKind::Failure, _) => (Truth::False, Truth::False),
    };
    let (ready, stalled) = match succeeded {
        Truth::True => (Truth::True, Truth::False),
        Truth::Unknown => (Truth::False, Truth::False),
        Truth::False => (Truth::False, Truth::True),
    };
    let now = seconds(now);
    [
        (SUCCEEDED, succeeded),
        (READY, ready),
        (RECONCILING, reconciling),
        (STALLED, stalled),
    ]
    .map(|(type_, truth)| condition(previous, type_, truth, state.reason, &state.message, generation, &now))
    .into()
}
