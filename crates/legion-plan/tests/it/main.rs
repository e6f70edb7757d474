//! The planner as its driver sees it: Worlds in, Plans out.

#![allow(clippy::print_stdout, reason = "a test says how much it tried")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod attempts;
mod factory;
mod golden;
mod pod;
mod properties;
mod rules;
mod status;
mod universe;
