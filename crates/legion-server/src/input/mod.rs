//! From the body of a request to what a worker predicts.

mod cell;
pub mod mlflow;
mod rows;

use bytes::Bytes;

use crate::table::Table;

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
    /// A body that MLflow's own scoring code decodes, with its content type.
    Mlflow {
        /// The body of the request.
        body: Bytes,
        /// Its media type.
        content_type: String,
    },
}

impl Input {
    /// Returns the number of rows, if it is known.
    #[must_use]
    pub fn rows(&self) -> Option<usize> {
        match self {
            Self::Table { table, .. } => Some(table.rows),
            Self::Mlflow { .. } => None,
        }
    }
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
