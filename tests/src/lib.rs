//! End-to-end suites over the built binaries: what a person at a terminal would see.
//!
//! The suites stand beside this; what they share is in [`local`], a local Legion under test, [`tool`], other people's programs, and
//! [`audit`], what an audit log says of the operator's permissions.

pub mod audit;
pub mod local;
pub mod tool;
