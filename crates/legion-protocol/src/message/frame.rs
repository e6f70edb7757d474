//! The encoding of a head and a tail as one text. `fetch` and `publish` share it.

use std::io::{Read as _, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest head, in bytes.
pub const HEAD_LIMIT: usize = 700;

/// Longest tail after decompression, in bytes. A longer one counts as corrupt.
pub const MAX_TAIL: u64 = 256 * 1024;

/// Prefix of a compressed tail.
const COMPRESSED: &str = "z1:";

/// A parsed message.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<H, T> {
    /// The first line, which is always complete.
    pub head: H,
    /// The rest, or why it is missing.
    pub tail: Tail<T>,
}

/// The tail of a parsed message, or why it is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Tail<T> {
    /// Its length and checksum match.
    Whole(T),
    /// It is shorter than the head states.
    Cut,
    /// Its length or checksum does not match, or it cannot be parsed.
    Corrupt,
    /// The head states that there is none: no tail fitted into the budget.
    Absent,
}

impl<T> Tail<T> {
    /// Returns the tail if it arrived.
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(tail) => Some(tail),
            _ => None,
        }
    }

    /// Returns whether a tail was written and did not arrive.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Cut | Self::Corrupt)
    }
}

/// Why a text is not a message of this version of Legion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The container wrote nothing.
    #[error("the container left no termination message")]
    Empty,
    /// The first line is not the JSON of a head: it was cut, or another program wrote it.
    #[error("the termination message has no readable first line")]
    Unreadable,
    /// Another version of Legion wrote it.
    #[error("the termination message has version {0}")]
    Version(u32),
}

/// The first line of a termination message. It has at most 700 bytes, and can be parsed without the rest.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{H}Line")]
pub(crate) struct Framed<H> {
    /// Version of the message. It is 1.
    v: u32,
    /// Everything that correctness depends on.
    #[serde(flatten)]
    head: H,
    /// Describes the text after the line feed. Absent if there is none. The text is JSON, or `z1:` and the base64 of
    /// its raw deflate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tail: Option<Frame>,
}

/// Length and checksum of the text after the line feed. A mismatch means that the text was cut or altered.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Frame {
    /// Length, in bytes.
    bytes: usize,
    /// CRC-32 (IEEE).
    crc32: u32,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// Most bytes that the frame adds to a head: `"v":1,` and `,"tail":{"bytes":99999,"crc32":4294967295}`.
const FRAME_BYTES: usize = 60;

/// Most bytes of a head without its frame.
pub(super) const HEAD_ROOM: usize = HEAD_LIMIT - FRAME_BYTES;

/// Returns the JSON of a document. Serialization cannot fail: all maps have string keys, and there are no floats.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Joins a head and the most complete tail that fits into `budget` bytes. `tail(n)` returns the tail after `n` steps
/// that each omit something. `steps` is the largest `n`.
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
    // Each step omits more, so bisection finds the first tail that fits. A compression takes a millisecond, and there
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
    // Writing to a Vec cannot fail. If it did, the reader would detect the empty text as corrupt.
    let packed = encoder
        .write_all(text.as_bytes())
        .and_then(|()| encoder.finish())
        .unwrap_or_default();
    format!("{COMPRESSED}{}", STANDARD.encode(packed))
}

/// Parses a message. A lost tail is not an error.
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
    fn errors_name_why_a_text_is_not_a_message() {
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
