//! Binary tensors: row by row, little-endian. An element of `BYTES` is its length in four bytes and its content.

use serde_json::{Number, Value};

use crate::output::half;

/// Returns the values of a tensor. A NaN becomes `null`, which is a missing value.
pub(super) fn values(datatype: &str, bytes: &[u8]) -> Result<Vec<Value>, String> {
    Ok(match datatype {
        "BOOL" => bytes.iter().map(|byte| Value::from(*byte != 0)).collect(),
        "UINT8" => bytes.iter().map(|byte| Value::from(*byte)).collect(),
        "INT8" => bytes.iter().map(|byte| Value::from(byte.cast_signed())).collect(),
        "UINT16" => words(bytes, |word| Value::from(u16::from_le_bytes(word)))?,
        "INT16" => words(bytes, |word| Value::from(i16::from_le_bytes(word)))?,
        "UINT32" => words(bytes, |word| Value::from(u32::from_le_bytes(word)))?,
        "INT32" => words(bytes, |word| Value::from(i32::from_le_bytes(word)))?,
        "UINT64" => words(bytes, |word| Value::from(u64::from_le_bytes(word)))?,
        "INT64" => words(bytes, |word| Value::from(i64::from_le_bytes(word)))?,
        "FP16" => words(bytes, |word| number(half(u16::from_le_bytes(word))))?,
        "FP32" => words(bytes, |word| number(f64::from(f32::from_le_bytes(word))))?,
        "FP64" => words(bytes, |word| number(f64::from_le_bytes(word)))?,
        _ => texts(bytes)?,
    })
}

fn words<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> Value) -> Result<Vec<Value>, String> {
    let (words, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no multiple of {N}", bytes.len()));
    }
    Ok(words.iter().map(|word| value(*word)).collect())
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn texts(mut bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let index = values.len();
        let (length, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or_else(|| format!("the length of element {index} is cut"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let text = rest
            .get(..length)
            .ok_or_else(|| format!("element {index} has {length} bytes, and {} are left", rest.len()))?;
        let text = std::str::from_utf8(text).map_err(|error| format!("element {index} is not UTF-8: {error}"))?;
        values.push(Value::from(text));
        bytes = &rest[length..];
    }
    Ok(values)
}

/// Returns the bytes of a tensor of JSON scalars, or nothing if one of them is `null`.
pub(super) fn bytes(datatype: &str, values: &[Value]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for value in values {
        match datatype {
            "BOOL" => out.push(u8::from(value.as_bool()?)),
            "INT64" => out.extend(value.as_i64()?.to_le_bytes()),
            "FP64" => out.extend(value.as_f64().unwrap_or(f64::NAN).to_le_bytes()),
            _ => {
                let text = value.as_str()?;
                out.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
                out.extend(text.as_bytes());
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_is_read() {
        for (datatype, bytes, expected) in [
            ("BOOL", vec![0, 1, 2], json!([false, true, true])),
            ("UINT8", vec![255], json!([255])),
            ("INT8", vec![255], json!([-1])),
            ("UINT16", vec![1, 2], json!([513])),
            ("INT16", vec![0xff, 0xff], json!([-1])),
            ("UINT32", vec![1, 0, 0, 1], json!([16_777_217])),
            ("INT32", (-5_i32).to_le_bytes().to_vec(), json!([-5])),
            ("UINT64", u64::MAX.to_le_bytes().to_vec(), json!([u64::MAX])),
            ("INT64", i64::MIN.to_le_bytes().to_vec(), json!([i64::MIN])),
            ("FP16", vec![0x00, 0x3c, 0x00, 0xc0], json!([1.0, -2.0])),
            ("FP32", 0.5_f32.to_le_bytes().to_vec(), json!([0.5])),
            ("FP64", f64::NAN.to_le_bytes().to_vec(), json!([null])),
            ("BYTES", b"\x01\0\0\0a\0\0\0\0".to_vec(), json!(["a", ""])),
            ("FP64", vec![], json!([])),
        ] {
            assert_eq!(Value::from(values(datatype, &bytes).unwrap()), expected, "{datatype}");
        }
    }

    #[test]
    fn bytes_that_are_no_tensor_are_refused() {
        for (datatype, bytes, message) in [
            ("FP64", &[0_u8; 9][..], "9 bytes are no multiple of 8"),
            ("BYTES", b"\x01\0\0", "the length of element 0 is cut"),
            (
                "BYTES",
                b"\0\0\0\0\xff\xff\xff\xffa",
                "element 1 has 4294967295 bytes, and 1 are left",
            ),
            ("BYTES", b"\x01\0\0\0\xff", "element 0 is not UTF-8"),
        ] {
            let error = values(datatype, bytes).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        for (datatype, data) in [
            ("BOOL", json!([true, false])),
            ("INT64", json!([1, -1])),
            ("FP64", json!([0.1, null])),
            ("BYTES", json!(["a", "\u{e4}"])),
        ] {
            let bytes = bytes(datatype, data.as_array().unwrap()).unwrap();
            assert_eq!(Value::from(values(datatype, &bytes).unwrap()), data);
        }
        assert_eq!(bytes("BYTES", &[json!(null)]), None);
    }
}
