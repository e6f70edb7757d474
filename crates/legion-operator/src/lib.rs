//! The operator: watches the platform's resources and does what their specs ask for.
//!
//! Every decision is made by `legion-plan`, which is pure. This crate observes (watches into caches), acts (a handful of
//! requests) and settles (one status write), with one driver for all kinds:
//!
//! ```text
//! watches -> feed -> cache -> wakeups -> queue -> driver: observe, decide, act, settle, requeue
//!                      ^                                        |
//!                      +------- answers of own writes ----------+
//! ```
//!
//! Nothing in memory matters: an operator that is killed at any moment goes on from what the API server holds.

pub mod access;
pub mod act;
pub mod cache;
pub mod calls;
pub mod crds;
pub mod driver;
pub mod events;
pub mod feed;
pub mod invalid;
pub mod key;
pub mod kind;
pub mod kinds;
pub mod metrics;
pub mod queue;
pub mod run;
pub mod settings;
pub mod shared;
pub mod told;
pub mod view;
pub mod wakeups;

pub use run::{RunError, run};
pub use settings::Settings;
