//! Tests of the embedded API, from the point of view of its clients.
#![allow(clippy::unwrap_used, reason = "a test stops at the first unexpected value")]

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
