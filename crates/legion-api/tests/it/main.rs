//! The CRDs and offline validation, from the outside.

#![allow(clippy::unwrap_used)]

mod cases;
mod crds;
