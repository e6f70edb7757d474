//! Generates uids and the suffixes of `generateName`.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A generator of identifiers that are unique within one server.
#[derive(Debug)]
pub(crate) struct Ids {
    seed: Option<u64>,
    next: AtomicU64,
}

/// The alphabet of Kubernetes' own name suffixes: no vowels, so that no words appear by chance.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

impl Ids {
    /// Creates a generator of random identifiers.
    pub(crate) fn random() -> Self {
        Self {
            seed: None,
            next: AtomicU64::new(0),
        }
    }

    /// Creates a generator with the same sequence for the same seed, so that a test run is reproducible.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            seed: Some(seed),
            next: AtomicU64::new(0),
        }
    }

    /// Returns a new uid.
    pub(crate) fn uid(&self) -> String {
        match self.seed {
            None => Uuid::new_v4(),
            Some(seed) => uuid::Builder::from_random_bytes(self.derived(seed)).into_uuid(),
        }
        .to_string()
    }

    /// Returns five characters for the end of a generated name.
    pub(crate) fn suffix(&self) -> String {
        let bytes = match self.seed {
            None => *Uuid::new_v4().as_bytes(),
            Some(seed) => self.derived(seed),
        };
        // A version-4 uuid has fixed bits in bytes 6 and 8; the last five are random.
        bytes[11..]
            .iter()
            .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
            .collect()
    }

    fn derived(&self, seed: u64) -> [u8; 16] {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let digest = Sha256::new()
            .chain_update(seed.to_be_bytes())
            .chain_update(n.to_be_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_sequence_and_seeds_differ() {
        let sequence = |seed| {
            let ids = Ids::seeded(seed);
            (ids.uid(), ids.uid(), ids.suffix())
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
        let (first, second, suffix) = sequence(1);
        assert_ne!(first, second);
        assert_eq!(suffix.len(), 5);
    }
}
