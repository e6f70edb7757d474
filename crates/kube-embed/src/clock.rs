//! Where timestamps come from.
//!
//! Two kinds of time meet in an API server. *Durations* (watch timeouts, bookmark intervals, grace periods) are always
//! measured with [`tokio::time`], so that a paused runtime skips over them. *Timestamps* (`creationTimestamp`,
//! `deletionTimestamp`, `managedFields[].time`) are read from a [`Clock`], so that a test decides what day it is.

use jiff::Timestamp;

/// Tells the wall time for everything that is written into an object.
pub trait Clock: Send + Sync + 'static {
    /// The current wall time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Wall time that follows tokio's clock from a fixed start: with paused time, an hour slept is an hour later in every
/// timestamp.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that reads `start` now. Must be called within a tokio runtime.
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            origin: tokio::time::Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        // Saturates at the end of representable time, which no test reaches.
        self.start.checked_add(self.origin.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// A timestamp as Kubernetes writes `metav1.Time`: RFC 3339, UTC, whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
