//! The embedded API as its clients see it.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that is not as it should be"
)]

#[path = "../shared/built.rs"]
mod built;
mod controller;
mod crds;
mod deletion;
mod kubectl;
mod listener;
mod node;
mod objects;
mod pods;
mod reads;
mod storage;
mod support;
mod watches;
