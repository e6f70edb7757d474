//! The frames between the front and a worker.
//!
//! A frame: the length of a JSON header (4 bytes, little-endian), the length of the buffers (8 bytes), the header, the
//! buffers. Each buffer begins at a multiple of 8 bytes, as NumPy needs.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    input::{Input, Tensors},
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
        /// The rows of each request.
        parts: Vec<usize>,
    },
    /// A prediction for arrays.
    Tensors {
        tensors: Vec<ArrayPlace<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a serde_json::value::RawValue>,
        parts: Vec<usize>,
    },
    /// Whether an array gives the same predictions as this table.
    Proof { columns: Vec<Place<'a>> },
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

/// Where an array lies in the buffers.
#[derive(Serialize)]
struct ArrayPlace<'a> {
    /// `None` for the only array of a model.
    name: Option<&'a str>,
    r#type: String,
    shape: Vec<usize>,
    at: usize,
    bytes: usize,
}

/// What a worker answers.
#[derive(Debug, Deserialize)]
#[serde(tag = "form", rename_all = "camelCase")]
pub(crate) enum Reply {
    /// The model is loaded.
    Ready,
    /// Whether arrays are used from now on. Empty if they are, otherwise why not.
    Proof { why: String },
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

/// Encodes a question for requests that share a call: tables with the same columns and `params`, or one request.
pub(crate) fn encode(inputs: &[&Input], signature: Option<&Signature>) -> serde_json::Result<Vec<u8>> {
    match inputs {
        [Input::Mlflow { body, content_type }, ..] => {
            let question = Question::Body {
                content_type,
                parts: [1],
            };
            Ok(frame(&serde_json::to_vec(&question)?, body))
        }
        [Input::Tensors { tensors, params, .. }, ..] => {
            let all: Vec<&Tensors> = inputs.iter().filter_map(|input| input.tensors()).collect();
            let (places, buffers) = array_places(tensors, &all);
            let question = Question::Tensors {
                tensors: places,
                params: params.as_deref().map(serde_json::from_str).transpose()?,
                parts: inputs.iter().map(|input| input.rows()).collect(),
            };
            Ok(frame(&serde_json::to_vec(&question)?, &buffers))
        }
        _ => {
            let tables: Vec<&Table> = inputs.iter().filter_map(|input| input.table()).collect();
            let (places, buffers) = places(&tables, signature)?;
            let params = inputs.first().and_then(|input| input.params());
            let question = Question::Table {
                columns: places,
                params: params.map(serde_json::from_str).transpose()?,
                parts: tables.iter().map(|table| table.rows).collect(),
            };
            Ok(frame(&serde_json::to_vec(&question)?, &buffers))
        }
    }
}

/// Encodes the question whether an array gives the same predictions as this table.
pub(crate) fn proof(table: &Table, signature: Option<&Signature>) -> serde_json::Result<Vec<u8>> {
    let (columns, buffers) = places(&[table], signature)?;
    Ok(frame(&serde_json::to_vec(&Question::Proof { columns })?, &buffers))
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

/// Writes each array of all requests into one buffer, one request below the other.
fn array_places<'a>(first: &'a Tensors, all: &[&Tensors]) -> (Vec<ArrayPlace<'a>>, Vec<u8>) {
    let mut buffers = Vec::new();
    let places = first.iter().enumerate().map(|(index, (name, array))| {
        buffers.resize(buffers.len().next_multiple_of(8), 0);
        let at = buffers.len();
        let mut shape = array.shape.clone();
        if let [rows, ..] = shape.as_mut_slice() {
            *rows = all.iter().map(|tensors| tensors[index].1.rows()).sum();
        }
        for tensors in all {
            buffers.extend_from_slice(&tensors[index].1.bytes);
        }
        ArrayPlace {
            name: name.as_deref(),
            r#type: array.kind.numpy_type(),
            shape,
            at,
            bytes: buffers.len() - at,
        }
    });
    let places = places.collect();
    (places, buffers)
}

/// Writes each column of all tables into one buffer.
fn places<'a>(tables: &[&Table], signature: Option<&'a Signature>) -> serde_json::Result<(Vec<Place<'a>>, Vec<u8>)> {
    let columns = match signature.and_then(|signature| signature.inputs.as_ref()) {
        Some(Schema::Columns(columns)) => columns.as_slice(),
        _ => &[],
    };
    let Some(first) = tables.first() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let mut buffers = Vec::new();
    let mut places = Vec::with_capacity(first.columns.len());
    for (position, (index, values)) in first.columns.iter().enumerate() {
        buffers.resize(buffers.len().next_multiple_of(8), 0);
        let at = buffers.len();
        let parts = tables.iter().map(|table| &table.columns[position].1);
        let kind = match values.numpy_type() {
            Some(kind) => {
                parts.for_each(|part| part.write_numbers(&mut buffers));
                kind
            }
            None => {
                let texts: Vec<&Option<String>> = parts.flat_map(Values::texts).collect();
                serde_json::to_writer(&mut buffers, &texts)?;
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
        let (places, buffers) = places(&[&table], Some(&signature)).unwrap();
        let found: Vec<_> = places.iter().map(|p| (p.name, p.r#type, p.at, p.bytes)).collect();
        assert_eq!(found, [("a", "|b1", 0, 3), ("b", "<f8", 8, 24), ("c", "texts", 32, 15)]);
        assert_eq!(&buffers[8..16], 0.5_f64.to_le_bytes());
        assert_eq!(&buffers[32..], r#"["x",null,"ä"]"#.as_bytes());
    }

    #[test]
    fn requests_that_share_a_call_are_one_table() {
        let signature =
            Signature::parse(&json!({"inputs": [{"type": "long", "name": "n"}, {"type": "string", "name": "t"}]}))
                .unwrap();
        let of = |numbers: &[i64], texts: &[&str]| Table {
            columns: vec![
                (0, Values::Long(numbers.to_vec())),
                (
                    1,
                    Values::String(texts.iter().map(|text| Some((*text).to_owned())).collect()),
                ),
            ],
            rows: numbers.len(),
        };
        let (first, second) = (of(&[1], &["a"]), of(&[2, 3], &["b", "c"]));
        let (places, buffers) = places(&[&first, &second], Some(&signature)).unwrap();
        let found: Vec<_> = places.iter().map(|p| (p.name, p.at, p.bytes)).collect();
        assert_eq!(found, [("n", 0, 24), ("t", 24, 13)]);
        assert_eq!(buffers[..24], [1_i64, 2, 3].map(i64::to_le_bytes).concat());
        assert_eq!(&buffers[24..], br#"["a","b","c"]"#);
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
