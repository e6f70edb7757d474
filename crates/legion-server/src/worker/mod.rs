//! Processes that hold the model.

pub(crate) mod frame;
pub(crate) mod process;
