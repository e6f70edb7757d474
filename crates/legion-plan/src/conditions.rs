//! The conditions of every kind, from one reason.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use legion_api::{
    Problem, Reason, ReasonKind,
    condition::{READY, RECONCILING, STALLED, SUCCEEDED, Truth, condition},
};

/// Cuts a time to whole seconds, as Kubernetes stores it. A finer time would differ from its stored form.
pub(crate) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The reason and message of conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Explanation {
    /// Creates an explanation. `message` is for people.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// Appends the remedy of the reason to the message, unless the message contains it.
    pub(crate) fn with_remedy(mut self) -> Self {
        let remedy = self.reason.remedy();
        // Every message contains an empty remedy.
        if !self.message.contains(remedy) {
            self.message = format!("{} ({remedy})", self.message);
        }
        self
    }

    /// Explains problems: the first decides the reason, the message contains all of them.
    pub(crate) fn of_problems(problems: &[Problem]) -> Option<Self> {
        let first = problems.first()?;
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Some(Self::new(first.reason, all.join("; ")))
    }
}

/// Returns the conditions of a kind with the main condition `Ready`.
#[must_use]
pub fn for_ready(previous: &[Condition], state: &Explanation, generation: i64, now: Timestamp) -> Vec<Condition> {
    let now = seconds(now);
    // Such a resource never makes progress: an unusable one stays unusable until a user changes it.
    let (ready, stalled) = match state.reason.kind() {
        ReasonKind::Success => (Truth::True, Truth::False),
        _ => (Truth::False, Truth::True),
    };
    [(READY, ready), (RECONCILING, Truth::False), (STALLED, stalled)]
        .map(|(type_, truth)| condition(previous, type_, truth, state.reason, &state.message, generation, &now))
        .into()
}

/// Returns the conditions of a kind with the main condition `Succeeded`: a run.
#[must_use]
pub fn for_run(previous: &[Condition], state: &Explanation, generation: i64, now: Timestamp) -> Vec<Condition> {
    let (succeeded, reconciling) = match (state.reason.kind(), state.reason) {
        (ReasonKind::Success, _) => (Truth::True, Truth::False),
        // A suspended run makes no progress, and nothing has failed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_appended_once_and_only_if_there_is_one() {
        let forbidden = Explanation::new(Reason::Forbidden, "pods").with_remedy();
        assert_eq!(forbidden.message, format!("pods ({})", Reason::Forbidden.remedy()));
        assert_eq!(forbidden.clone().with_remedy(), forbidden);
        assert_eq!(Reason::RunSucceeded.remedy(), "");
        assert_eq!(
            Explanation::new(Reason::RunSucceeded, "done").with_remedy().message,
            "done"
        );
    }

    #[test]
    fn the_first_problem_decides_the_reason() {
        let problem = |reason, field: &str| Problem::new(reason, field, "is wrong");
        let problems = [
            problem(Reason::InvalidSpec, "spec.a"),
            problem(Reason::Forbidden, "spec.b"),
        ];
        let explanation = Explanation::of_problems(&problems).unwrap();
        assert_eq!(explanation.reason, Reason::InvalidSpec);
        assert_eq!(explanation.message, format!("{}; {}", problems[0], problems[1]));
        assert_eq!(Explanation::of_problems(&[]), None);
    }
}
