//! End-to-end suites.

#![allow(clippy::unwrap_used, reason = "tests")]

mod crashes;
mod examples;
mod kubectl;
