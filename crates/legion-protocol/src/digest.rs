//! Digests: `sha256:` and 64 lowercase hexadecimal digits, as in OCI.

use sha2::{Digest as _, Sha256};

/// The algorithm, with the colon that separates it from the digits.
pub const PREFIX: &str = "sha256:";

/// Finishes a hash and returns its digest.
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

/// Returns the digest of some bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    render(Sha256::new_with_prefix(bytes))
}

/// Returns whether `text` is a digest in the form of this module. Uppercase digits are not accepted.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// Returns the digest of a set of files. The hash covers the path and the content of each file, in the byte order of
/// the paths. The length of each part precedes it as a big-endian 64-bit number. So bytes cannot move between names and
/// contents without changing the digest.
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
    fn the_digest_of_no_bytes_is_the_published_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of_bytes(b""), empty);
        assert_eq!(of_files([]), empty);
        assert!(is_digest(empty));
        assert!(!is_digest(&empty.to_uppercase()));
        assert!(!is_digest(&empty[..70]));
    }

    #[test]
    fn the_order_of_files_does_not_matter_and_their_boundaries_do() {
        let one = of_files([("a", b"1".as_slice()), ("b", b"2")]);
        assert_eq!(one, of_files([("b", b"2".as_slice()), ("a", b"1")]));
        assert_ne!(of_files([("ab", b"c".as_slice())]), of_files([("a", b"bc".as_slice())]));
    }
}
