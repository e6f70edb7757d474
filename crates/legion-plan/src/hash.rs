//! Short hashes. Their input contains a purpose, so that two uses never have the same hash by accident.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Returns the first 64 bits of a SHA-256 over `purpose` and the parts, each preceded by its length.
pub(crate) fn short(purpose: &str, parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in std::iter::once(&purpose).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Returns JSON without white space and with sorted keys, so that the order of keys does not matter.
pub(crate) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write(&fields[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_sorts_keys_and_keeps_lists() {
        assert_eq!(
            canonical(&json!({"b": [2, 1], "a": {"d": null, "c": "x\"y"}})),
            r#"{"a":{"c":"x\"y","d":null},"b":[2,1]}"#
        );
    }

    #[test]
    fn the_order_of_bytes_is_that_of_the_digest() {
        let parts = ["a"];
        let mut hash = Sha256::new();
        hash.update(b"\0\0\0\0\0\0\0\x01p\0\0\0\0\0\0\0\x01a");
        let digest: [u8; 32] = hash.finalize().into();
        assert_eq!(short("p", &parts).to_be_bytes(), digest[..8]);
    }

    #[test]
    fn the_borders_of_parts_matter() {
        assert_ne!(short("p", &["ab", "c"]), short("p", &["a", "bc"]));
        assert_ne!(short("p", &["a"]), short("q", &["a"]));
    }
}
