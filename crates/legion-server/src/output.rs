//! What a worker predicted, and its JSON.

use bytes::Bytes;

/// A prediction.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// An array of numbers.
    Array(Array),
    /// JSON.
    Json(Bytes),
}

/// An array of numbers in memory as NumPy has it: row by row, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The type of a number.
    pub kind: Kind,
    /// Length of each dimension. The first counts rows.
    pub shape: Vec<usize>,
    /// The numbers.
    pub bytes: Bytes,
}

/// The type of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// Signed integer of so many bytes.
    Signed(usize),
    /// Unsigned integer of so many bytes.
    Unsigned(usize),
    /// Floating point number of so many bytes.
    Float(usize),
}

impl Kind {
    /// Parses NumPy's notation, such as `<f8` or `|b1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(['<', '|', '='])?;
        let size: usize = text.get(1..)?.parse().ok()?;
        Some(match (text.get(..1)?, size) {
            ("b", 1) => Self::Bool,
            ("i", 1 | 2 | 4 | 8) => Self::Signed(size),
            ("u", 1 | 2 | 4 | 8) => Self::Unsigned(size),
            ("f", 2 | 4 | 8) => Self::Float(size),
            _ => return None,
        })
    }

    /// Returns NumPy's notation.
    #[must_use]
    pub fn numpy_type(self) -> String {
        match self {
            Self::Bool => "|b1".to_owned(),
            Self::Signed(size) => format!("<i{size}"),
            Self::Unsigned(size) => format!("<u{size}"),
            Self::Float(size) => format!("<f{size}"),
        }
    }

    /// Returns the size of a number in bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Signed(size) | Self::Unsigned(size) | Self::Float(size) => size,
        }
    }
}

impl Array {
    /// Returns an array, if the bytes have the length that shape and type give.
    #[must_use]
    pub fn new(kind: Kind, shape: Vec<usize>, bytes: Bytes) -> Option<Self> {
        let numbers = shape
            .iter()
            .try_fold(1_usize, |product, length| product.checked_mul(*length))?;
        (numbers.checked_mul(kind.size())? == bytes.len()).then_some(Self { kind, shape, bytes })
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or_default()
    }

    /// Divides the rows. Returns nothing if there are not exactly so many.
    #[must_use]
    pub fn split(&self, parts: &[usize]) -> Option<Vec<Self>> {
        if parts.iter().sum::<usize>() != self.rows() {
            return None;
        }
        let row = self.shape.iter().skip(1).product::<usize>() * self.kind.size();
        let mut at = 0;
        let split = parts.iter().map(|rows| {
            let bytes = self.bytes.slice(at..at + rows * row);
            at += rows * row;
            let mut shape = self.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = *rows;
            }
            Self {
                kind: self.kind,
                shape,
                bytes,
            }
        });
        Some(split.collect())
    }

    /// Appends the array as nested JSON lists. NaN and the infinities become `null`.
    pub fn json(&self, out: &mut Vec<u8>) {
        self.dimension(&self.shape, &self.bytes, out);
    }

    fn dimension(&self, shape: &[usize], bytes: &[u8], out: &mut Vec<u8>) {
        let Some((length, rest)) = shape.split_first() else {
            self.number(bytes, out);
            return;
        };
        out.push(b'[');
        let size = bytes.len().checked_div(*length).unwrap_or_default();
        for index in 0..*length {
            if index > 0 {
                out.push(b',');
            }
            self.dimension(rest, &bytes[index * size..(index + 1) * size], out);
        }
        out.push(b']');
    }

    fn number(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(word);
        // Writing into a vector cannot fail.
        let _ = match self.kind {
            Kind::Bool => serde_json::to_writer(out, &(unsigned != 0)),
            Kind::Unsigned(_) => serde_json::to_writer(out, &unsigned),
            Kind::Signed(size) => {
                let shift = 64 - 8 * size;
                serde_json::to_writer(out, &((unsigned << shift).cast_signed() >> shift))
            }
            Kind::Float(size) => {
                #[expect(clippy::cast_possible_truncation, reason = "a number of this size has no more bits")]
                let value = match size {
                    2 => half(unsigned as u16),
                    4 => f64::from(f32::from_bits(unsigned as u32)),
                    _ => f64::from_bits(unsigned),
                };
                // Infinite numbers become null, too.
                serde_json::to_writer(out, &value)
            }
        };
    }
}

/// Converts a 16-bit floating point number (IEEE 754 binary16).
pub(crate) fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(kind: &str, shape: &[usize], bytes: Vec<u8>) -> Array {
        Array::new(Kind::parse(kind).unwrap(), shape.to_vec(), bytes.into()).unwrap()
    }

    fn json(array: &Array) -> String {
        let mut out = Vec::new();
        array.json(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn bytes<const N: usize>(numbers: &[[u8; N]]) -> Vec<u8> {
        numbers.concat()
    }

    #[test]
    fn every_type_is_written_as_json() {
        let doubles = bytes(&[0.1_f64, 1.0, f64::NAN, f64::NEG_INFINITY].map(f64::to_le_bytes));
        assert_eq!(json(&array("<f8", &[4], doubles.clone())), "[0.1,1.0,null,null]");
        assert_eq!(json(&array("<f8", &[2, 2], doubles.clone())), "[[0.1,1.0],[null,null]]");
        assert_eq!(json(&array("<f8", &[4, 1], doubles)), "[[0.1],[1.0],[null],[null]]");
        assert_eq!(json(&array("<f4", &[1], 0.5_f32.to_le_bytes().to_vec())), "[0.5]");
        assert_eq!(
            json(&array(
                "<f2",
                &[3],
                bytes(&[0x3c00_u16, 0xc000, 0x0001].map(u16::to_le_bytes))
            )),
            "[1.0,-2.0,5.960464477539063e-8]"
        );
        assert_eq!(
            json(&array("<i8", &[2], bytes(&[-1_i64, i64::MAX].map(i64::to_le_bytes)))),
            "[-1,9223372036854775807]"
        );
        assert_eq!(json(&array("|i1", &[2], vec![0xff, 0x7f])), "[-1,127]");
        assert_eq!(json(&array("|u1", &[1], vec![0xff])), "[255]");
        assert_eq!(json(&array("|b1", &[2], vec![0, 1])), "[false,true]");
        assert_eq!(json(&array("<f8", &[0], Vec::new())), "[]");
        assert_eq!(json(&array("<f8", &[2, 0], Vec::new())), "[[],[]]");
    }

    #[test]
    fn rows_are_divided_and_lengths_are_checked() {
        let all = array("|u1", &[3, 2], vec![1, 2, 3, 4, 5, 6]);
        let parts = all.split(&[1, 2]).unwrap();
        assert_eq!(json(&parts[0]), "[[1,2]]");
        assert_eq!(json(&parts[1]), "[[3,4],[5,6]]");
        assert_eq!(all.split(&[1, 1]), None);
        assert_eq!(Array::new(Kind::Float(8), vec![2], Bytes::from_static(b"1234")), None);
        assert_eq!(Array::new(Kind::Float(8), vec![usize::MAX, 2], Bytes::new()), None);
        for wrong in ["f8", "<f3", "<c16", "<", "", ">f8", "|S1"] {
            assert_eq!(Kind::parse(wrong), None, "{wrong}");
        }
    }
}
