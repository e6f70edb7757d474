//! End-to-end suites.

#![allow(clippy::unwrap_used, reason = "tests")]

mod commands;
mod examples;
mod local_mode;
mod logs;
