//! Decodes the part of Kubernetes' protobuf that `kubectl create` sends.
//!
//! Clients with typed Go structs write built-in kinds as protobuf and do not fall back to JSON. This module describes
//! the few messages that kubectl writes this way, and CRDs. Answers are JSON, which those clients accept. Every other
//! kind is answered with 415.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::protobuf_kinds::{Field, FieldType, UNKNOWN, fields};
use crate::clock;

/// The prefix of every encoded object.
const MAGIC: &[u8] = b"k8s\0";
/// The maximum depth of nested messages. No schema is deeper, and the limit protects the stack from hostile input.
const DEPTH: usize = 64;

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
    Double(f64),
    /// A number of four bytes. No known field is one.
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
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| DecodeError::Malformed)?;
                Wire::Double(f64::from_le_bytes(bytes))
            }
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
            (FieldType::Count, Wire::Int(0)) | (FieldType::Flag, Wire::Int(0)) => continue,
            (FieldType::Count, Wire::Int(n)) => json!(n.cast_signed()),
            (FieldType::Bool | FieldType::Flag, Wire::Int(n)) => json!(n != 0),
            (FieldType::Double, Wire::Double(n)) => json!(n),
            (FieldType::Bytes, Wire::Bytes(b)) => json!(STANDARD.encode(b)),
            (FieldType::Json | FieldType::Jsons, Wire::Bytes(b)) => raw_json(b)?,
            (FieldType::OneOf(fields), Wire::Bytes(b)) => {
                let mut found = message(b, fields, depth + 1)?;
                let first = fields.iter().find(|(_, name, _)| found.get(*name).is_some());
                first.map_or_else(|| json!({}), |(_, name, _)| found[*name].take())
            }
            (FieldType::MessageMap(fields), Wire::Bytes(b)) => {
                let (key, value) = entry(b)?;
                let map = out.entry(*name).or_insert_with(|| json!({}));
                map[key] = message(value, fields, depth + 1)?;
                continue;
            }
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
        if matches!(type_, FieldType::Texts | FieldType::Messages(_) | FieldType::Jsons) {
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

/// Reads a message whose first field is JSON.
fn raw_json(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = WireReader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(raw)) = (number, wire) {
            return serde_json::from_slice(raw).map_err(|_| DecodeError::Malformed);
        }
    }
    Ok(Value::Null)
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
        let mut out = varint(u64::from(number) << 3 | 2);
        out.extend(varint(content.len() as u64));
        out.extend_from_slice(content);
        out
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let low = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            if value == 0 {
                out.push(low);
                return out;
            }
            out.push(low | 0x80);
        }
    }

    fn number(number: u8, value: u64) -> Vec<u8> {
        [varint(u64::from(number) << 3), varint(value)].concat()
    }

    #[test]
    fn a_crd_is_read() {
        let property = |name: &[u8], schema: &[u8]| field(29, &[field(1, name), field(2, schema)].concat());
        let raw = |json: &[u8]| field(1, json);
        let maximum = [varint(9 << 3 | 1), 1.5_f64.to_le_bytes().to_vec()].concat();
        let size = [field(5, b"number"), maximum, number(10, 0), field(8, &raw(b"1"))].concat();
        let colours = [
            field(5, b"array"),
            field(
                24,
                &field(1, &[field(5, b"string"), field(20, &raw(b"\"red\""))].concat()),
            ),
        ]
        .concat();
        let any = [
            field(5, b"object"),
            field(30, &[number(1, 1), field(2, &field(5, b"string"))].concat()),
        ]
        .concat();
        let open = [field(5, b"object"), field(30, &number(1, 1)), number(38, 1)].concat();
        let rule = field(
            44,
            &[field(1, b"self.size > 0"), field(2, b"must be positive")].concat(),
        );
        let schema = [
            field(5, b"object"),
            property(b"size", &size),
            property(b"colours", &colours),
            property(b"labels", &any),
            property(b"open", &open),
            field(23, b"size"),
            number(37, 0),
            rule,
        ]
        .concat();
        let column = field(
            6,
            &[field(1, b"Size"), field(2, b"number"), number(5, 0), field(6, b".size")].concat(),
        );
        let version = [
            field(1, b"v1"),
            number(2, 1),
            number(3, 1),
            field(4, &field(1, &schema)),
            field(5, &field(1, &[])),
            column,
            number(7, 0),
        ]
        .concat();
        let names = [field(1, b"cakes"), field(4, b"Cake")].concat();
        let spec = [
            field(1, b"demo.io"),
            field(3, &names),
            field(4, b"Namespaced"),
            field(7, &version),
            number(10, 0),
        ]
        .concat();
        let crd = [field(1, &field(1, b"cakes.demo.io")), field(2, &spec), field(3, &[])].concat();
        assert_eq!(
            decode(&enveloped("CustomResourceDefinition", &crd)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "CustomResourceDefinition", "metadata": {"name": "cakes.demo.io"},
                "spec": {
                    "group": "demo.io", "names": {"plural": "cakes", "kind": "Cake"}, "scope": "Namespaced",
                    "versions": [{
                        "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                        "additionalPrinterColumns": [{"name": "Size", "type": "number", "jsonPath": ".size"}],
                        "schema": {"openAPIV3Schema": {
                            "type": "object", "required": ["size"],
                            "properties": {
                                "size": {"type": "number", "maximum": 1.5, "default": 1},
                                "colours": {"type": "array", "items": {"type": "string", "enum": ["red"]}},
                                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                "open": {
                                    "type": "object", "additionalProperties": true,
                                    "x-kubernetes-preserve-unknown-fields": true,
                                },
                            },
                            "x-kubernetes-validations": [{"rule": "self.size > 0", "message": "must be positive"}],
                        }},
                    }],
                },
            })
        );
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
