//! Liveness and readiness of a process.
//!
//! *Live* means that a restart would not help. An unavailable API server is no reason for a restart. A queue that no
//! task processes is one. *Ready* means that the process can work immediately.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A check that returns an error for a problem that only a restart fixes.
pub type LivenessCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A check that returns an error while the process cannot work.
pub type ReadinessCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Health of a process. Clones share the same state.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    readiness: Mutex<Readiness>,
    liveness_checks: Mutex<Vec<LivenessCheck>>,
    readiness_checks: Mutex<Vec<ReadinessCheck>>,
}

enum Readiness {
    NotYet(String),
    Ready,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::NotYet("starting".to_owned())
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health(live: {:?}, ready: {:?})", self.live(), self.ready())
    }
}

impl Health {
    /// Reports the process as not ready, with the condition that it waits for.
    pub fn set_not_ready(&self, awaited: impl Into<String>) {
        *self.0.readiness.lock().unwrap_or_else(PoisonError::into_inner) = Readiness::NotYet(awaited.into());
    }

    /// Reports the process as ready.
    pub fn set_ready(&self) {
        *self.0.readiness.lock().unwrap_or_else(PoisonError::into_inner) = Readiness::Ready;
    }

    /// Adds a check to [`Self::live`].
    pub fn add_liveness_check(&self, check: LivenessCheck) {
        self.0
            .liveness_checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(check);
    }

    /// Adds a check to [`Self::ready`].
    pub fn add_readiness_check(&self, check: ReadinessCheck) {
        let mut checks = self.0.readiness_checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push(check);
    }

    /// Returns `Ok` when the process is ready.
    ///
    /// # Errors
    /// The condition that the process waits for.
    pub fn ready(&self) -> Result<(), String> {
        if let Readiness::NotYet(awaited) = &*self.0.readiness.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(awaited.clone());
        }
        let checks = self.0.readiness_checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().try_for_each(|check| check())
    }

    /// Returns `Ok` when no liveness check fails.
    ///
    /// # Errors
    /// The problems that only a restart fixes, one on each line.
    pub fn live(&self) -> Result<(), String> {
        let liveness_checks = self.0.liveness_checks.lock().unwrap_or_else(PoisonError::into_inner);
        let problems: Vec<String> = liveness_checks.iter().filter_map(|check| check().err()).collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("\n"))
        }
    }
}
