//! Test kit: a cluster in the process of the test and in paused time, scripted agents, faults at exactly one request or
//! event, and invariants that always hold.
//!
//! For tests only. The kit depends on no controller: a test passes the function that starts one.

pub mod agent;
pub mod cluster;
pub mod disturbance;
pub mod fault;
pub mod history;
pub mod manifests;
pub mod watchfault;
