//! The developer commands of this repository: `cargo xtask`.
//!
//! This crate is quick to compile. It runs the tests and prepares the machine for them. It checks and measures the
//! text of the repository. The generators and the test cluster need much more code. They are crates of their own, and
//! `cargo xtask gen`, `image` and `cluster` run them.

pub mod bench;
pub mod edges;
mod go;
pub mod measure;
pub mod mutants;
pub mod setup;
pub mod suites;
pub mod tidy;

use std::path::PathBuf;

/// Returns the root of the repository that this crate was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}
