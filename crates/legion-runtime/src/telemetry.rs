//! What a process tells about itself to whoever asks.

use crate::{health::Health, metrics::Metrics};

/// Health and metrics. Cloning gives another handle of the same.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Whether it lives, and is ready.
    pub health: Health,
    /// What it counts.
    pub metrics: Metrics,
}
