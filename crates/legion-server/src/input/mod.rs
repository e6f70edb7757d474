//! From the body of a request to what a worker predicts.

mod cell;
pub mod mlflow;
mod rows;
pub(crate) mod tensor;

use bytes::Bytes;
pub(crate) use rows::Stop;

use crate::{output::Array, table::Table};

/// A decoded request.
#[derive(Clone, Debug)]
pub enum Input {
    /// A table that fits the signature. Tables can share a call.
    Table {
        /// The columns.
        table: Table,
        /// `params` of the request: JSON.
        params: Option<String>,
    },
    /// Arrays that fit the signature. They can share a call if their first dimensions count rows.
    Tensors {
        /// The arrays in the order of the signature, with the name of each that has one.
        tensors: Tensors,
        /// How many rows all of them have. `None` if an answer cannot be divided among them.
        rows: Option<usize>,
        /// `params` of the request: JSON.
        params: Option<String>,
    },
    /// A body that MLflow's own scoring code decodes, with its content type.
    Mlflow {
        /// The body of the request.
        body: Bytes,
        /// Its media type.
        content_type: String,
    },
}

/// Arrays, with the name of each that has one.
pub type Tensors = Vec<(Option<String>, Array)>;

impl Input {
    /// Returns the table, if it was decoded here.
    pub(crate) fn table(&self) -> Option<&Table> {
        match self {
            Self::Table { table, .. } => Some(table),
            Self::Tensors { .. } | Self::Mlflow { .. } => None,
        }
    }

    /// Returns the arrays, if they were decoded here.
    pub(crate) fn tensors(&self) -> Option<&Tensors> {
        match self {
            Self::Tensors { tensors, .. } => Some(tensors),
            Self::Table { .. } | Self::Mlflow { .. } => None,
        }
    }

    /// Returns the number of rows, or 1 if it is not known.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Table { table, .. } => table.rows,
            Self::Tensors { rows, .. } => rows.unwrap_or(1),
            Self::Mlflow { .. } => 1,
        }
    }

    /// Returns `params` of the request, if it was decoded here.
    pub(crate) fn params(&self) -> Option<&str> {
        match self {
            Self::Table { params, .. } | Self::Tensors { params, .. } => params.as_deref(),
            Self::Mlflow { .. } => None,
        }
    }

    /// Returns whether both may share a call.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        let fit = match (self, other) {
            (Self::Table { table, .. }, Self::Table { table: other, .. }) => table.fits(other),
            (
                Self::Tensors {
                    tensors, rows: Some(_), ..
                },
                Self::Tensors {
                    tensors: others,
                    rows: Some(_),
                    ..
                },
            ) => {
                let mut pairs = tensors.iter().zip(others);
                // Their names and types are those of the signature.
                tensors.len() == others.len() && pairs.all(|((_, a), (_, b))| a.shape[1..] == b.shape[1..])
            }
            _ => false,
        };
        fit && self.params() == other.params()
    }
}

/// Whether a text begins as a JSON object does. A list would be read as the fields of a struct in their order.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// A request that no model would take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidInput {
    /// Where, such as `dataframe_split.data[3][0]`.
    pub field: String,
    /// What is wrong there.
    pub problem: String,
}

impl InvalidInput {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}
