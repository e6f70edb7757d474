//! The three patch formats that are not apply: JSON patch, merge patch, strategic merge patch.
//!
//! Custom resources have no strategic merge: the server answers 415 for them before it comes here.

mod json;
mod merge;
mod strategic;

pub use json::json;
pub use merge::merge;
pub use strategic::strategic;

/// Why a patch was refused; each variant is one HTTP status of the API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch document itself makes no sense: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: 422.
    #[error("the patch does not apply")]
    Unprocessable,
}
