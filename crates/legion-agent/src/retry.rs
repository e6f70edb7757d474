//! Trying again what the network broke: few times, with growing pauses.

use crate::{Result, report};
use legion_protocol::reason::StepClass;
use std::time::Duration;

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
                report::line(&format!("{error}; trying again in {} ms", pause.as_millis()));
                std::thread::sleep(pause);
            }
            done => return done,
        }
    }
    attempt()
}
