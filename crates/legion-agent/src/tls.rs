//! The cause of an error of a connection to a server.

use std::error::Error;

/// The beginning of the text of rustls about every certificate that it does not accept.
const CERTIFICATE: &str = "invalid peer certificate";

/// Returns the text at the end of an error's chain. Libraries put the cause there.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Returns whether the text of an error is about a certificate. It compares the text of rustls, because the error types
/// in between belong to several libraries.
pub(crate) fn is_certificate(text: &str) -> bool {
    text.contains(CERTIFICATE)
}
