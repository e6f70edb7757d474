//! Generators and checks of this repository.
//!
//! `cargo xtask gen` writes every generated file, `cargo xtask gen --check` says which of them are out of date, and
//! `cargo xtask test` runs all tests, the fast tiers first. The same functions are called by this crate's tests, so that
//! `cargo test` alone notices drift.

pub mod cluster;
pub mod generate;
pub mod image;
pub mod measure;
pub mod suites;
pub mod tidy;

use std::path::PathBuf;

/// The root of the repository that this crate was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}
