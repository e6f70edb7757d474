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

    /// Appends the rows of a column of the same type. Returns whether the types are the same.
    pub fn append(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Boolean(values), Self::Boolean(more)) => values.extend_from_slice(more),
            (Self::Integer(values), Self::Integer(more)) => values.extend_from_slice(more),
            (Self::Long(values), Self::Long(more)) => values.extend_from_slice(more),
            (Self::Float(values), Self::Float(more)) => values.extend_from_slice(more),
            (Self::Double(values), Self::Double(more)) => values.extend_from_slice(more),
            (Self::String(values), Self::String(more)) => values.extend_from_slice(more),
            _ => return false,
        }
        true
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

    /// Appends the rows of a table with the same columns.
    pub fn append(&mut self, other: &Self) {
        for ((_, values), (_, more)) in self.columns.iter_mut().zip(&other.columns) {
            let same = values.append(more);
            debug_assert!(same, "columns of one index have one type");
        }
        self.rows += other.rows;
    }
}
