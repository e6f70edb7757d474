//! Creating an object that must not exist yet, and the field that errors of the output name.

/// The field that errors of the output name.
pub(crate) const FIELD: &str = "spec.output";

/// Result of creating an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object did not exist and was created.
    New,
    /// The object existed before and was not changed.
    Exists,
}
