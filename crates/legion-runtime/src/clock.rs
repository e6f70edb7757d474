//! Wall time from a clock that callers pass in.
//!
//! An operator uses two kinds of time. *Durations* (back-off, deadlines, leases) are always measured with
//! [`tokio::time`], which a test can pause. *Timestamps* in objects come from a [`Clock`], so that a test can set the
//! date.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

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

/// The clock of the API server, as far as its answers show it.
///
/// The ages of objects are differences between the current time and times that the API server or a node has written. A
/// machine whose clock is wrong by hours would end healthy pods. So the local clock is corrected by the header `Date`
/// of the answers.
#[derive(Debug)]
pub struct ServerClock {
    local: SharedClock,
    /// Seconds by which the local clock is ahead.
    ahead: AtomicI64,
}

/// Smallest difference that counts, in seconds. The header has whole seconds, and an answer takes time.
const SKEW_MIN: i64 = 5;

impl ServerClock {
    /// Creates a clock that is the local one until an answer shows another time.
    #[must_use]
    pub fn new(local: SharedClock) -> Self {
        Self {
            local,
            ahead: AtomicI64::new(0),
        }
    }

    /// Takes the time from the header `Date` of an answer that has just arrived. Anything else is ignored.
    pub fn observe(&self, date: Option<&HeaderValue>) {
        let date = date.and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| rfc2822::parse(date).ok()) else {
            return;
        };
        let seen = self
            .local
            .now()
            .as_second()
            .saturating_sub(date.timestamp().as_second());
        let seen = if seen.abs() < SKEW_MIN { 0 } else { seen };
        let before = self.ahead.load(Ordering::Relaxed);
        // Answers differ by the time that they take.
        if (seen - before).abs() < SKEW_MIN && (seen == 0) == (before == 0) {
            return;
        }
        self.ahead.store(seen, Ordering::Relaxed);
        match seen {
            0 => tracing::info!("the clock of this machine agrees with the API server again"),
            seconds => tracing::warn!(
                seconds,
                "the clock of this machine is ahead of the API server (behind, if negative): ages are judged by the API \
                 server's time; check the time synchronization of the nodes"
            ),
        }
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let local = self.local.now();
        let ahead = SignedDuration::from_secs(self.ahead.load(Ordering::Relaxed));
        local.checked_sub(ahead).unwrap_or(local)
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
    async fn a_clock_that_is_wrong_by_hours_is_corrected_by_the_answers() {
        let local: Timestamp = "2026-11-23T19:00:00Z".parse().unwrap();
        let clock = ServerClock::new(Arc::new(VirtualClock::starting_at(local)));
        assert_eq!(clock.now(), local);
        for (date, expected) in [
            ("Mon, 23 Nov 2026 17:00:00 GMT", "2026-11-23T17:00:00Z"),
            // A slow answer changes nothing, and neither does what is no date.
            ("Mon, 23 Nov 2026 16:59:58 GMT", "2026-11-23T17:00:00Z"),
            ("yesterday", "2026-11-23T17:00:00Z"),
            ("Mon, 23 Nov 2026 18:59:57 GMT", "2026-11-23T19:00:00Z"),
            ("Tue, 24 Nov 2026 19:00:00 GMT", "2026-11-24T19:00:00Z"),
        ] {
            clock.observe(Some(&HeaderValue::from_static(date)));
            assert_eq!(clock.now().to_string(), expected, "{date}");
        }
        clock.observe(None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(clock.now().to_string(), "2026-11-24T19:01:00Z");
    }

    #[tokio::test(start_paused = true)]
    async fn virtual_time_follows_the_paused_runtime() {
        let start: Timestamp = "2026-11-23T17:00:00Z".parse().unwrap();
        let clock = VirtualClock::starting_at(start);
        assert_eq!(clock.now(), start);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().to_string(), "2026-11-23T18:00:00Z");
    }
}
