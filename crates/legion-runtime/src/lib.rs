//! The common parts of Legion's long-running binaries: logs, a clock that tests can control, graceful shutdown, classes
//! of API errors and their delays, leader election, a Kubernetes client with a deadline for each request, probes, and
//! metrics.
//!
//! This crate knows none of Legion's kinds.

pub mod client;
pub mod clock;
pub mod health;
pub mod lease;
pub mod listen;
pub mod logs;
pub mod memory;
pub mod metrics;
mod process;
pub mod requests;
pub mod retry;
pub mod shutdown;
pub mod telemetry;
#[cfg(feature = "traces")]
pub mod traces;

pub use clock::{Clock, ServerClock, SharedClock, SystemClock, VirtualClock};
pub use shutdown::Shutdown;
