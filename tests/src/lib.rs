//! What the end-to-end suites share. The suites run the built binaries and check what a user at a terminal sees.
//!
//! - [`local`]: a local Legion under test
//! - [`cluster`]: Legion behind kubectl, embedded or in a real cluster
//! - [`tool`]: third-party programs
//! - [`sample`]: shares of exhaustive tests
//! - [`audit`]: the operator's permissions compared with an audit log
//! - [`fake_kubelet`]: pod statuses on a control plane without a node
//! - [`guide`]: the command blocks of a guide

pub mod audit;
pub mod cluster;
pub mod fake_kubelet;
pub mod guide;
pub mod local;
pub mod sample;
pub mod tool;
