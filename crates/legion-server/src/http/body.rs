//! Reads the body of a request within a limit.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// What is still read of a body that is too long, so that the client has sent it before it reads the answer.
const DRAINED: usize = 256 << 20;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than this many bytes.
    TooLong(usize),
    /// The connection broke off.
    Broken(String),
}

/// Reads a body of at most `max` bytes.
pub(super) async fn read(mut body: Incoming, max: usize) -> Result<Bytes, BodyError> {
    let mut content = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
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
        return Err(BodyError::TooLong(max));
    }
    Ok(content.freeze())
}
