//! Reads the body of a request within limits.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::answer::Fault;

/// What is still read of a body that is too long, so that the client has sent it before it reads the answer.
const DRAINED: usize = 256 << 20;
/// Deepest nesting of lists and objects in JSON.
const MAX_DEPTH: usize = 64;

/// Reads a body of at most `max` bytes, and decodes it. The decoded body has at most `max` bytes, too.
pub(super) async fn read(headers: &HeaderMap, mut body: Incoming, max: usize) -> Result<Bytes, Fault> {
    let encoding = Encoding::of(headers)?;
    let mut content = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Fault::new(StatusCode::BAD_REQUEST, format!("body: cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > max {
            content = BytesMut::new();
        } else {
            content.extend_from_slice(&data);
        }
        if length > max + DRAINED {
            break;
        }
    }
    if length > max {
        return Err(too_long(max));
    }
    encoding.decode(content.freeze(), max)
}

fn too_long(max: usize) -> Fault {
    Fault::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("body: is longer than {max} bytes"),
    )
}

/// How a body is compressed (RFC 9110, section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        match value.to_str().unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            _ => Err(Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("content-encoding: {value:?} is none of gzip, deflate"),
            )),
        }
    }

    fn decode(self, body: Bytes, max: usize) -> Result<Bytes, Fault> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => inflate(MultiGzDecoder::new(&*body), max),
            Self::Deflate => inflate(ZlibDecoder::new(&*body), max),
        }
    }
}

fn inflate(body: impl Read, max: usize) -> Result<Bytes, Fault> {
    let mut content = Vec::new();
    let read = body.take(max as u64 + 1).read_to_end(&mut content);
    if let Err(error) = read {
        let message = format!("body: cannot be decompressed: {error}");
        return Err(Fault::new(StatusCode::BAD_REQUEST, message));
    }
    if content.len() > max {
        return Err(too_long(max));
    }
    Ok(content.into())
}

/// Refuses JSON that is nested so deeply that a parser could exhaust its stack.
pub(super) fn check_depth(json: &[u8]) -> Result<(), Fault> {
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let message = format!("body: lists and objects are nested deeper than {MAX_DEPTH}");
                    return Err(Fault::new(StatusCode::BAD_REQUEST, message));
                }
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_compressed_body_is_bounded_by_what_it_becomes() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&[b' '; 5000]).unwrap();
        let packed = Bytes::from(encoder.finish().unwrap());
        assert!(packed.len() < 100);
        assert_eq!(Encoding::Gzip.decode(packed.clone(), 5000).unwrap().len(), 5000);
        let fault = Encoding::Gzip.decode(packed.clone(), 4999).unwrap_err();
        assert_eq!(fault.status, StatusCode::PAYLOAD_TOO_LARGE);
        let fault = Encoding::Gzip.decode(packed.slice(..20), 5000).unwrap_err();
        assert_eq!(fault.status, StatusCode::BAD_REQUEST);
        let fault = Encoding::Deflate.decode(packed, 5000).unwrap_err();
        assert!(fault.message.starts_with("body: cannot be decompressed"), "{fault:?}");
    }

    #[test]
    fn an_unknown_encoding_is_refused_with_those_that_are_known() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        let fault = Encoding::of(&headers).unwrap_err();
        assert_eq!(fault.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(fault.message, "content-encoding: \"br\" is none of gzip, deflate");
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("GZip"));
        assert_eq!(Encoding::of(&headers), Ok(Encoding::Gzip));
    }

    #[test]
    fn deep_json_is_refused_and_brackets_in_texts_do_not_count() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(check_depth(&nested(64)), Ok(()));
        assert!(check_depth(&nested(65)).is_err());
        let text = format!("[\"{}\\\"[\", \"\\\\\"]", "[".repeat(100));
        assert_eq!(check_depth(text.as_bytes()), Ok(()));
        assert_eq!(check_depth(&[nested(40), nested(40)].concat()), Ok(()));
    }
}
