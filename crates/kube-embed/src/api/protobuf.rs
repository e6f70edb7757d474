//! Kubernetes' protobuf, as far as `kubectl create` sends it.
//!
//! Clients built from typed Go structs write built-in kinds as protobuf and do not fall back to JSON. The few messages
//! that kubectl writes in that way are described here; answers are JSON, which those clients accept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::clock;

/// What every encoded object starts with.
const MAGIC: &[u8] = b"k8s\0";
/// No message of these kinds nests deeper; a hostile one is refused before the stack is.
const DEPTH: usize = 8;

#[derive(Clone, Copy)]
enum Type {
    Text,
    Int,
    Bool,
    Time,
    Texts,
    TextMap,
    /// Values are base64 in JSON.
    BytesMap,
    Message(&'static [Field]),
    Messages(&'static [Field]),
}

/// Number, JSON name, type.
type Field = (u64, &'static str, Type);

const META: &[Field] = &[
    (1, "name", Type::Text),
    (2, "generateName", Type::Text),
    (3, "namespace", Type::Text),
    (5, "uid", Type::Text),
    (6, "resourceVersion", Type::Text),
    (7, "generation", Type::Int),
    (8, "creationTimestamp", Type::Time),
    (9, "deletionTimestamp", Type::Time),
    (10, "deletionGracePeriodSeconds", Type::Int),
    (11, "labels", Type::TextMap),
    (12, "annotations", Type::TextMap),
    (13, "ownerReferences", Type::Messages(OWNER)),
    (14, "finalizers", Type::Texts),
];
const OWNER: &[Field] = &[
    (1, "kind", Type::Text),
    (3, "name", Type::Text),
    (4, "uid", Type::Text),
    (5, "apiVersion", Type::Text),
    (6, "controller", Type::Bool),
    (7, "blockOwnerDeletion", Type::Bool),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Type::Message(META)),
    (2, "data", Type::TextMap),
    (3, "binaryData", Type::BytesMap),
    (4, "immutable", Type::Bool),
];
const SECRET: &[Field] = &[
    (1, "metadata", Type::Message(META)),
    (2, "data", Type::BytesMap),
    (3, "type", Type::Text),
    (4, "stringData", Type::TextMap),
    (5, "immutable", Type::Bool),
];
const NAMESPACE: &[Field] = &[
    (1, "metadata", Type::Message(META)),
    (2, "spec", Type::Message(&[(1, "finalizers", Type::Texts)])),
];
const SERVICE_ACCOUNT: &[Field] = &[
    (1, "metadata", Type::Message(META)),
    (4, "automountServiceAccountToken", Type::Bool),
];
const ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", Type::Message(META)),
    (2, "spec", Type::Message(ACCESS_SPEC)),
];
const ACCESS_SPEC: &[Field] = &[
    (
        1,
        "resourceAttributes",
        Type::Message(&[
            (1, "namespace", Type::Text),
            (2, "verb", Type::Text),
            (3, "group", Type::Text),
            (4, "version", Type::Text),
            (5, "resource", Type::Text),
            (6, "subresource", Type::Text),
            (7, "name", Type::Text),
        ]),
    ),
    (
        2,
        "nonResourceAttributes",
        Type::Message(&[(1, "path", Type::Text), (2, "verb", Type::Text)]),
    ),
];
const RULES_REVIEW: &[Field] = &[
    (1, "metadata", Type::Message(META)),
    (2, "spec", Type::Message(&[(1, "namespace", Type::Text)])),
];
const SUBJECT_REVIEW: &[Field] = &[(1, "metadata", Type::Message(META))];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Type::Int),
    (
        2,
        "preconditions",
        Type::Message(&[(1, "uid", Type::Text), (2, "resourceVersion", Type::Text)]),
    ),
    (3, "orphanDependents", Type::Bool),
    (4, "propagationPolicy", Type::Text),
    (5, "dryRun", Type::Texts),
];
/// The envelope; its content (2) is read once the kind is known.
const UNKNOWN: &[Field] = &[(
    1,
    "typeMeta",
    Type::Message(&[(1, "apiVersion", Type::Text), (2, "kind", Type::Text)]),
)];

fn fields(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Namespace" => NAMESPACE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "SelfSubjectReview" => SUBJECT_REVIEW,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    })
}

/// Why a message is not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is no protobuf, or not what its kind says.
    Malformed,
    /// It is of a kind that is only read as JSON.
    Kind(String),
}

/// Decodes one object.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, Fault> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Fault::Malformed)?;
    let mut raw: &[u8] = &[];
    let mut reader = Reader(envelope);
    while let Some((number, wire)) = reader.field()? {
        if let (2, Wire::Bytes(content)) = (number, wire) {
            raw = content;
        }
    }
    let types = message(envelope, UNKNOWN, 0)?;
    let text = |field: &str| {
        types
            .pointer(&format!("/typeMeta/{field}"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let kind = text("kind");
    let fields = fields(kind).ok_or_else(|| Fault::Kind(kind.to_owned()))?;
    let mut object = message(raw, fields, 0)?;
    object["kind"] = json!(kind);
    object["apiVersion"] = json!(text("apiVersion"));
    Ok(object)
}

enum Wire<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// A fixed-width number, which no known field is.
    Other,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(Fault::Malformed)?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(length).map_err(|_| Fault::Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Fault::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Int(self.varint()?),
            1 => self.take(8).map(|_| Wire::Other)?,
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Other)?,
            _ => return Err(Fault::Malformed),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

fn message(bytes: &[u8], fields: &[Field], depth: usize) -> Result<Value, Fault> {
    if depth > DEPTH {
        return Err(Fault::Malformed);
    }
    let mut out = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        let Some((_, name, type_)) = fields.iter().find(|(n, ..)| *n == number) else {
            continue;
        };
        let value = match (type_, wire) {
            // Varints carry signed numbers in two's complement.
            (Type::Int, Wire::Int(n)) => json!(n.cast_signed()),
            (Type::Bool, Wire::Int(n)) => json!(n != 0),
            // Go writes every text, empty ones too; in JSON these are left out.
            (Type::Text, Wire::Bytes(b"")) => continue,
            (Type::Text | Type::Texts, Wire::Bytes(b)) => json!(text(b)?),
            (Type::Time, Wire::Bytes(b)) => match time(b)? {
                Some(time) => json!(time),
                None => continue,
            },
            (Type::Message(fields) | Type::Messages(fields), Wire::Bytes(b)) => message(b, fields, depth + 1)?,
            (Type::TextMap | Type::BytesMap, Wire::Bytes(b)) => {
                let (key, value) = entry(b)?;
                let value = if matches!(type_, Type::TextMap) {
                    text(value)?.to_owned()
                } else {
                    STANDARD.encode(value)
                };
                let map = out.entry(*name).or_insert_with(|| json!({}));
                map[key] = json!(value);
                continue;
            }
            _ => return Err(Fault::Malformed),
        };
        if matches!(type_, Type::Texts | Type::Messages(_)) {
            if let Value::Array(list) = out.entry(*name).or_insert_with(|| json!([])) {
                list.push(value);
            }
        } else {
            out.insert((*name).to_owned(), value);
        }
    }
    Ok(Value::Object(out))
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Malformed)
}

/// A map entry is a message of key (1) and value (2).
fn entry(bytes: &[u8]) -> Result<(&str, &[u8]), Fault> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(b)) => key = b,
            (2, Wire::Bytes(b)) => value = b,
            _ => {}
        }
    }
    Ok((text(key)?, value))
}

/// `None` for Go's zero time, which an unset timestamp is written as.
fn time(bytes: &[u8]) -> Result<Option<String>, Fault> {
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Int(seconds)) = (number, wire) {
            let time = Timestamp::from_second(seconds.cast_signed()).map_err(|_| Fault::Malformed)?;
            return Ok((time > Timestamp::UNIX_EPOCH).then(|| clock::seconds(time)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn enveloped(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &types), field(2, raw)].concat()
    }

    #[test]
    fn a_secret_is_read() {
        let labels = field(11, &[field(1, b"a"), field(2, b"b")].concat());
        let metadata = [
            field(1, b"s"),
            field(2, b""),
            field(8, &[]),
            labels,
            field(14, b"x.io/y"),
        ]
        .concat();
        let data = field(2, &[field(1, b"k"), field(2, b"\xff")].concat());
        let raw = [field(1, &metadata), data, field(3, b"Opaque"), vec![5 << 3, 1]].concat();
        assert_eq!(
            decode(&enveloped("Secret", &raw)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true, "data": {"k": "/w=="},
                "metadata": {"name": "s", "labels": {"a": "b"}, "finalizers": ["x.io/y"]},
            })
        );
    }

    #[test]
    fn anything_else_is_refused_without_harm() {
        assert_eq!(decode(b"{}"), Err(Fault::Malformed));
        assert_eq!(decode(&enveloped("Pod", &[])), Err(Fault::Kind("Pod".into())));
        let whole = enveloped("ConfigMap", &field(1, &field(1, b"name")));
        for end in 0..whole.len() {
            // Cut at a field's end it is still a message, of no kind or without content; anywhere else it is none.
            match decode(&whole[..end]) {
                Err(Fault::Malformed | Fault::Kind(_)) => {}
                Ok(object) => assert_eq!(object.get("metadata"), None, "cut at {end}"),
            }
        }
        let mut long = enveloped("ConfigMap", &[]);
        long.extend([0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(decode(&long), Err(Fault::Malformed));
    }
}
