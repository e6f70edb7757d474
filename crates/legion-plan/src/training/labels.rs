//! Labels of a training's pods.

pub use crate::run::labels::{ATTEMPT, OPERATOR, RUN};

/// Label with the name of the training.
pub const TRAINING: &str = "legion-platform.org/training";
