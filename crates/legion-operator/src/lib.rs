//! The operator: watches the platform's resources and does what their specs ask for.
//!
//! Every decision is made by `legion-plan`, which is pure. This crate observes (watches into caches), acts (a handful
//! of requests) and settles (one status write), with one driver for all kinds:
//!
//! ```text
//! watches -> feed -> cache -> wakeups -> queue -> driver: observe, decide, act, settle, requeue
//!                      ^                                        |
//!                      +------- answers of own writes ----------+
//! ```
//!
//! Nothing in memory matters: an operator that is killed at any moment goes on from what the API server holds.

pub mod access;
mod collector;
mod context;
mod crds;
mod key;
mod kinds;
mod metrics;
mod names;
mod pods;
mod quota;
mod reconcile;
mod registry;
mod releases;
mod requests;
mod run;
mod settings;
mod store;
mod watch;

pub use run::{RunError, run};
pub use settings::{Settings, WORKERS};
