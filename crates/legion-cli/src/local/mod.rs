//! The local mode: the embedded Kubernetes API and the operator in one process. Its state is in a data directory.

mod apply;
mod binaries;
mod bootstrap;
mod cache;
mod doctor;
mod images;
mod interpreters;
mod python;
mod run;
mod server;
mod source;
mod toolchains;
mod up;

pub(crate) use cache::{CacheLock, run as cache_command};
pub(crate) use doctor::doctor;
pub(crate) use python::{PythonEnvironment, cache, packages};
pub(crate) use run::run;
pub(crate) use toolchains::{Environment, Toolchain};
pub(crate) use up::{down, status, up};
