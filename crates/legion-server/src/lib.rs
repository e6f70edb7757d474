//! The model server: an HTTP front with validation and batching before Python processes that hold the model.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test fails at the first unexpected result")
)]

pub mod http;
pub mod input;
pub mod metrics;
pub mod model;
pub mod output;
pub mod pool;
pub mod sample;
pub mod serve;
pub mod signature;
pub mod table;
mod worker;

pub use worker::process::{WorkerSettings, WorkerTask};
