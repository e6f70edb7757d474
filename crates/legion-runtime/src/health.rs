//! Whether a process lives, and whether it is ready.
//!
//! *Live* means that a restart would not help: an API server that is away is no reason for one, work that nobody takes up
//! any more is. *Ready* means that it can do its work at once.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Says what is wrong in a way that only a restart mends.
pub type LivenessCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The health of a process. Cloning gives another handle of the same.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    readiness: Mutex<Readiness>,
    liveness_checks: Mutex<Vec<LivenessCheck>>,
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
    /// Not ready: it waits for this.
    pub fn set_not_ready(&self, what: impl Into<String>) {
        *self.0.readiness.lock().unwrap_or_else(PoisonError::into_inner) = Readiness::NotYet(what.into());
    }

    /// Ready from now on.
    pub fn set_ready(&self) {
        *self.0.readiness.lock().unwrap_or_else(PoisonError::into_inner) = Readiness::Ready;
    }

    /// Adds a reason for a restart.
    pub fn add_liveness_check(&self, check: LivenessCheck) {
        self.0
            .liveness_checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(check);
    }

    /// Is it ready?
    ///
    /// # Errors
    /// Says what it waits for.
    pub fn ready(&self) -> Result<(), String> {
        match &*self.0.readiness.lock().unwrap_or_else(PoisonError::into_inner) {
            Readiness::Ready => Ok(()),
            Readiness::NotYet(what) => Err(what.clone()),
        }
    }

    /// Does it live?
    ///
    /// # Errors
    /// Says what only a restart mends.
    pub fn live(&self) -> Result<(), String> {
        let liveness_checks = self.0.liveness_checks.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong: Vec<String> = liveness_checks.iter().filter_map(|check| check().err()).collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    }
}
