//! The operator: watches the platform's resources and does what their specs ask for.
//!
//! Every decision is made by `legion-plan`, which is pure; this crate observes, acts and settles.

pub mod cache;
pub mod calls;
pub mod feed;
pub mod key;
pub mod queue;
