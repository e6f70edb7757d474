//! The id of a run: a hash over everything that distinguishes it from other runs.

use serde_json::Value;

use crate::hash;

/// Version of the hash, and part of its input. An id is computed once and then kept in the status. If the list of
/// fields ever changes, ids of the old version therefore stay valid.
const VERSION: &str = "legion-run/1";

/// Precedes a content hash. It changes together with [`VERSION`].
const CONTENT_PREFIX: &str = "1:";

/// Returns the hash of what a run works on: `1:` and sixteen hexadecimal digits. Parameters as for [`run_id`].
pub(crate) fn content_hash(work: &Value, source_digest: Option<&str>) -> String {
    let parts = [&hash::canonical(work), source_digest.unwrap_or_default()];
    format!("{CONTENT_PREFIX}{:016x}", hash::short("legion-content/1", &parts))
}

/// Returns whether a content hash is of this version. Hashes of different versions cannot be compared.
pub(crate) fn is_known_hash(hash: &str) -> bool {
    hash.starts_with(CONTENT_PREFIX)
}

/// Returns the id of run number `sequence` of an object: eight hexadecimal digits. `work` is the part of the spec that
/// means work.
pub(crate) fn run_id(uid: &str, sequence: i64, work: &Value, source_digest: Option<&str>) -> String {
    let work = hash::canonical(work);
    let parts = [uid, &sequence.to_string(), &work, source_digest.unwrap_or_default()];
    format!("{:08x}", hash::short(VERSION, &parts) >> 32)
}
