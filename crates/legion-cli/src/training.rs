//! What a training's status says, in the words that commands need.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use legion_api::{ModelTraining, condition::SUCCEEDED};

use crate::exit::Code;

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Working, waiting, or not yet seen by the operator.
    Open,
    /// The current run succeeded.
    Succeeded,
    /// The current run failed for good.
    Failed,
}

impl State {
    /// The exit code of commands that wait.
    #[must_use]
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::Succeeded => Code::Ok,
            Self::Open | Self::Failed => Code::Failed,
        }
    }
}

/// The condition that says how far it is.
#[must_use]
pub(crate) fn succeeded(training: &ModelTraining) -> Option<&Condition> {
    let conditions = &training.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == SUCCEEDED)
}

/// How far a training is; what was said about an earlier generation does not count.
#[must_use]
pub(crate) fn state(training: &ModelTraining) -> State {
    let observed = training.status.as_ref().and_then(|status| status.observed_generation);
    if observed.is_none() || observed != training.metadata.generation {
        return State::Open;
    }
    match succeeded(training).map(|condition| condition.status.as_str()) {
        Some("True") => State::Succeeded,
        Some("False") => State::Failed,
        _ => State::Open,
    }
}

/// Id of the current run.
#[must_use]
pub(crate) fn run_id(training: &ModelTraining) -> Option<&str> {
    Some(&training.status.as_ref()?.run.as_ref()?.id)
}

/// Name of the current attempt's pod.
#[must_use]
pub(crate) fn pod(training: &ModelTraining) -> Option<&str> {
    training.status.as_ref()?.run.as_ref()?.pod.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn training(generation: i64, observed: i64, succeeded: &str) -> ModelTraining {
        serde_json::from_value(json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining",
            "metadata": {"name": "wine", "generation": generation},
            "spec": {"model": {"name": "wine", "version": "1"}, "toolchain": "script", "source": {"configMap": {"name": "x"}}},
            "status": {"observedGeneration": observed, "conditions": [{
                "type": "Succeeded", "status": succeeded, "reason": "Training", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_said_about_an_earlier_generation_does_not_count() {
        assert_eq!(state(&training(2, 1, "True")), State::Open);
        assert_eq!(state(&training(2, 2, "True")), State::Succeeded);
        assert_eq!(state(&training(2, 2, "False")), State::Failed);
        assert_eq!(state(&training(2, 2, "Unknown")), State::Open);
        assert_eq!(state(&training(1, -1, "Unknown")), State::Open);
    }
}
