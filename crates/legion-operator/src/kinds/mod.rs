//! The kinds that the operator reconciles, one file each.

pub(crate) mod connection;
pub(crate) mod toolchain;
pub(crate) mod training;
