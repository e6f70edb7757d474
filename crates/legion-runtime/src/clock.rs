//! Wall time from a clock that callers pass in.
//!
//! An operator uses two kinds of time. *Durations* (back-off, deadlines, leases) are always measured with
//! [`tokio::time`], which a test can pause. *Timestamps* in objects come from a [`Clock`], so that a test can set the
//! date.

use std::sync::Arc;

use jiff::Timestamp;

/// A source of wall time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current wall time.
    fn now(&self) -> Timestamp;
}

impl std::fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// A clock shared by many tasks.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Wall time that follows tokio's clock from a fixed start. On a paused runtime, a sleep of one hour moves it by one
/// hour and takes no real time.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl VirtualClock {
    /// Creates a clock with `start` as its current time. Must be called within a tokio runtime.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            origin: tokio::time::Instant::now(),
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        // Saturates at the last timestamp that can be represented.
        self.start.checked_add(self.origin.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn virtual_time_follows_the_paused_runtime() {
        let start: Timestamp = "2026-11-23T17:00:00Z".parse().unwrap();
        let clock = VirtualClock::starting_at(start);
        assert_eq!(clock.now(), start);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().to_string(), "2026-11-23T18:00:00Z");
    }
}
