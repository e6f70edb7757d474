//! The commands that use the Kubernetes API or files, one module each.

pub(crate) mod get;
pub(crate) mod logs;
pub(crate) mod rerun;
pub(crate) mod toolchain;
pub(crate) mod validate;
pub(crate) mod wait;
