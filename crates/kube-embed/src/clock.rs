//! The source of timestamps.
//!
//! An API server uses two kinds of time. *Durations* (watch timeouts, bookmark intervals, grace periods) are always
//! measured with [`tokio::time`], so that a paused runtime skips over them. *Timestamps* (`creationTimestamp`,
//! `deletionTimestamp`, `managedFields[].time`) are read from a [`Clock`], so that a test can choose the date.

use jiff::Timestamp;

/// The source of every time that the server writes into an object.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current wall time.
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

/// Wall time that follows tokio's clock from a fixed start. With paused time, an hour of sleep moves every timestamp by
/// an hour.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// Creates a clock that reads `start` now. Must be called within a tokio runtime.
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            origin: tokio::time::Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        // Saturates at the end of representable time, far beyond any test.
        self.start.checked_add(self.origin.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// Formats a timestamp like Kubernetes' `metav1.Time`: RFC 3339, UTC, whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Formats a timestamp for the header `Date` (RFC 9110).
pub(crate) fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
