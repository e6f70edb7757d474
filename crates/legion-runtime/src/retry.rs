//! Classes of API errors, and the delays before the next request.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kube::core::Status;
use tokio::time::Instant;

/// Class of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The server or the network has a temporary problem: retry. A write may or may not have taken effect.
    Transient,
    /// The server throttles requests, with the delay that it requests, if any.
    Throttled(Option<Duration>),
    /// The object has changed since it was read: read it again and reconcile again.
    Conflict,
    /// An object with this name exists already.
    AlreadyExists,
    /// The object, its namespace or its kind does not exist.
    Gone,
    /// Not allowed by RBAC, quota or admission. The message names the reason.
    Forbidden,
    /// The server will never accept this request without a change.
    Invalid,
    /// The request cannot be built, or its answer cannot be parsed: a bug in the client or the server.
    Bug,
}

impl ErrorClass {
    /// Every class, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Transient,
        Self::Throttled(None),
        Self::Conflict,
        Self::AlreadyExists,
        Self::Gone,
        Self::Forbidden,
        Self::Invalid,
        Self::Bug,
    ];

    /// Returns the class as in metric labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled(_) => "throttled",
            Self::Conflict => "conflict",
            Self::AlreadyExists => "already-exists",
            Self::Gone => "gone",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Bug => "bug",
        }
    }
}

/// Returns the class of an error response of the API server.
#[must_use]
pub fn classify_status(status: &Status) -> ErrorClass {
    if status.is_already_exists() {
        return ErrorClass::AlreadyExists;
    }
    let retry_after = status
        .details
        .as_ref()
        .map(|details| details.retry_after_seconds)
        .filter(|&seconds| seconds > 0)
        .map(|seconds| Duration::from_secs(u64::from(seconds)));
    match status.code {
        409 => ErrorClass::Conflict,
        429 => ErrorClass::Throttled(retry_after),
        503 if retry_after.is_some() => ErrorClass::Throttled(retry_after),
        403 => ErrorClass::Forbidden,
        // The client renews an expired token.
        401 => ErrorClass::Transient,
        404 | 410 => ErrorClass::Gone,
        400 | 405 | 406 | 413 | 415 | 422 => ErrorClass::Invalid,
        _ => ErrorClass::Transient,
    }
}

/// Returns the class of an error of the client.
#[must_use]
pub fn classify(error: &kube::Error) -> ErrorClass {
    match error {
        kube::Error::Api(status) => classify_status(status),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) | kube::Error::BuildRequest(_) => ErrorClass::Bug,
        _ => ErrorClass::Transient,
    }
}

/// Exponential back-off with jitter.
///
/// The jitter is a function of the object and the attempt. Many objects spread out, and a test always gets the same
/// delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub first: Duration,
    /// The longest delay.
    pub limit: Duration,
}

impl Backoff {
    /// Back-off of the reconciliations of one object.
    pub const RECONCILE: Self = Self {
        first: Duration::from_millis(500),
        limit: Duration::from_secs(120),
    };

    /// Returns the delay for `key` after the given number of failures, counted from 1. It is between 75 % and 100 % of
    /// the doubled delay.
    #[must_use]
    pub fn delay(&self, key: &str, attempt: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1).min(20)));
        let full = doubled.min(self.limit);
        full.mul_f64(0.75 + 0.25 * jitter(key, attempt))
    }
}

/// A pause of all requests while the server throttles them.
///
/// A back-off per object would not suffice: the server would also refuse the requests for other objects, at the same
/// cost.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// The longest pause, even if the server requests a longer one.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Pauses all requests for the requested time. Returns whether this starts a new pause.
    pub fn pause_for(&self, requested: Duration) -> bool {
        let now = Instant::now();
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = until.is_none_or(|until| until <= now);
        *until = (*until).max(Some(now + requested.min(Self::LIMIT)));
        is_new
    }

    /// Completes when no pause is in effect.
    pub async fn wait(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}

/// Returns a number from 0 to 1, evenly distributed over keys and salts. The same key and salt give the same number.
#[must_use]
pub fn jitter(key: &str, salt: u32) -> f64 {
    // SipHash with fixed keys: stable within a build, which is all that jitter needs.
    let mut hasher = DefaultHasher::new();
    (key, salt).hash(&mut hasher);
    f64::from((hasher.finish() >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    fn status(code: u16, reason: &str, retry_after: u32) -> Status {
        Status::failure("refused", reason)
            .with_code(code)
            .with_details(StatusDetails {
                name: String::new(),
                group: String::new(),
                kind: String::new(),
                uid: String::new(),
                causes: Vec::new(),
                retry_after_seconds: retry_after,
            })
    }

    #[test]
    fn error_responses_are_classified_by_code_and_reason() {
        for (code, reason, after, class) in [
            (409, "Conflict", 0, ErrorClass::Conflict),
            (409, "AlreadyExists", 0, ErrorClass::AlreadyExists),
            (
                429,
                "TooManyRequests",
                7,
                ErrorClass::Throttled(Some(Duration::from_secs(7))),
            ),
            (429, "TooManyRequests", 0, ErrorClass::Throttled(None)),
            (
                503,
                "ServiceUnavailable",
                2,
                ErrorClass::Throttled(Some(Duration::from_secs(2))),
            ),
            (503, "ServiceUnavailable", 0, ErrorClass::Transient),
            (500, "InternalError", 0, ErrorClass::Transient),
            (504, "Timeout", 0, ErrorClass::Transient),
            (403, "Forbidden", 0, ErrorClass::Forbidden),
            (404, "NotFound", 0, ErrorClass::Gone),
            (410, "Expired", 0, ErrorClass::Gone),
            (422, "Invalid", 0, ErrorClass::Invalid),
            (413, "RequestEntityTooLarge", 0, ErrorClass::Invalid),
        ] {
            assert_eq!(classify_status(&status(code, reason, after)), class, "{code} {reason}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_pause_for_the_requested_time_and_at_most_a_minute() {
        let throttle = Throttle::default();
        let start = Instant::now();
        throttle.wait().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(throttle.pause_for(Duration::from_secs(7)));
        assert!(!throttle.pause_for(Duration::from_secs(2)), "a pause is in effect");
        throttle.wait().await;
        assert_eq!(start.elapsed(), Duration::from_secs(7));
        assert!(throttle.pause_for(Duration::from_secs(3600)));
        throttle.wait().await;
        assert_eq!(start.elapsed(), Duration::from_secs(67));
    }

    #[test]
    fn delays_double_up_to_the_limit_and_spread() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            limit: Duration::from_secs(60),
        };
        for attempt in 1..40 {
            let full = Duration::from_secs(60.min(1 << (attempt - 1).min(10)));
            let delay = backoff.delay("ns/a", attempt);
            assert!(
                delay <= full && delay >= full.mul_f64(0.75),
                "attempt {attempt}: {delay:?}"
            );
        }
        assert_eq!(backoff.delay("ns/a", 3), backoff.delay("ns/a", 3));
        assert_ne!(backoff.delay("ns/a", 3), backoff.delay("ns/b", 3));
    }
}
