//! An attempt of a run, and what follows from its settings alone.

use legion_api::{ModelTrainingSpec, run::RunStatus};

use super::labels;
use crate::{
    Settings, hash,
    training::{
        fields::{self, Effect},
        inputs::{Inputs, normal},
    },
};

/// What `publish` may take after the training code was given its grace period, when the pod is ended from outside: time
/// to notice the end and to upload the log.
const PUBLISH_GRACE_SECONDS: i64 = 15;

/// Everything that the pod of an attempt is built from.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub spec: &'a ModelTrainingSpec,
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub run: &'a RunStatus,
    pub inputs: &'a Inputs,
    pub settings: &'a Settings,
}

impl Attempt<'_> {
    pub(crate) fn pod_name(&self) -> String {
        labels::pod_name(self.name, &self.run.id, self.run.attempt)
    }

    /// `spec.workDir` in its normal form; empty for the source root.
    pub(crate) fn work_dir(&self) -> String {
        self.spec.work_dir.as_deref().map(normal).unwrap_or_default()
    }

    pub(crate) fn grace_seconds(&self) -> i64 {
        i64::try_from(self.spec.grace_period.as_secs_ceil()).unwrap_or(3600)
    }

    pub(crate) fn pod_grace_seconds(&self) -> i64 {
        self.grace_seconds() + PUBLISH_GRACE_SECONDS
    }

    /// The pod's own deadline: a backstop for when everything else has failed, always finite.
    pub(crate) fn deadline_seconds(&self) -> i64 {
        let spec = self.spec;
        let allowances = [spec.start_timeout, spec.timeout].map(|span| span.as_secs_ceil());
        let total = allowances
            .iter()
            .fold(self.settings.publish_allowance.as_secs(), |sum, more| {
                sum.saturating_add(*more)
            });
        // The API server accepts at most this many seconds.
        i64::try_from(total)
            .unwrap_or(i64::MAX)
            .saturating_add(self.pod_grace_seconds())
            .clamp(1, i32::MAX.into())
    }

    /// A hash of what shapes the pod. When a pod cannot start and would be shaped otherwise by now, it is made anew.
    pub(crate) fn shape(&self) -> String {
        // A spec is plain data with string keys: it always serialises.
        let spec = serde_json::to_value(self.spec).unwrap_or_default();
        let spec = hash::canonical(&fields::part(&spec, Effect::NextAttempt));
        let hash = hash::short(
            "legion-shape/1",
            &[&spec, &self.inputs.to_json(), &self.settings.agent_image],
        );
        format!("{hash:016x}")
    }
}
