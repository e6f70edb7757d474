//! Tests over the repository as a whole.

mod drift;
mod edges;
