//! Converts a JSON value into the type of its column, as MLflow's scoring server does with pandas.
//!
//! pandas decides by whole columns and by the values in them, so some conversions depend on the other rows, on the
//! version of pandas or on NumPy's overflow. This module does not repeat those: it answers [`Cell::Unsure`], and MLflow
//! itself decides about the request.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::table::Values;

/// Reads a list to its end. A request must be JSON to its end, also where its values do not matter any more.
pub(super) fn skip<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<(), A::Error> {
    while list.next_element::<serde::de::IgnoredAny>()?.is_some() {}
    Ok(())
}

/// What became of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// It was appended to its column.
    Added,
    /// MLflow refuses it. The text says what it is.
    Refused(String),
    /// MLflow itself must decide.
    Unsure,
}

/// Reads one value into a column.
pub(crate) struct Into<'a>(pub(crate) &'a mut Values);

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = Cell;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        match self.0 {
            Values::Boolean(values) => values.push(u8::from(value)),
            Values::Double(values) => values.push(f64::from(u8::from(value))),
            Values::Float(values) => values.push(f32::from(u8::from(value))),
            Values::Long(values) => values.push(i64::from(value)),
            Values::Integer(values) => values.push(i32::from(value)),
            Values::String(_) => return Ok(Cell::Unsure),
        }
        Ok(Cell::Added)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        match self.0 {
            // As Python and NumPy do, both round to the nearest value.
            #[expect(clippy::cast_precision_loss, reason = "a double column takes integers")]
            Values::Double(values) => values.push(value as f64),
            #[expect(clippy::cast_precision_loss, reason = "a float column takes integers")]
            Values::Float(values) => values.push(value as f32),
            Values::Long(values) => values.push(value),
            Values::Integer(values) => match i32::try_from(value) {
                Ok(value) => values.push(value),
                Err(_) => return Ok(Cell::Unsure),
            },
            Values::Boolean(values) if value == 0 || value == 1 => values.push(u8::from(value == 1)),
            Values::Boolean(_) | Values::String(_) => return Ok(Cell::Unsure),
        }
        Ok(Cell::Added)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Cell, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => Ok(Cell::Unsure),
        }
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        match self.0 {
            Values::Double(values) => values.push(value),
            #[expect(clippy::cast_possible_truncation, reason = "a float column takes doubles")]
            Values::Float(values) => values.push(value as f32),
            // pandas cuts the fraction off. Beyond the range its result depends on the machine.
            #[expect(clippy::cast_possible_truncation, reason = "checked")]
            Values::Long(values) if value.abs() < 9e18 => values.push(value as i64),
            #[expect(clippy::cast_possible_truncation, reason = "checked")]
            Values::Integer(values) if value.abs() < 2e9 => values.push(value as i32),
            _ => return Ok(Cell::Unsure),
        }
        Ok(Cell::Added)
    }

    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        match self.0 {
            Values::String(values) => {
                values.push(Some(value.to_owned()));
                Ok(Cell::Added)
            }
            // Python's number grammar is wider than Rust's: `1_0` and ` 1 ` are numbers.
            _ if value.chars().any(|c| c.is_numeric()) || value.len() > 40 => Ok(Cell::Unsure),
            _ if ["inf", "nan"].iter().any(|word| value.to_lowercase().contains(word)) => Ok(Cell::Unsure),
            Values::Boolean(_) => Ok(Cell::Unsure),
            Values::Integer(_) | Values::Long(_) | Values::Float(_) | Values::Double(_) => {
                Ok(Cell::Refused(format!("the text {value:?}")))
            }
        }
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        match self.0 {
            Values::Double(values) => values.push(f64::NAN),
            Values::Float(values) => values.push(f32::NAN),
            Values::String(values) => values.push(None),
            Values::Long(_) | Values::Integer(_) => return Ok(Cell::Refused("null".to_owned())),
            Values::Boolean(_) => return Ok(Cell::Unsure),
        }
        Ok(Cell::Added)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        skip(&mut list)?;
        Ok(match self.0 {
            Values::String(_) | Values::Boolean(_) => Cell::Unsure,
            _ => Cell::Refused("a list".to_owned()),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map
            .next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?
            .is_some()
        {}
        Ok(match self.0 {
            Values::String(_) | Values::Boolean(_) => Cell::Unsure,
            _ => Cell::Refused("an object".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::DataType::{self, Boolean, Double, Float, Integer, Long, String};

    /// Adds the values to an empty column and returns what became of the last.
    fn read(kind: DataType, json: &[&str]) -> (Values, Cell) {
        let mut values = Values::empty(kind).unwrap();
        let mut last = Cell::Unsure;
        for text in json {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            last = Into(&mut values).deserialize(&mut deserializer).unwrap();
        }
        (values, last)
    }

    #[test]
    fn values_are_converted_as_pandas_does() {
        let doubles = read(Double, &["1.5", "2", "-3", "true", "9007199254740993", "0.1"]);
        assert_eq!(
            doubles,
            (
                Values::Double(vec![1.5, 2.0, -3.0, 1.0, 9_007_199_254_740_992.0, 0.1]),
                Cell::Added
            )
        );
        assert_eq!(
            read(Long, &["1.9", "-1.9", "7", "true"]).0,
            Values::Long(vec![1, -1, 7, 1])
        );
        assert_eq!(
            read(Integer, &["1.9", "2147483647"]).0,
            Values::Integer(vec![1, i32::MAX])
        );
        assert_eq!(read(Float, &["0.1"]).0, Values::Float(vec![0.1]));
        assert_eq!(read(Boolean, &["true", "0", "1"]).0, Values::Boolean(vec![1, 0, 1]));
        assert_eq!(
            read(String, &["\"a\"", "null"]).0,
            Values::String(vec![Some("a".into()), None])
        );
        let Values::Double(missing) = read(Double, &["null"]).0 else {
            panic!("a column keeps its type");
        };
        assert!(missing[0].is_nan());
    }

    #[test]
    fn what_mlflow_refuses_is_refused_and_the_rest_is_left_to_it() {
        for (kind, text, refused) in [
            (Double, "\"abc\"", Some("the text \"abc\"")),
            (Double, "[1]", Some("a list")),
            (Long, "null", Some("null")),
            (Integer, "{\"a\": [1, {}]}", Some("an object")),
            (Double, "\"1.5\"", None),
            (Double, "\" nan\"", None),
            (Long, "1e300", None),
            (Long, "18446744073709551615", None),
            (Integer, "3000000000", None),
            (Boolean, "\"false\"", None),
            (Boolean, "2", None),
            (Boolean, "null", None),
            (String, "1", None),
            (String, "[\"a\"]", None),
        ] {
            let (values, cell) = read(kind, &[text]);
            let expected = refused.map_or(Cell::Unsure, |what| Cell::Refused(what.to_owned()));
            assert_eq!(cell, expected, "{kind:?} {text}");
            assert!(values.is_empty(), "nothing is added: {kind:?} {text}");
        }
    }
    proptest::proptest! {
        /// The number nearest to the text, as Python reads it.
        #[test]
        fn every_double_is_read_exactly(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let (read, _) = read(Double, &[&format!("{value:e}")]);
            proptest::prop_assert_eq!(read, Values::Double(vec![value]));
        }
    }
}
