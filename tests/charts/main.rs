//! The charts under the real Helm: what they render, which values they refuse, and their life on a real API server.
//!
//! Tests of the server need a cluster and are ignored without one:
//! `cargo xtask cluster run -- cargo test -p legion-tests --test charts -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod audit;
mod conform;
mod helm;
mod refused;
mod rendered;
mod server;
