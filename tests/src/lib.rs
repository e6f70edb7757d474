//! End-to-end suites over the built binaries: what a person at a terminal would see.
//!
//! The suites stand beside this; what they share is in [`local`], a local Legion under test, [`cluster`], Legion behind kubectl,
//! [`tool`], other people's programs, [`sample`], shares of exhaustive tests,
//! [`audit`], what an audit log says of the operator's permissions, and [`fake_kubelet`],
//! which plays pods on a control plane without a node.

pub mod audit;
pub mod cluster;
pub mod fake_kubelet;
pub mod local;
pub mod sample;
pub mod tool;
