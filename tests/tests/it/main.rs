//! End-to-end suites.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod crashes;
mod examples;
mod kubectl;
