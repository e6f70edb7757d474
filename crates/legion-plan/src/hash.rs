//! Short hashes with a purpose in their input, so that two uses never agree by accident.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The first 64 bits of a SHA-256 over `purpose` and the parts, each preceded by its length.
#[must_use]
pub fn short(purpose: &str, parts: &[&str]) -> u64 {
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

/// A JSON text that does not depend on the order of keys: keys sorted at every depth, no white space.
#[must_use]
pub fn canonical(value: &Value) -> String {
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
    fn parts_cannot_be_shifted() {
        assert_ne!(short("p", &["ab", "c"]), short("p", &["a", "bc"]));
        assert_ne!(short("p", &["a"]), short("q", &["a"]));
    }
}
