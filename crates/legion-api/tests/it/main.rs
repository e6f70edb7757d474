//! The CRDs and offline validation, from the outside.

mod cases;
mod crds;
