//! The frames between the front and a worker.
//!
//! A frame: the length of a JSON header (4 bytes, little-endian), the length of the buffers (8 bytes), the header, the
//! buffers. Each buffer begins at a multiple of 8 bytes, as NumPy needs.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    input::Input,
    signature::{Schema, Signature},
    table::{Table, Values},
};

/// Longest header that a worker may send, in bytes.
const MAX_HEADER: u32 = 1 << 20;

/// What the front asks.
#[derive(Serialize)]
#[serde(tag = "form", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Question<'a> {
    /// A prediction for a table.
    Table {
        columns: Vec<Place<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a serde_json::value::RawValue>,
        parts: &'a [usize],
    },
    /// A prediction for a body that MLflow decodes.
    Body { content_type: &'a str, parts: [usize; 1] },
}

/// Where a column lies in the buffers.
#[derive(Serialize)]
struct Place<'a> {
    name: &'a str,
    /// NumPy's notation, or `texts`: a JSON list.
    r#type: &'static str,
    at: usize,
    bytes: usize,
}

/// What a worker answers.
#[derive(Debug, Deserialize)]
#[serde(tag = "form", rename_all = "camelCase")]
pub(crate) enum Reply {
    /// The model is loaded.
    Ready,
    /// An array of numbers, in the buffers.
    Array {
        /// NumPy's notation, such as `<f8`.
        r#type: String,
        shape: Vec<usize>,
    },
    /// JSON texts, one for each request, in the buffers.
    Json { parts: Vec<usize> },
    /// The output has not one row for each row of the input, so it cannot be divided.
    Unaligned,
    /// An exception.
    Error {
        /// Name of its class.
        r#type: String,
        message: String,
        /// Whether MLflow says that the request is wrong.
        refused: bool,
    },
}

/// Encodes a question. `parts` has the rows of each request that shares the call.
pub(crate) fn encode(input: &Input, parts: &[usize], signature: Option<&Signature>) -> serde_json::Result<Vec<u8>> {
    match input {
        Input::Table { table, params } => {
            let (places, buffers) = places(table, signature)?;
            let params = params.as_deref().map(serde_json::from_str).transpose()?;
            let question = Question::Table {
                columns: places,
                params,
                parts,
            };
            Ok(frame(&serde_json::to_vec(&question)?, &buffers))
        }
        Input::Mlflow { body, content_type } => {
            let question = Question::Body {
                content_type,
                parts: [1],
            };
            Ok(frame(&serde_json::to_vec(&question)?, body))
        }
    }
}

fn frame(header: &[u8], buffers: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(12 + header.len() + buffers.len());
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&(buffers.len() as u64).to_le_bytes());
    frame.extend_from_slice(header);
    frame.extend_from_slice(buffers);
    frame
}

/// Writes the columns into one buffer.
fn places<'a>(table: &Table, signature: Option<&'a Signature>) -> serde_json::Result<(Vec<Place<'a>>, Vec<u8>)> {
    let columns = match signature.and_then(|signature| signature.inputs.as_ref()) {
        Some(Schema::Columns(columns)) => columns.as_slice(),
        _ => &[],
    };
    let mut buffers = Vec::new();
    let mut places = Vec::with_capacity(table.columns.len());
    for (index, values) in &table.columns {
        buffers.resize(buffers.len().next_multiple_of(8), 0);
        let at = buffers.len();
        let kind = match values {
            Values::Boolean(values) => {
                buffers.extend_from_slice(values);
                "|b1"
            }
            Values::Integer(values) => {
                buffers.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                "<i4"
            }
            Values::Long(values) => {
                buffers.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                "<i8"
            }
            Values::Float(values) => {
                buffers.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                "<f4"
            }
            Values::Double(values) => {
                buffers.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                "<f8"
            }
            Values::String(values) => {
                serde_json::to_writer(&mut buffers, values)?;
                "texts"
            }
        };
        let name = columns.get(*index).and_then(|column| column.name.as_deref());
        places.push(Place {
            name: name.unwrap_or_default(),
            r#type: kind,
            at,
            bytes: buffers.len() - at,
        });
    }
    Ok((places, buffers))
}

/// Writes a frame.
pub(crate) async fn write(channel: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    channel.write_all(frame).await
}

/// Reads a frame: the header and the buffers.
///
/// # Errors
/// When the worker has ended, or sends what is no frame. Its code belongs to the model, so nothing of it is trusted.
pub(crate) async fn read(channel: &mut (impl AsyncRead + Unpin), max_buffers: u64) -> io::Result<(Reply, Vec<u8>)> {
    let mut head = [0; 12];
    channel.read_exact(&mut head).await?;
    let header = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let mut length = [0; 8];
    length.copy_from_slice(&head[4..]);
    let buffers = u64::from_le_bytes(length);
    if header > MAX_HEADER || buffers > max_buffers {
        let problem = format!("an answer of {buffers} bytes: at most {max_buffers} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut text = vec![0; header as usize];
    channel.read_exact(&mut text).await?;
    let reply = serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    // Grows as the bytes arrive: a length alone allocates nothing.
    let mut content = Vec::new();
    channel.take(buffers).read_to_end(&mut content).await?;
    if content.len() as u64 != buffers {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((reply, content))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn buffers_begin_where_numpy_can_read_them() {
        let signature = Signature::parse(&json!({"inputs": [
            {"type": "boolean", "name": "a"}, {"type": "double", "name": "b"}, {"type": "string", "name": "c"},
        ]}))
        .unwrap();
        let table = Table {
            columns: vec![
                (0, Values::Boolean(vec![1, 0, 1])),
                (1, Values::Double(vec![0.5, 1.0, 2.0])),
                (2, Values::String(vec![Some("x".into()), None, Some("ä".into())])),
            ],
            rows: 3,
        };
        let (places, buffers) = places(&table, Some(&signature)).unwrap();
        let found: Vec<_> = places.iter().map(|p| (p.name, p.r#type, p.at, p.bytes)).collect();
        assert_eq!(found, [("a", "|b1", 0, 3), ("b", "<f8", 8, 24), ("c", "texts", 32, 15)]);
        assert_eq!(&buffers[8..16], 0.5_f64.to_le_bytes());
        assert_eq!(&buffers[32..], r#"["x",null,"ä"]"#.as_bytes());
    }

    #[tokio::test]
    async fn what_a_worker_sends_is_bounded() {
        let read = |bytes: Vec<u8>| async move { read(&mut bytes.as_slice(), 100).await };
        let (reply, buffers) = read(frame(br#"{"form":"json","parts":[2]}"#, b"{}")).await.unwrap();
        assert!(matches!(reply, Reply::Json { parts } if parts == [2]));
        assert_eq!(buffers, b"{}");
        let mut long = frame(b"{}", &[0; 101]);
        assert_eq!(read(long.clone()).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        long[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(long).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let cut = frame(br#"{"form":"ready"}"#, b"abc");
        let error = read(cut[..cut.len() - 1].to_vec()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            read(frame(b"{}", b"")).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
