//! What went wrong between here and a server.

use std::error::Error;

/// What rustls says first about every certificate that it does not accept.
const CERTIFICATE: &str = "invalid peer certificate";

/// The text at the end of an error's chain, which is where libraries put what happened.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whether an error's text speaks of a certificate. The types in between belong to several libraries; the words are
/// those of the one that looks at certificates.
pub(crate) fn is_certificate(text: &str) -> bool {
    text.contains(CERTIFICATE)
}
