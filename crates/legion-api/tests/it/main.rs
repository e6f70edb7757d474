//! Tests of the CRDs and of offline validation.

#![allow(clippy::unwrap_used)]

mod cases;
mod crds;
