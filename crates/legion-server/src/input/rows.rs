//! Reads the rows of a table straight into columns, without a tree of JSON values.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    InvalidInput,
    cell::{self, Cell},
};
use crate::{
    signature::{Column, ColumnType},
    table::{Table, Values},
};

/// Why rows were not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The request is wrong.
    Invalid(InvalidInput),
    /// MLflow itself must decide.
    Unsure,
}

/// Where the values of a row go.
pub(crate) struct Layout<'a> {
    /// The columns of the signature.
    columns: &'a [Column],
    /// For each position of a row: its column in the signature. `None` for a column that the model does not take.
    positions: Vec<Option<usize>>,
    /// The columns of the signature that the request has, in the order of the signature, and their values.
    values: Vec<(usize, Values)>,
    rows: usize,
    /// Name of the field that has the rows, for errors.
    field: &'a str,
}

impl<'a> Layout<'a> {
    /// Finds the columns of a request in the signature.
    pub(crate) fn new<'n>(
        columns: &'a [Column],
        names: impl Iterator<Item = &'n str>,
        field: &'a str,
    ) -> Result<Self, Stop> {
        let positions: Vec<Option<usize>> = names
            .map(|name| columns.iter().position(|column| column.name.as_deref() == Some(name)))
            .collect();
        let mut values = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            let found = positions.iter().filter(|position| **position == Some(index)).count();
            match (found, &column.kind) {
                (0, _) if !column.required => {}
                (0, _) => {
                    let name = column.name.as_deref().unwrap_or_default();
                    let problem = format!("the model's input {name:?} is missing");
                    return Err(Stop::Invalid(InvalidInput::new(field, problem)));
                }
                (1, ColumnType::Scalar(kind)) => {
                    values.push((index, Values::empty(*kind).ok_or(Stop::Unsure)?));
                }
                // Two columns of one name, or a nested type.
                _ => return Err(Stop::Unsure),
            }
        }
        Ok(Self {
            columns,
            positions,
            values,
            rows: 0,
            field,
        })
    }

    /// Returns the table, or why it is none.
    pub(crate) fn finish(self) -> Result<Table, Stop> {
        // What an empty table means is up to the model. Without any value, pandas has no text type for a column.
        let only_missing = self.values.iter().any(|(_, values)| match values {
            Values::String(texts) => texts.iter().all(Option::is_none),
            _ => false,
        });
        if self.rows == 0 || only_missing {
            return Err(Stop::Unsure);
        }
        Ok(Table {
            columns: self.values,
            rows: self.rows,
        })
    }

    fn values_of(&mut self, index: usize) -> Option<&mut Values> {
        let found = self.values.iter_mut().find(|(of, _)| *of == index);
        found.map(|(_, values)| values)
    }

    fn refused(&self, index: usize, place: &str, what: &str) -> Stop {
        let column = &self.columns[index];
        let kind = match &column.kind {
            ColumnType::Scalar(kind) => kind.as_str(),
            ColumnType::Nested(name) => name,
        };
        let name = column.name.as_deref().unwrap_or_default();
        Stop::Invalid(InvalidInput::new(
            format!("{}{place}", self.field),
            format!("column {name:?} is of type {kind}, and the value is {what}"),
        ))
    }
}

/// Rows as lists: `[[1, 2], [3, 4]]`.
pub(crate) struct Lists<'l, 'a>(pub(crate) &'l mut Layout<'a>);

impl<'de> DeserializeSeed<'de> for Lists<'_, '_> {
    type Value = Result<(), Stop>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Lists<'_, '_> {
    type Value = Result<(), Stop>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
        while let Some(row) = rows.next_element_seed(List(&mut *self.0))? {
            if let Err(stop) = row {
                cell::skip(&mut rows)?;
                return Ok(Err(stop));
            }
        }
        Ok(Ok(()))
    }
}

struct List<'l, 'a>(&'l mut Layout<'a>);

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = Result<(), Stop>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = Result<(), Stop>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row: a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<Self::Value, A::Error> {
        let layout = self.0;
        let (number, width) = (layout.rows, layout.positions.len());
        let mut stop = None;
        let mut position = 0;
        loop {
            let index = layout
                .positions
                .get(position)
                .copied()
                .flatten()
                .filter(|_| stop.is_none());
            let values = index.and_then(|index| layout.values_of(index));
            let cell = match values {
                Some(values) => row.next_element_seed(cell::Into(values))?,
                None => row.next_element::<IgnoredAny>()?.map(|_| Cell::Added),
            };
            match cell {
                None => break,
                Some(Cell::Added) => {}
                Some(Cell::Unsure) => stop = Some(Stop::Unsure),
                Some(Cell::Refused(what)) => {
                    let place = format!("[{number}][{position}]");
                    stop = index.map(|index| layout.refused(index, &place, &what));
                }
            }
            position += 1;
        }
        layout.rows += 1;
        if let Some(stop) = stop {
            return Ok(Err(stop));
        }
        if position > width {
            let problem = format!("it has {position} values for {width} columns");
            let place = format!("{}[{number}]", layout.field);
            return Ok(Err(Stop::Invalid(InvalidInput::new(place, problem))));
        }
        // pandas fills short rows, if another row is long enough.
        Ok(if position < width { Err(Stop::Unsure) } else { Ok(()) })
    }

    // Rows that are no lists: pandas makes one column of them.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Err(Stop::Unsure))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(Stop::Unsure))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(Stop::Unsure))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(Stop::Unsure))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err(Stop::Unsure))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(Stop::Unsure))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(Stop::Unsure))
    }
}

/// Rows as objects that all have the same names: `[{"a": 1}, {"a": 2}]`.
pub(crate) struct Records<'a> {
    pub(crate) columns: &'a [Column],
    pub(crate) field: &'a str,
}

impl<'de> DeserializeSeed<'de> for Records<'_> {
    type Value = Result<Table, Stop>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = Result<Table, Stop>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<Self::Value, A::Error> {
        // Every column that the signature has, so that a record's values find their place whatever their order.
        let names = self.columns.iter().filter_map(|column| column.name.as_deref());
        let all = Layout::new(self.columns, names, self.field);
        let mut layout = match all {
            Ok(layout) => layout,
            Err(stop) => {
                cell::skip(&mut records)?;
                return Ok(Err(stop));
            }
        };
        while let Some(record) = records.next_element_seed(Record(&mut layout))? {
            if let Err(stop) = record {
                cell::skip(&mut records)?;
                return Ok(Err(stop));
            }
        }
        // An optional column that no record has is not in the table.
        let rows = layout.rows;
        layout.values.retain(|(_, values)| rows == 0 || !values.is_empty());
        if layout.values.iter().any(|(_, values)| values.len() != rows) {
            return Ok(Err(Stop::Unsure));
        }
        Ok(layout.finish())
    }
}

struct Record<'l, 'a>(&'l mut Layout<'a>);

impl<'de> DeserializeSeed<'de> for Record<'_, '_> {
    type Value = Result<(), Stop>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_, '_> {
    type Value = Result<(), Stop>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record: an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut record: A) -> Result<Self::Value, A::Error> {
        let layout = self.0;
        let number = layout.rows;
        let mut stop = None;
        while let Some(name) = record.next_key::<std::borrow::Cow<'de, str>>()? {
            let index = layout
                .columns
                .iter()
                .position(|column| column.name.as_deref() == Some(&*name))
                .filter(|_| stop.is_none());
            let values = index.and_then(|index| layout.values_of(index));
            let cell = match values {
                // The name stands twice in the record.
                Some(values) if values.len() > number => {
                    record.next_value::<IgnoredAny>()?;
                    Cell::Unsure
                }
                Some(values) => record.next_value_seed(cell::Into(values))?,
                None => {
                    record.next_value::<IgnoredAny>()?;
                    Cell::Added
                }
            };
            match cell {
                Cell::Added => {}
                Cell::Unsure => stop = Some(Stop::Unsure),
                Cell::Refused(what) => {
                    let place = format!("[{number}].{name}");
                    stop = index.map(|index| layout.refused(index, &place, &what));
                }
            }
        }
        layout.rows += 1;
        if let Some(stop) = stop {
            return Ok(Err(stop));
        }
        let missing = layout.values.iter().find(|(index, values)| {
            let is_required = layout.columns[*index].required;
            is_required && values.len() <= number
        });
        match missing {
            None => Ok(Ok(())),
            // Another record may have it: then pandas fills it.
            Some(_) if number > 0 => Ok(Err(Stop::Unsure)),
            Some((index, _)) => {
                let name = layout.columns[*index].name.as_deref().unwrap_or_default().to_owned();
                let place = format!("{}[{number}]", layout.field);
                let problem = format!("the model's input {name:?} is missing");
                Ok(Err(Stop::Invalid(InvalidInput::new(place, problem))))
            }
        }
    }
}

/// Reads JSON with a seed. The text after the value must be empty.
pub(crate) fn read<'de, S: DeserializeSeed<'de>>(json: &'de str, seed: S) -> Result<S::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}
