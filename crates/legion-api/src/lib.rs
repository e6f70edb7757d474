//! Custom resource types of the Legion platform: specs, statuses, typed names, conditions and reasons, and validation
//! without a cluster.
//!
//! This crate is pure: no network, no clock, no environment, no file system. `cargo xtask gen` generates the CRDs under
//! `crds/` from these types ([`crd::all`]).

// Printer columns repeat their type. The lint reports that as a mistake.
#![allow(clippy::duplicated_attributes)]
// kube's derive gives the root types `pub`, wherever they stand.
#![allow(unreachable_pub)]

pub mod condition;
pub mod connection;
pub mod crd;
pub mod duration;
pub mod json;
pub mod names;
mod problem;
mod reason;
pub mod resources;
pub mod rules;
pub mod run;
pub mod toolchain;
pub mod training;
pub mod validate;

pub use connection::{Connection, ConnectionSpec, ConnectionStatus, ConnectionType};
pub use problem::Problem;
pub use reason::{Reason, ReasonKind};
pub use toolchain::{ToolchainIntegration, ToolchainIntegrationSpec, ToolchainIntegrationStatus};
pub use training::{ModelTraining, ModelTrainingSpec, ModelTrainingStatus};

/// API group of every resource.
pub const GROUP: &str = "legion-platform.org";
/// API version of every resource.
pub const VERSION: &str = "v1alpha1";
