//! Test kit: a cluster in the test's own process and paused time, agents that behave as scripted, faults at exactly one
//! request or event, and the invariants that must hold whatever happens.
//!
//! For tests only; it knows no controller. A test hands it the function that starts one.

pub mod agent;
pub mod cluster;
pub mod disturbance;
pub mod fault;
pub mod history;
pub mod manifests;
pub mod watchfault;
