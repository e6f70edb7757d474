//! Digests as Legion writes them: `sha256:` and 64 hexadecimal digits.

use sha2::{Digest as _, Sha256};

/// Prefix of every digest.
pub const PREFIX: &str = "sha256:";

/// Renders a finished hash.
pub fn render(hash: Sha256) -> String {
    let mut out = String::with_capacity(PREFIX.len() + 64);
    out.push_str(PREFIX);
    for byte in hash.finalize() {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    out
}

/// Digest of some bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    render(Sha256::new_with_prefix(bytes))
}

/// Whether `text` is a digest in the form this module writes.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// Digest of a set of files: SHA-256 over, for each path in byte order, the path and the content, each preceded by its
/// length as a big-endian 64-bit number. Two different sets cannot collide by shifting bytes between names and
/// contents.
pub fn of_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_unstable();
    let mut hash = Sha256::new();
    for (path, content) in files {
        for part in [path.as_bytes(), content] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    render(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_digest_of_nothing() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of_bytes(b""), empty);
        assert_eq!(of_files([]), empty);
        assert!(is_digest(empty));
        assert!(!is_digest(&empty.to_uppercase()));
        assert!(!is_digest(&empty[..70]));
    }

    #[test]
    fn the_order_given_does_not_matter_and_the_boundary_does() {
        let one = of_files([("a", b"1".as_slice()), ("b", b"2")]);
        assert_eq!(one, of_files([("b", b"2".as_slice()), ("a", b"1")]));
        assert_ne!(of_files([("ab", b"c".as_slice())]), of_files([("a", b"bc".as_slice())]));
    }
}
