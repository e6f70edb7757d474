//! How one operator process is set up.

use legion_runtime::{lease::LeaseSettings, telemetry::Telemetry};

/// How many objects of one kind are looked at side by side, unless somebody says otherwise.
pub const WORKERS: usize = 32;

/// Settings of an operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What decisions depend on.
    pub plan: legion_plan::Settings,
    /// The namespaces that are served; none means all.
    pub namespaces: Vec<String>,
    /// How many objects of one kind are looked at side by side.
    pub workers: usize,
    /// The lease that decides which of several replicas acts; `None` for a process that is alone by construction.
    pub lease: Option<LeaseSettings>,
    /// Where the operator tells how it is; for one run of it.
    pub telemetry: Option<Telemetry>,
}

impl Settings {
    /// All namespaces, no lease.
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
