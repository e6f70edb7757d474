//! The local mode: the embedded Kubernetes API and the operator in one process, with its state in a directory.

mod apply;
mod binaries;
mod bootstrap;
mod data_dir;
mod images;
mod python;
mod run;
mod server;
mod toolchains;
mod up;

pub use data_dir::{DataDir, Holder, Lock};
pub use python::{PythonEnvironment, cache};
pub use run::run;
pub use toolchains::{Environment, LocalImage, Toolchain};
pub use up::{down, status, up};
