//! The parts of a training's status that commands need.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use legion_api::{ModelTraining, condition::SUCCEEDED};

use crate::exit::Code;

/// Progress of a training's current run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrainingState {
    /// Running, waiting, or not reconciled yet.
    Open,
    /// The current run succeeded.
    Succeeded,
    /// The current run failed and is not retried.
    Failed,
}

impl TrainingState {
    /// Returns the exit code of commands that wait for a training.
    #[must_use]
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::Succeeded => Code::Ok,
            Self::Open | Self::Failed => Code::Failed,
        }
    }
}

/// Returns the condition `Succeeded`.
#[must_use]
pub(crate) fn succeeded(training: &ModelTraining) -> Option<&Condition> {
    let conditions = &training.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == SUCCEEDED)
}

/// Returns whether the status belongs to the current spec.
#[must_use]
pub(crate) fn is_observed(training: &ModelTraining) -> bool {
    let observed = training.status.as_ref().and_then(|status| status.observed_generation);
    observed.is_some() && observed == training.metadata.generation
}

/// Returns the state of a training. A status of an earlier generation does not count.
#[must_use]
pub(crate) fn state(training: &ModelTraining) -> TrainingState {
    if !is_observed(training) {
        return TrainingState::Open;
    }
    match succeeded(training).map(|condition| condition.status.as_str()) {
        Some("True") => TrainingState::Succeeded,
        Some("False") => TrainingState::Failed,
        _ => TrainingState::Open,
    }
}

/// Returns the id of the current run.
#[must_use]
pub(crate) fn run_id(training: &ModelTraining) -> Option<&str> {
    Some(&training.status.as_ref()?.run.as_ref()?.id)
}

/// Returns the id of the current run and the number of its attempt.
#[must_use]
pub(crate) fn attempt(training: &ModelTraining) -> Option<(String, i64)> {
    let run = training.status.as_ref()?.run.as_ref()?;
    Some((run.id.clone(), i64::from(run.attempt)))
}

/// Returns the name of the current attempt's pod.
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
    fn a_status_of_an_earlier_generation_does_not_count() {
        assert_eq!(state(&training(2, 1, "True")), TrainingState::Open);
        assert_eq!(state(&training(2, 2, "True")), TrainingState::Succeeded);
        assert_eq!(state(&training(2, 2, "False")), TrainingState::Failed);
        assert_eq!(state(&training(2, 2, "Unknown")), TrainingState::Open);
        assert_eq!(state(&training(1, -1, "Unknown")), TrainingState::Open);
    }
}
