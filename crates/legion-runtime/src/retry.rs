//! What a refused API request means, and how long to wait before the next.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kube::core::Status;
use tokio::time::Instant;

/// What a failed request means for whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The server or the way to it is in trouble: try again. Whether a write took effect is unknown.
    Transient,
    /// The server asks for patience.
    Throttled(Option<Duration>),
    /// Somebody else changed the object first: look again, then decide again.
    Conflict,
    /// An object of this name exists.
    AlreadyExists,
    /// The object, its namespace or its kind is not there.
    Gone,
    /// Not allowed: by RBAC, by quota or by admission. The message says which.
    Forbidden,
    /// The server will never accept this request as it is.
    Invalid,
    /// The answer cannot be understood: one of the two sides is wrong.
    Bug,
}

impl ErrorClass {
    /// Every class.
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

    /// As a metric label and in logs.
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

/// The class of an answer of the API server.
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
        // A token that has just expired is renewed by the client.
        401 => ErrorClass::Transient,
        404 | 410 => ErrorClass::Gone,
        400 | 405 | 406 | 413 | 415 | 422 => ErrorClass::Invalid,
        _ => ErrorClass::Transient,
    }
}

/// The class of an error of the client.
#[must_use]
pub fn classify(error: &kube::Error) -> ErrorClass {
    match error {
        kube::Error::Api(status) => classify_status(status),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) | kube::Error::BuildRequest(_) => ErrorClass::Bug,
        _ => ErrorClass::Transient,
    }
}

/// Exponential back-off with jitter that is a function of the object and the attempt: many objects spread out, and a
/// test sees the same delays again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub first: Duration,
    /// No delay is longer than this.
    pub limit: Duration,
}

impl Backoff {
    /// For one object's reconciliations.
    pub const RECONCILE: Self = Self {
        first: Duration::from_millis(500),
        limit: Duration::from_secs(120),
    };

    /// The delay after `attempt` failures (counted from 1) of what `key` names: between three quarters and all of the
    /// doubled delay.
    #[must_use]
    pub fn delay(&self, key: &str, attempt: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1).min(20)));
        let full = doubled.min(self.limit);
        full.mul_f64(0.75 + 0.25 * jitter(key, attempt))
    }
}

/// Holds back everybody while the server asks for patience. One object's back-off would not do: the next object's request
/// would be refused as well, and cost the server as much.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// However long the server asks for: then it is asked again.
    const LIMIT: Duration = Duration::from_secs(60);

    /// The server asks for so much patience. Returns whether this is news: nobody was held back already.
    pub fn pause_for(&self, asked: Duration) -> bool {
        let now = Instant::now();
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = until.is_none_or(|until| until <= now);
        *until = (*until).max(Some(now + asked.min(Self::LIMIT)));
        is_news
    }

    /// Ends when nobody is held back.
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

/// A number in 0..1 that is spread evenly over keys and salts, and always the same for one of them.
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
    fn answers_have_the_class_that_callers_act_on() {
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
    async fn everybody_waits_as_long_as_the_server_asks_and_no_longer_than_a_minute() {
        let throttle = Throttle::default();
        let start = Instant::now();
        throttle.wait().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(throttle.pause_for(Duration::from_secs(7)));
        assert!(!throttle.pause_for(Duration::from_secs(2)), "held back already");
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
