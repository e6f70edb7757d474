//! Trying again what the network broke: few times, with growing pauses.

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

/// Runs `attempt` until it succeeds, fails for good, or has failed five times.
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

/// How long a store may be away before a result that took hours to make is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest pause between attempts on it.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs `attempt` until it succeeds, fails for good, or the output store has been away for too long.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + PATIENCE;
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
                pause = (pause * 3).min(LONGEST);
            }
            done => return done,
        }
    }
}
