//! A complete Kubernetes on this machine, and the images that run on it.

pub mod cluster;
pub mod image;
