//! The local mode: the embedded Kubernetes API and the operator in one process. Its state is in a data directory.

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

pub(crate) use data_dir::DataDir;
pub(crate) use python::{PythonEnvironment, cache};
pub(crate) use run::run;
pub(crate) use toolchains::{Environment, Toolchain};
pub(crate) use up::{down, status, up};
