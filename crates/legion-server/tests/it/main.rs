//! The server with real workers. Their model is a plain module, so the tests need Python and none of its packages.

#![allow(clippy::unwrap_used, reason = "a test fails at the first unexpected result")]

mod fuzz;
mod lifetime;
mod module;
mod server;
