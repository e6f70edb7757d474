//! The cause of an error of a connection to a server.

use std::error::Error;

/// The beginning of the text of rustls about every certificate that it does not accept.
pub(crate) const CERTIFICATE: &str = "invalid peer certificate";
/// Part of the text of rustls about a server that answers without TLS.
pub(crate) const NO_TLS: &str = "corrupt message of type InvalidContentType";

/// Returns the text at the end of an error's chain. Libraries put the cause there.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
