//! The addresses of git repositories that the operator and the agent accept. The rules of the CRDs accept the same
//! addresses, and a test compares them.

/// The accepted forms, for messages.
pub const FORM: &str = "https://HOST/PATH, ssh://[USER@]HOST/PATH, USER@HOST:PATH or file:///PATH";

/// How git reaches a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `https://HOST/PATH`.
    Https,
    /// `ssh://[USER@]HOST/PATH` or `USER@HOST:PATH`.
    Ssh,
    /// `file:///PATH`.
    File,
}

impl Transport {
    /// Returns the name that git's `protocol.*.allow` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

/// Why an address is refused. No text repeats the address, which may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A password, or a user name in an `https` address.
    #[error("contains credentials")]
    Credentials,
    /// A transport that runs programs or does not protect the content: `ext::`, `git://`, `http://`.
    #[error("has a transport that is not allowed")]
    Transport,
    /// Anything else.
    #[error("is not valid")]
    Malformed,
}

/// Parses an address.
///
/// # Errors
/// The address does not have one of the forms of [`FORM`], or it contains credentials.
pub fn parse(uri: &str) -> Result<Transport, AddressError> {
    if uri.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(AddressError::Malformed);
    }
    let Some((scheme, rest)) = uri.split_once("://") else {
        return parse_scp(uri);
    };
    if scheme == "file" {
        let is_absolute = rest.starts_with('/') && rest.len() > 1;
        return is_absolute.then_some(Transport::File).ok_or(AddressError::Malformed);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let transport = match scheme {
        "https" if authority.contains('@') => return Err(AddressError::Credentials),
        "https" => Transport::Https,
        "ssh" if user.contains(':') => return Err(AddressError::Credentials),
        "ssh" => Transport::Ssh,
        _ => return Err(AddressError::Transport),
    };
    // A host that starts with a hyphen would be an option of ssh.
    let is_complete = !host.is_empty() && !authority.starts_with(['-', '@']) && !host.starts_with('-');
    if is_complete && !user.contains('@') && !path.is_empty() {
        Ok(transport)
    } else {
        Err(AddressError::Malformed)
    }
}

/// Parses `USER@HOST:PATH`, which is not a URL.
fn parse_scp(uri: &str) -> Result<Transport, AddressError> {
    let is_word = |text: &str, marks: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
    };
    let is_valid = uri
        .split_once('@')
        .and_then(|(user, rest)| Some((user, rest.split_once(':')?)))
        .is_some_and(|(user, (host, path))| {
            is_word(user, "._-")
                && is_word(host, ".-")
                && !user.starts_with('-')
                && !host.starts_with('-')
                && !path.is_empty()
        });
    match uri.split_once("::") {
        _ if is_valid => Ok(Transport::Ssh),
        Some((helper, _)) if is_word(helper, "-") => Err(AddressError::Transport),
        _ => Err(AddressError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_which_rule_was_broken() {
        for (uri, error) in [
            ("https://me:password@e.org/x.git", AddressError::Credentials),
            ("https://token@e.org/x.git", AddressError::Credentials),
            ("ssh://me:password@e.org/x.git", AddressError::Credentials),
            ("http://e.org/x.git", AddressError::Transport),
            ("git://e.org/x.git", AddressError::Transport),
            ("ext::sh -c true", AddressError::Malformed),
            ("ext::sh", AddressError::Transport),
            ("--upload-pack=x", AddressError::Malformed),
            ("https://e.org", AddressError::Malformed),
        ] {
            assert_eq!(parse(uri), Err(error), "{uri}");
        }
        assert_eq!(parse("ssh://git@e.org:2222/x.git").map(Transport::as_str), Ok("ssh"));
    }
}
