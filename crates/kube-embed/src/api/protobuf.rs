//! Decodes the part of Kubernetes' protobuf that `kubectl create` sends.
//!
//! Clients with typed Go structs write built-in kinds as protobuf and do not fall back to JSON. This module describes
//! the few messages that kubectl writes this way. Answers are JSON, which those clients accept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::clock;

/// The prefix of every encoded object.
const MAGIC: &[u8] = b"k8s\0";
/// The maximum depth of nested messages. No supported kind needs more, and the limit protects the stack from hostile
/// input.
const DEPTH: usize = 8;

#[derive(Clone, Copy)]
enum FieldType {
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
type Field = (u64, &'static str, FieldType);

const META: &[Field] = &[
    (1, "name", FieldType::Text),
    (2, "generateName", FieldType::Text),
    (3, "namespace", FieldType::Text),
    (5, "uid", FieldType::Text),
    (6, "resourceVersion", FieldType::Text),
    (7, "generation", FieldType::Int),
    (8, "creationTimestamp", FieldType::Time),
    (9, "deletionTimestamp", FieldType::Time),
    (10, "deletionGracePeriodSeconds", FieldType::Int),
    (11, "labels", FieldType::TextMap),
    (12, "annotations", FieldType::TextMap),
    (13, "ownerReferences", FieldType::Messages(OWNER)),
    (14, "finalizers", FieldType::Texts),
];
const OWNER: &[Field] = &[
    (1, "kind", FieldType::Text),
    (3, "name", FieldType::Text),
    (4, "uid", FieldType::Text),
    (5, "apiVersion", FieldType::Text),
    (6, "controller", FieldType::Bool),
    (7, "blockOwnerDeletion", FieldType::Bool),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "data", FieldType::TextMap),
    (3, "binaryData", FieldType::BytesMap),
    (4, "immutable", FieldType::Bool),
];
const SECRET: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "data", FieldType::BytesMap),
    (3, "type", FieldType::Text),
    (4, "stringData", FieldType::TextMap),
    (5, "immutable", FieldType::Bool),
];
const NAMESPACE: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "spec", FieldType::Message(&[(1, "finalizers", FieldType::Texts)])),
];
const SERVICE_ACCOUNT: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (4, "automountServiceAccountToken", FieldType::Bool),
];
const ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "spec", FieldType::Message(ACCESS_SPEC)),
];
const ACCESS_SPEC: &[Field] = &[
    (
        1,
        "resourceAttributes",
        FieldType::Message(&[
            (1, "namespace", FieldType::Text),
            (2, "verb", FieldType::Text),
            (3, "group", FieldType::Text),
            (4, "version", FieldType::Text),
            (5, "resource", FieldType::Text),
            (6, "subresource", FieldType::Text),
            (7, "name", FieldType::Text),
        ]),
    ),
    (
        2,
        "nonResourceAttributes",
        FieldType::Message(&[(1, "path", FieldType::Text), (2, "verb", FieldType::Text)]),
    ),
];
const RULES_REVIEW: &[Field] = &[
    (1, "metadata", FieldType::Message(META)),
    (2, "spec", FieldType::Message(&[(1, "namespace", FieldType::Text)])),
];
const SUBJECT_REVIEW: &[Field] = &[(1, "metadata", FieldType::Message(META))];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", FieldType::Int),
    (
        2,
        "preconditions",
        FieldType::Message(&[(1, "uid", FieldType::Text), (2, "resourceVersion", FieldType::Text)]),
    ),
    (3, "orphanDependents", FieldType::Bool),
    (4, "propagationPolicy", FieldType::Text),
    (5, "dryRun", FieldType::Texts),
];
/// The envelope. Its content (2) is decoded after the kind is known.
const UNKNOWN: &[Field] = &[(
    1,
    "typeMeta",
    FieldType::Message(&[(1, "apiVersion", FieldType::Text), (2, "kind", FieldType::Text)]),
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

/// Why a message cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// It is not protobuf, or does not match its kind.
    Malformed,
    /// The server accepts its kind as JSON only.
    Kind(String),
}

/// Decodes one object.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, DecodeError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Malformed)?;
    let mut raw: &[u8] = &[];
    let mut reader = WireReader(envelope);
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
    let fields = fields(kind).ok_or_else(|| DecodeError::Kind(kind.to_owned()))?;
    let mut object = message(raw, fields, 0)?;
    object["kind"] = json!(kind);
    object["apiVersion"] = json!(text("apiVersion"));
    Ok(object)
}

enum Wire<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// A fixed-width number. No known field is one.
    Other,
}

struct WireReader<'a>(&'a [u8]);

impl<'a> WireReader<'a> {
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(DecodeError::Malformed)?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, DecodeError> {
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
            _ => return Err(DecodeError::Malformed),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

fn message(bytes: &[u8], fields: &[Field], depth: usize) -> Result<Value, DecodeError> {
    if depth > DEPTH {
        return Err(DecodeError::Malformed);
    }
    let mut out = Map::new();
    let mut reader = WireReader(bytes);
    while let Some((number, wire)) = reader.field()? {
        let Some((_, name, type_)) = fields.iter().find(|(n, ..)| *n == number) else {
            continue;
        };
        let value = match (type_, wire) {
            // Varints carry signed numbers in two's complement.
            (FieldType::Int, Wire::Int(n)) => json!(n.cast_signed()),
            (FieldType::Bool, Wire::Int(n)) => json!(n != 0),
            // Go also writes empty strings. JSON leaves them out.
            (FieldType::Text, Wire::Bytes(b"")) => continue,
            (FieldType::Text | FieldType::Texts, Wire::Bytes(b)) => json!(text(b)?),
            (FieldType::Time, Wire::Bytes(b)) => match time(b)? {
                Some(time) => json!(time),
                None => continue,
            },
            (FieldType::Message(fields) | FieldType::Messages(fields), Wire::Bytes(b)) => {
                message(b, fields, depth + 1)?
            }
            (FieldType::TextMap | FieldType::BytesMap, Wire::Bytes(b)) => {
                let (key, value) = entry(b)?;
                let value = if matches!(type_, FieldType::TextMap) {
                    text(value)?.to_owned()
                } else {
                    STANDARD.encode(value)
                };
                let map = out.entry(*name).or_insert_with(|| json!({}));
                map[key] = json!(value);
                continue;
            }
            _ => return Err(DecodeError::Malformed),
        };
        if matches!(type_, FieldType::Texts | FieldType::Messages(_)) {
            if let Value::Array(list) = out.entry(*name).or_insert_with(|| json!([])) {
                list.push(value);
            }
        } else {
            out.insert((*name).to_owned(), value);
        }
    }
    Ok(Value::Object(out))
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed)
}

/// A map entry is a message of key (1) and value (2).
fn entry(bytes: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = WireReader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(b)) => key = b,
            (2, Wire::Bytes(b)) => value = b,
            _ => {}
        }
    }
    Ok((text(key)?, value))
}

/// Returns `None` for Go's zero time, the encoding of an unset timestamp.
fn time(bytes: &[u8]) -> Result<Option<String>, DecodeError> {
    let mut reader = WireReader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Int(seconds)) = (number, wire) {
            let time = Timestamp::from_second(seconds.cast_signed()).map_err(|_| DecodeError::Malformed)?;
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
        assert_eq!(decode(b"{}"), Err(DecodeError::Malformed));
        assert_eq!(decode(&enveloped("Pod", &[])), Err(DecodeError::Kind("Pod".into())));
        let whole = enveloped("ConfigMap", &field(1, &field(1, b"name")));
        for end in 0..whole.len() {
            // At the end of a field, a truncated message is still a message, but has no kind or no content. Elsewhere
            // it is malformed.
            match decode(&whole[..end]) {
                Err(DecodeError::Malformed | DecodeError::Kind(_)) => {}
                Ok(object) => assert_eq!(object.get("metadata"), None, "cut at {end}"),
            }
        }
        let mut long = enveloped("ConfigMap", &[]);
        long.extend([0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(decode(&long), Err(DecodeError::Malformed));
    }
}
