//! The framing that both messages share.

use std::io::{Read as _, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest head, in bytes.
pub const HEAD_LIMIT: usize = 700;

/// Longest tail after decompression, in bytes.
pub const MAX_TAIL: u64 = 256 * 1024;

/// What a compressed tail starts with.
const COMPRESSED: &str = "z1:";

/// A message that was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<H, T> {
    /// The head.
    pub head: H,
    /// The tail, or what became of it.
    pub tail: Tail<T>,
}

/// What became of a tail.
#[derive(Clone, Debug, PartialEq)]
pub enum Tail<T> {
    /// It arrived as it was written.
    Whole(T),
    /// It is shorter than it was written.
    Cut,
    /// It is not what was written.
    Corrupt,
    /// None was written: nothing fitted, or there was nothing to say.
    Absent,
}

impl<T> Tail<T> {
    /// The tail, if it arrived.
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(tail) => Some(tail),
            _ => None,
        }
    }

    /// Whether something was written that did not arrive.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Cut | Self::Corrupt)
    }
}

/// A text that is no message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The container wrote nothing.
    #[error("the container left no termination message")]
    Empty,
    /// The first line is not the JSON of a head: cut, or written by something else.
    #[error("the termination message has no readable first line")]
    Unreadable,
    /// Written by another version of Legion.
    #[error("the termination message has version {0}")]
    Version(u32),
}

/// The first line of a termination message: at most 700 bytes, and complete without what follows it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{H}Line")]
pub(crate) struct Framed<H> {
    /// Version of the message.
    v: u32,
    /// What correctness needs.
    #[serde(flatten)]
    head: H,
    /// The text after the line feed; absent when there is none. It is JSON, or `z1:` and the base64 of its raw deflate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tail: Option<Frame>,
}

/// How the text after the line feed was written: one that arrived otherwise was cut or altered.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Frame {
    /// Its length in bytes.
    bytes: usize,
    /// Its CRC-32 (IEEE).
    crc32: u32,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The longest that the frame itself adds to a head: `"v":1,` and `,"tail":{"bytes":99999,"crc32":4294967295}`.
const FRAME_BYTES: usize = 60;

/// The room that a head has for itself.
pub(super) const HEAD_ROOM: usize = HEAD_LIMIT - FRAME_BYTES;

/// JSON of a document whose types cannot fail to serialise: maps with string keys, no floats.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Joins a head and the most complete tail that fits into `budget` bytes. `tail(n)` is the tail after `n` steps of
/// leaving something out, and `steps` is the last such `n`.
pub(super) fn encode<H: Serialize, T: Serialize>(
    head: &H,
    steps: usize,
    tail: impl Fn(usize) -> T,
    budget: usize,
) -> String {
    let alone = json(&Framed {
        v: crate::WIRE_VERSION,
        head,
        tail: None,
    });
    let room = budget.saturating_sub(alone.len() + FRAME_BYTES + 1);
    let fitting = |n: usize| {
        let plain = json(&tail(n));
        let text = if plain.len() <= room { plain } else { compress(&plain) };
        (text.len() <= room).then_some(text)
    };
    // Each step leaves less, so the first that fits is found by bisection: a compression costs a millisecond, and there
    // may be two hundred steps.
    let whole = fitting(0);
    let (mut too_long, mut fits) = (0, if whole.is_some() { 0 } else { steps });
    let Some(mut best) = whole.or_else(|| fitting(steps)) else {
        return alone;
    };
    while fits > too_long + 1 {
        let middle = too_long + (fits - too_long) / 2;
        match fitting(middle) {
            Some(text) => (best, fits) = (text, middle),
            None => too_long = middle,
        }
    }
    let frame = Frame {
        bytes: best.len(),
        crc32: crc32fast::hash(best.as_bytes()),
    };
    format!(
        "{}\n{best}",
        json(&Framed {
            v: crate::WIRE_VERSION,
            head,
            tail: Some(frame)
        })
    )
}

fn compress(text: &str) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing into a Vec cannot fail; were it to, an empty text would not match its checksum on the other side.
    let packed = encoder
        .write_all(text.as_bytes())
        .and_then(|()| encoder.finish())
        .unwrap_or_default();
    format!("{COMPRESSED}{}", STANDARD.encode(packed))
}

/// Reads a message back.
pub(super) fn decode<H: DeserializeOwned, T: DeserializeOwned>(text: &str) -> Result<Decoded<H, T>, MessageError> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    if text.trim().is_empty() {
        return Err(MessageError::Empty);
    }
    let Version { v } = serde_json::from_str(first).map_err(|_| MessageError::Unreadable)?;
    if v != crate::WIRE_VERSION {
        return Err(MessageError::Version(v));
    }
    let framed: Framed<H> = serde_json::from_str(first).map_err(|_| MessageError::Unreadable)?;
    let tail = match framed.tail {
        None => Tail::Absent,
        Some(frame) if rest.len() < frame.bytes => Tail::Cut,
        Some(frame) if rest.len() > frame.bytes || crc32fast::hash(rest.as_bytes()) != frame.crc32 => Tail::Corrupt,
        Some(_) => unpack(rest).map_or(Tail::Corrupt, Tail::Whole),
    };
    Ok(Decoded {
        head: framed.head,
        tail,
    })
}

fn unpack<T: DeserializeOwned>(text: &str) -> Option<T> {
    let Some(packed) = text.strip_prefix(COMPRESSED) else {
        return serde_json::from_str(text).ok();
    };
    let packed = STANDARD.decode(packed).ok()?;
    let mut plain = Vec::new();
    // One byte more than the limit, to distinguish a tail of exactly the limit from a longer one.
    DeflateDecoder::new(packed.as_slice())
        .take(MAX_TAIL + 1)
        .read_to_end(&mut plain)
        .ok()?;
    if plain.len() as u64 > MAX_TAIL {
        return None;
    }
    serde_json::from_slice(&plain).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn decompression_is_bounded() {
        let bomb = compress(&format!("\"{}\"", "a".repeat(MAX_TAIL as usize)));
        assert!(bomb.len() < 1000);
        let text = format!(
            "{}\n{bomb}",
            json!({"v": 1, "tail": {"bytes": bomb.len(), "crc32": crc32fast::hash(bomb.as_bytes())}})
        );
        assert_eq!(decode::<Value, Value>(&text).unwrap().tail, Tail::Corrupt);
        let fits = compress(&format!("\"{}\"", "a".repeat(MAX_TAIL as usize - 2)));
        assert!(unpack::<String>(&fits).is_some());
    }

    #[test]
    fn what_is_no_message_is_named() {
        for (text, error) in [
            ("", MessageError::Empty),
            (" \n", MessageError::Empty),
            ("Traceback (most recent call last)", MessageError::Unreadable),
            (r#"{"v":1"#, MessageError::Unreadable),
            (r#"{"v":2}"#, MessageError::Version(2)),
        ] {
            assert_eq!(decode::<Value, Value>(text).unwrap_err(), error, "{text}");
        }
    }
}
