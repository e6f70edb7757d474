//! The CRDs and offline validation, from the outside.

mod crds;
