//! A table in columns of one type each: what is decoded from a request and sent to a worker.

use crate::signature::DataType;

/// The values of a column, one for each row.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 0 or 1.
    Boolean(Vec<u8>),
    /// 32-bit integers.
    Integer(Vec<i32>),
    /// 64-bit integers.
    Long(Vec<i64>),
    /// 32-bit numbers. NaN stands for a missing one.
    Float(Vec<f32>),
    /// 64-bit numbers. NaN stands for a missing one.
    Double(Vec<f64>),
    /// Texts. `None` is a missing one.
    String(Vec<Option<String>>),
}

impl Values {
    /// Returns an empty column, or nothing for a type that MLflow itself converts.
    #[must_use]
    pub fn empty(kind: DataType) -> Option<Self> {
        Some(match kind {
            DataType::Boolean => Self::Boolean(Vec::new()),
            DataType::Integer => Self::Integer(Vec::new()),
            DataType::Long => Self::Long(Vec::new()),
            DataType::Float => Self::Float(Vec::new()),
            DataType::Double => Self::Double(Vec::new()),
            DataType::String => Self::String(Vec::new()),
            DataType::Binary | DataType::Datetime => return None,
        })
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Boolean(values) => values.len(),
            Self::Integer(values) => values.len(),
            Self::Long(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::String(values) => values.len(),
        }
    }

    /// Returns whether it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns NumPy's notation of the type, or nothing for texts.
    pub(crate) fn numpy_type(&self) -> Option<&'static str> {
        Some(match self {
            Self::Boolean(_) => "|b1",
            Self::Integer(_) => "<i4",
            Self::Long(_) => "<i8",
            Self::Float(_) => "<f4",
            Self::Double(_) => "<f8",
            Self::String(_) => return None,
        })
    }

    /// Appends the numbers as NumPy has them in memory, little-endian. Texts are none.
    pub(crate) fn write_numbers(&self, out: &mut Vec<u8>) {
        match self {
            Self::Boolean(values) => out.extend_from_slice(values),
            Self::Integer(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Long(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Float(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Double(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::String(_) => {}
        }
    }

    /// Returns the texts. Numbers are none.
    pub(crate) fn texts(&self) -> &[Option<String>] {
        match self {
            Self::String(values) => values,
            _ => &[],
        }
    }
}

/// A table. All columns have the same number of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Index of the column in the signature, and its values. In the order of the signature.
    pub columns: Vec<(usize, Values)>,
    /// The number of rows.
    pub rows: usize,
}

impl Table {
    /// Returns whether the other table has the same columns. Such tables can share a call.
    #[must_use]
    pub fn fits(&self, other: &Self) -> bool {
        let indexes = |table: &Self| -> Vec<usize> { table.columns.iter().map(|(index, _)| *index).collect() };
        indexes(self) == indexes(other)
    }
}
