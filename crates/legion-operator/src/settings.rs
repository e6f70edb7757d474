//! The settings of one operator process.

use legion_runtime::{lease::LeaseSettings, telemetry::Telemetry};

/// Default number of concurrent reconciliations per kind.
pub const WORKERS: usize = 32;

/// Settings of an operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings of decisions.
    pub plan: legion_plan::Settings,
    /// The served namespaces. An empty list means all.
    pub namespaces: Vec<String>,
    /// Concurrent reconciliations per kind.
    pub workers: usize,
    /// The lease that decides which of several replicas acts. `None` if there can be only one process.
    pub lease: Option<LeaseSettings>,
    /// Health and metrics endpoints, for one run.
    pub telemetry: Option<Telemetry>,
}

impl Settings {
    /// Returns settings for all namespaces, without a lease.
    #[must_use]
    pub fn new(plan: legion_plan::Settings) -> Self {
        Self {
            plan,
            namespaces: Vec::new(),
            workers: WORKERS,
            lease: None,
            telemetry: None,
        }
    }
}
