//! What every long-running binary of Legion needs around its own work: logs, a clock that tests can own, an orderly
//! shutdown, the classes of API errors and how long to wait after each, a leader lease, and a Kubernetes client whose
//! requests always end.
//!
//! It knows none of Legion's kinds.

pub mod client;
pub mod clock;
pub mod lease;
pub mod logs;
pub mod retry;
pub mod shutdown;

pub use clock::{Clock, SharedClock, SystemClock, VirtualClock};
pub use shutdown::Shutdown;
