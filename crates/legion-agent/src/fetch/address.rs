//! The address of a git repository, and the authority that may receive a password.

use legion_protocol::git_address::{self, AddressError, Transport};
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::text::bounded;
use url::Url;

use crate::error::Result;

/// Checks an address and returns its transport. Credentials in an address would show in process lists, messages and the
/// status, so such an address is refused and not repeated.
pub(super) fn check(uri: &str) -> Result<Transport> {
    let transport = match git_address::parse(uri) {
        // The `url` crate also knows what a valid host is.
        Ok(Transport::Https | Transport::File) if Url::parse(uri).is_err() => Err(AddressError::Malformed),
        Ok(Transport::Ssh) if uri.contains("://") && Url::parse(uri).is_err() => Err(AddressError::Malformed),
        other => other,
    };
    transport.map_err(|error| {
        let message = match error {
            AddressError::Credentials => {
                "the address of the repository contains credentials; put them into the Secret of a connection"
                    .to_owned()
            }
            error => format!("the address {:?} of the repository {error}", bounded(uri, 200)),
        };
        StepError::new(StepReason::SourceNotFound, message)
            .field("spec.source.git.uri")
            .remedy(format!("use {}", git_address::FORM))
    })
}

/// Returns scheme, host and port. A password is sent to this authority only.
pub(super) fn authority(url: &Url) -> Option<String> {
    Some(format!(
        "{}://{}:{}",
        url.scheme(),
        url.host_str()?,
        url.port_or_known_default()?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (uri, transport) in [
            ("https://e.org/x.git", Some(Transport::Https)),
            ("ssh://git@e.org:2222/x.git", Some(Transport::Ssh)),
            ("git@e.org:x.git", Some(Transport::Ssh)),
            ("file:///srv/x.git", Some(Transport::File)),
            ("https://me:secret@e.org/x.git", None),
            ("https://token@e.org/x.git", None),
            ("ext::sh -c true", None),
            ("git://e.org/x.git", None),
            ("http://e.org/x.git", None),
            ("--upload-pack=x", None),
            ("/srv/x.git", None),
        ] {
            let result = check(uri);
            assert_eq!(result.as_ref().ok().copied(), transport, "{uri}: {result:?}");
            if let Err(e) = result {
                assert!(!e.message.contains("secret"), "{e}");
            }
        }
    }
}
