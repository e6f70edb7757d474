//! The delay before the next attempt.

use std::time::Duration;

use crate::{Settings, hash};

/// Returns the delay before the next attempt, after `ended` attempts have ended.
///
/// The delay is the base, doubled for each attempt and cut at the maximum. A hash of the run's id adds up to a quarter.
/// Runs with simultaneous failures therefore retry at different times. Nothing is random.
pub(super) fn delay(settings: &Settings, run_id: &str, ended: i32) -> Duration {
    let doublings = u32::try_from(ended.saturating_sub(1)).unwrap_or(0).min(20);
    let delay = settings
        .backoff_base
        .saturating_mul(1 << doublings)
        .min(settings.backoff_max);
    let jitter = hash::short("legion-backoff/1", &[run_id, &ended.to_string()]) % 256;
    // Less than 256 / 1024: a quarter.
    delay.saturating_add(delay.saturating_mul(u32::try_from(jitter).unwrap_or(0)) / 1024)
}

/// Returns an upper bound of every [`delay`].
pub(super) fn longest(settings: &Settings) -> Duration {
    settings.backoff_max.saturating_add(settings.backoff_max / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_from_ten_seconds_to_ten_minutes_with_a_jitter_of_a_quarter() {
        let settings = Settings::new("legion-system", "agent");
        for (ended, seconds) in [
            (0, 10),
            (1, 10),
            (2, 20),
            (3, 40),
            (4, 80),
            (7, 600),
            (8, 600),
            (i32::MAX, 600),
        ] {
            let delay = delay(&settings, "0123abcd", ended).as_secs_f64();
            assert!(delay <= longest(&settings).as_secs_f64(), "{ended}: {delay}");
            assert!(
                (f64::from(seconds)..f64::from(seconds) * 1.25).contains(&delay),
                "{ended}: {delay}"
            );
        }
        assert_eq!(longest(&settings), Duration::from_secs(750));
        assert_ne!(delay(&settings, "0123abcd", 1), delay(&settings, "0123abce", 1));
    }
}
