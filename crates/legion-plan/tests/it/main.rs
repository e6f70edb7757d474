//! The planner from the view of its driver: from Worlds to Plans.

#![allow(clippy::print_stdout, reason = "a test prints how many cases it tried")]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue must stop")]

mod attempts;
mod factory;
mod git_address;
mod golden;
mod lost;
mod passes;
mod pod;
mod properties;
mod rules;
mod status;
mod turns;
mod universe;
