//! The three patch formats besides apply: JSON patch, merge patch and strategic merge patch.
//!
//! Custom resources have no strategic merge. The server answers 415 for them before this code is called.

mod json;
mod merge;
mod strategic;

pub(crate) use json::json;
pub(crate) use merge::merge;
pub(crate) use strategic::strategic;

/// The reason why a patch was refused. Each variant is one HTTP status of the API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PatchError {
    /// The patch document itself is invalid: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: 422.
    #[error("the patch does not apply")]
    Unprocessable,
}
