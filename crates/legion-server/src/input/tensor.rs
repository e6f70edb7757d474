//! Reads nested lists of numbers straight into arrays, as `numpy.array(data, dtype=...)` does.
//!
//! Texts, lists of different lengths, types that JSON has no words for, and numbers out of range are left to MLflow
//! itself.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    InvalidInput,
    cell::skip,
    rows::{self, Stop},
};
use crate::{
    output::{Array, Kind},
    signature::Tensor,
};

/// Decodes the value of a tensor. `field` is where it stands in the request.
pub(crate) fn decode(json: &str, spec: &Tensor, field: &str) -> Result<Array, Stop> {
    let kind = kind(&spec.dtype).ok_or(Stop::Unsure)?;
    let mut numbers = Numbers {
        kind,
        bytes: Vec::new(),
        shape: Vec::new(),
    };
    let is_clear = rows::read(json, Dimension(&mut numbers, 0)).map_err(|_| Stop::Unsure)?;
    // Without any number, the rank of the array is not known.
    if !is_clear || numbers.shape.is_empty() || numbers.shape.contains(&0) {
        return Err(Stop::Unsure);
    }
    let array = Array::new(kind, numbers.shape, numbers.bytes.into()).ok_or(Stop::Unsure)?;
    check_shape(&array.shape, spec, field)?;
    Ok(array)
}

/// Returns the type that NumPy has by this name, if numbers of JSON can be read as such.
fn kind(dtype: &str) -> Option<Kind> {
    Some(match dtype {
        "float64" => Kind::Float(8),
        "float32" => Kind::Float(4),
        "int64" => Kind::Signed(8),
        "int32" => Kind::Signed(4),
        _ => return None,
    })
}

/// Whether an array has the type of a tensor.
pub(crate) fn has_type(array: &Array, spec: &Tensor) -> bool {
    kind(&spec.dtype) == Some(array.kind)
}

/// Refuses an array whose shape does not fit.
pub(crate) fn check_shape(shape: &[usize], spec: &Tensor, field: &str) -> Result<(), Stop> {
    let fits = |(length, expected): (&usize, &i64)| *expected == -1 || i64::try_from(*length) == Ok(*expected);
    if shape.len() == spec.shape.len() && shape.iter().zip(&spec.shape).all(fits) {
        return Ok(());
    }
    let problem = format!("its shape is {shape:?}, and the model takes {:?}", spec.shape);
    Err(Stop::Invalid(InvalidInput::new(field, problem)))
}

struct Numbers {
    kind: Kind,
    bytes: Vec<u8>,
    /// The length of each dimension, from the first list of each depth.
    shape: Vec<usize>,
}

impl Numbers {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float array takes doubles, as in NumPy"
    )]
    fn float(&mut self, value: f64) -> bool {
        match self.kind {
            Kind::Float(8) => self.bytes.extend(value.to_le_bytes()),
            Kind::Float(4) => self.bytes.extend((value as f32).to_le_bytes()),
            // NumPy cuts the fraction off, or refuses it: by version.
            _ => return false,
        }
        true
    }

    fn integer(&mut self, value: i64) -> bool {
        match self.kind {
            Kind::Signed(8) => self.bytes.extend(value.to_le_bytes()),
            Kind::Signed(4) => match i32::try_from(value) {
                Ok(value) => self.bytes.extend(value.to_le_bytes()),
                Err(_) => return false,
            },
            #[expect(clippy::cast_precision_loss, reason = "Python rounds to the nearest, too")]
            _ => return self.float(value as f64),
        }
        true
    }
}

/// A list, or a number, at a depth. Its value says whether NumPy would read it in the same way.
struct Dimension<'a>(&'a mut Numbers, usize);

impl Dimension<'_> {
    /// Whether a number may stand at this depth.
    fn is_leaf(&self) -> bool {
        self.1 == self.0.shape.len()
    }
}

impl<'de> DeserializeSeed<'de> for Dimension<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Dimension<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let (numbers, depth) = (self.0, self.1);
        let is_first = depth == numbers.shape.len();
        if is_first && !numbers.bytes.is_empty() {
            // A number stood where this list stands.
            skip(&mut list)?;
            return Ok(false);
        }
        if is_first {
            numbers.shape.push(0);
        }
        let mut length = 0;
        while let Some(is_clear) = list.next_element_seed(Dimension(numbers, depth + 1))? {
            length += 1;
            if !is_clear {
                skip(&mut list)?;
                return Ok(false);
            }
        }
        if is_first {
            numbers.shape[depth] = length;
        }
        Ok(numbers.shape[depth] == length)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(self.is_leaf() && self.0.integer(i64::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.is_leaf() && self.0.integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.is_leaf() && i64::try_from(value).is_ok_and(|value| self.0.integer(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.is_leaf() && self.0.float(value))
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(self.is_leaf() && self.0.float(f64::NAN))
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        use serde::de::IgnoredAny;

        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: &str, shape: &[i64]) -> Tensor {
        Tensor {
            name: None,
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
        }
    }

    fn json(array: &Array) -> String {
        let mut out = Vec::new();
        array.json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nested_lists_become_arrays_of_the_type() {
        for (dtype, shape, text, expected) in [
            (
                "float64",
                &[-1, 2][..],
                "[[0.1, 2], [true, null]]",
                "[[0.1,2.0],[1.0,null]]",
            ),
            ("float32", &[-1], "[0.5, 1]", "[0.5,1.0]"),
            (
                "int64",
                &[2, 1, 1],
                "[[[1]], [[-9007199254740993]]]",
                "[[[1]],[[-9007199254740993]]]",
            ),
            ("int32", &[-1], "[2147483647, false]", "[2147483647,0]"),
        ] {
            let array = decode(text, &spec(dtype, shape), "inputs").unwrap();
            assert_eq!(json(&array), expected, "{dtype} {text}");
            assert!(has_type(&array, &spec(dtype, shape)));
        }
    }

    #[test]
    fn a_shape_that_does_not_fit_is_refused() {
        for (shape, text, problem) in [
            (
                &[-1, 3][..],
                "[[1, 2]]",
                "its shape is [1, 2], and the model takes [-1, 3]",
            ),
            (&[-1], "[[1]]", "its shape is [1, 1], and the model takes [-1]"),
            (&[-1, 1], "[1]", "its shape is [1], and the model takes [-1, 1]"),
        ] {
            let expected = Stop::Invalid(InvalidInput::new("inputs", problem));
            assert_eq!(decode(text, &spec("float64", shape), "inputs"), Err(expected));
        }
    }

    #[test]
    fn what_numpy_may_read_in_another_way_is_left_to_it() {
        for (dtype, text) in [
            ("float64", "[[1, 2], [3]]"),
            ("float64", "[[1], 2]"),
            ("float64", "[1, [2]]"),
            ("float64", "[[1, [2]]]"),
            ("float64", "[\"1.5\"]"),
            ("float64", "[{}]"),
            ("float64", "[]"),
            ("float64", "[[], []]"),
            ("float64", "1"),
            ("float64", "{\"a\": 1}"),
            ("int64", "[1.5]"),
            ("int64", "[null]"),
            ("int64", "[9223372036854775808]"),
            ("int32", "[2147483648]"),
            ("uint8", "[1]"),
            ("object", "[1]"),
        ] {
            let result = decode(text, &spec(dtype, &[-1]), "inputs");
            assert_eq!(result, Err(Stop::Unsure), "{dtype} {text}");
        }
    }
}
