//! The grammar of image references in container runtimes.

/// Why a text is not an image reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidImage {
    /// The text is empty, or has nothing before a tag or digest.
    #[error("has no name")]
    NoName,
    /// The part before the first slash is not a host.
    #[error("has a registry host that is not HOST[:PORT]")]
    Host,
    /// A part of the name is invalid.
    #[error("has an invalid name part: use lowercase letters and digits, separated by '.', '_', '__' or '-'")]
    Name,
    /// The tag is invalid.
    #[error("has an invalid tag: use 1 to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'")]
    Tag,
    /// The digest is invalid.
    #[error("has an invalid digest: use sha256: and 64 hexadecimal digits, or sha512: and 128")]
    Digest,
    /// The name is too long.
    #[error("is longer than 255 characters before tag and digest")]
    TooLong,
}

/// Checks a reference `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
///
/// Source: the grammar in the `reference` package of the distribution project, which containerd and the kubelet use.
///
/// # Errors
/// The first invalid part.
pub(crate) fn check(reference: &str) -> Result<(), InvalidImage> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(InvalidImage::Digest);
    }
    // A colon after the last slash starts the tag. An earlier colon belongs to the registry's port.
    let slash = rest.rfind('/').unwrap_or(0);
    let (name, tag) = match rest[slash..].find(':') {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(InvalidImage::Tag);
    }
    if name.is_empty() {
        return Err(InvalidImage::NoName);
    }
    if name.len() > 255 {
        return Err(InvalidImage::TooLong);
    }
    let path = match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            if !is_host(host) {
                return Err(InvalidImage::Host);
            }
            path
        }
        _ => name,
    };
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err(InvalidImage::Name)
    }
}

fn is_digest(text: &str) -> bool {
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match text.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_host(text: &str) -> bool {
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(|port| !port.is_empty() && port.parse::<u16>().is_ok())
}

fn is_component(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alnum) || !text.ends_with(alnum) {
        return false;
    }
    // Between runs of letters and digits: one dot, one or two underscores, or any number of dashes.
    text.split(alnum)
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("busybox")]
    #[case("busybox:1.36")]
    #[case("legion-platform/toolchain-mlflow:0.1.0")]
    #[case("registry.example.com:5000/a/b__c/d--e:T_a.g-1")]
    #[case("localhost/x")]
    #[case("a_b/c")]
    #[case("Registry/a")]
    #[case("localhost:5000/x")]
    #[case("a/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")]
    #[case("a/b:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")]
    fn valid_references(#[case] reference: &str) {
        assert_eq!(check(reference), Ok(()));
    }

    #[rstest]
    #[case("", InvalidImage::NoName)]
    #[case(":1", InvalidImage::NoName)]
    #[case("Busybox", InvalidImage::Name)]
    #[case("a//b", InvalidImage::Name)]
    #[case("a/b/", InvalidImage::Name)]
    #[case("a..b", InvalidImage::Name)]
    #[case("a___b", InvalidImage::Name)]
    #[case("a/-b", InvalidImage::Name)]
    #[case("a/b-", InvalidImage::Name)]
    #[case("-a.example.com/b", InvalidImage::Host)]
    #[case("a-.example.com/b", InvalidImage::Host)]
    #[case("a..example.com/b", InvalidImage::Host)]
    #[case("ex_ample.com/b", InvalidImage::Host)]
    #[case("example.com:/b", InvalidImage::Host)]
    #[case("https://example.com/a", InvalidImage::Host)]
    #[case("example.com:x/a", InvalidImage::Host)]
    #[case("example.com:99999/a", InvalidImage::Host)]
    #[case("a:", InvalidImage::Tag)]
    #[case("a:.x", InvalidImage::Tag)]
    #[case("a:b c", InvalidImage::Tag)]
    #[case("a@sha256:123", InvalidImage::Digest)]
    #[case("a@md5:0123456789abcdef0123456789abcdef", InvalidImage::Digest)]
    fn invalid_references(#[case] reference: &str, #[case] error: InvalidImage) {
        assert_eq!(check(reference), Err(error));
    }

    #[test]
    fn digests_have_the_length_of_their_algorithm() {
        for (algorithm, length) in [("sha256", 64), ("sha512", 128)] {
            let reference = |digits: usize| format!("a@{algorithm}:{}", "0f".repeat(digits / 2));
            assert_eq!(check(&reference(length)), Ok(()));
            assert_eq!(check(&reference(192 - length)), Err(InvalidImage::Digest));
        }
    }

    #[test]
    fn long_references() {
        assert_eq!(check(&"a".repeat(255)), Ok(()));
        assert_eq!(check(&"a".repeat(256)), Err(InvalidImage::TooLong));
        assert_eq!(check(&format!("a:{}", "t".repeat(129))), Err(InvalidImage::Tag));
    }
}
