//! What every long-running binary of Legion needs around its own work: logs, a clock that tests can own, an orderly
//! shutdown, the classes of API errors and how long to wait after each, a leader lease, a Kubernetes client whose
//! requests always end, and what probes and Prometheus ask for.
//!
//! It knows none of Legion's kinds.

pub mod client;
pub mod clock;
pub mod health;
pub mod lease;
pub mod listen;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod process;
pub mod requests;
pub mod retry;
pub mod shutdown;
pub mod telemetry;
#[cfg(feature = "traces")]
pub mod traces;

pub use clock::{Clock, SharedClock, SystemClock, VirtualClock};
pub use shutdown::Shutdown;
