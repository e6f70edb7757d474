//! End-to-end suites over the built binaries: what a person at a terminal would see.
//!
//! The suites stand beside this; what they share is in [`local`].

pub mod local;
