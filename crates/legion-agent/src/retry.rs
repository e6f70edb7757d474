//! Retries after network errors: a few times, with growing pauses.

use std::time::{Duration, Instant};

use legion_protocol::reason::StepClass;

use crate::error::Result;
use crate::{report, terminate};

/// Pauses between attempts.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
];

/// Runs `attempt` until it succeeds, fails with an error of the user, or has failed five times.
pub(crate) fn transient<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in PAUSES {
        match attempt() {
            Err(error) if error.class() != StepClass::User => {
                report::line(&format!("{error}; retrying in {} ms", pause.as_millis()));
                std::thread::sleep(pause);
            }
            done => return done,
        }
    }
    attempt()
}

/// Longest outage of a store before a result is abandoned. The result may have taken hours to compute.
const LONGEST_OUTAGE: Duration = Duration::from_secs(600);
/// Longest pause between attempts during an outage of the store.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs `attempt` until it succeeds, fails with another error than one of the store, or the outage is too long.
pub(crate) fn while_store_is_unavailable<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + LONGEST_OUTAGE;
    let mut pause = Duration::from_secs(1);
    loop {
        match attempt() {
            Err(error) if error.class() == StepClass::Storage && Instant::now() + pause < until => {
                report::line(&format!("{error}; retrying in {} s", pause.as_secs()));
                let resume = Instant::now() + pause;
                while let Some(left) = resume.checked_duration_since(Instant::now()) {
                    terminate::check()?;
                    std::thread::sleep(left.min(Duration::from_millis(200)));
                }
                pause = (pause * 3).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}
