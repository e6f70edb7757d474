//! Tests over the repository as a whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod cases;
mod edges;
mod tidy;
