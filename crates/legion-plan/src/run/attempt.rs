//! An attempt of a run, and what follows from its settings alone.

use legion_api::run::RunStatus;
use serde_json::Value;

use super::{
    kind::{PodSettings, RunObject},
    labels,
};
use crate::{Settings, hash};

/// Time for `publish` after the grace period of the main container, when the pod is ended from outside. In this time
/// `publish` notices the end and uploads the log.
const PUBLISH_GRACE_SECONDS: i64 = 15;

/// An attempt of a run.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) object: RunObject<'a>,
    pub(crate) run: &'a RunStatus,
    pub(crate) pod: PodSettings<'a>,
    pub(crate) settings: &'a Settings,
}

impl Attempt<'_> {
    pub(crate) fn pod_name(&self) -> String {
        labels::pod_name(self.object.name, &self.run.id, self.run.attempt)
    }

    pub(crate) fn grace_seconds(&self) -> i64 {
        i64::try_from(self.object.policy.grace_period.as_secs_ceil()).unwrap_or(3600)
    }

    pub(crate) fn pod_grace_seconds(&self) -> i64 {
        self.grace_seconds() + PUBLISH_GRACE_SECONDS
    }

    /// Returns the pod's own deadline: a backstop for when everything else has failed, always finite.
    pub(super) fn deadline_seconds(&self) -> i64 {
        let policy = self.object.policy;
        let allowances = [policy.start_timeout, policy.timeout].map(|span| span.as_secs_ceil());
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

    /// Returns a hash over the configuration of the pod: `fields` of the spec, the pinned `inputs` and the agent's
    /// image. A pod that cannot start is recreated when this hash has changed.
    pub(crate) fn shape(&self, fields: &Value, inputs: &str) -> String {
        let parts = [&hash::canonical(fields), inputs, &self.settings.agent_image];
        format!("{:016x}", hash::short("legion-shape/1", &parts))
    }
}
