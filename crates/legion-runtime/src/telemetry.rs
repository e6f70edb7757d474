//! Health and metrics of a process.

use crate::{health::Health, metrics::Metrics};

/// Health and metrics of a process, for the listener. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Liveness and readiness.
    pub health: Health,
    /// The metrics registry.
    pub metrics: Metrics,
}
