//! The commands, one module each.

pub mod get;
pub mod logs;
pub mod rerun;
pub mod toolchain;
pub mod validate;
pub mod wait;
