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
    /// Returns the table, if it was decoded here.
    pub(crate) fn table(&self) -> Option<&Table> {
        match self {
            Self::Table { table, .. } => Some(table),
            Self::Mlflow { .. } => None,
        }
    }

    /// Returns `params` of the request, if it was decoded here.
    pub(crate) fn params(&self) -> Option<&str> {
        match self {
            Self::Table { params, .. } => params.as_deref(),
            Self::Mlflow { .. } => None,
        }
    }

    /// Returns whether both may share a call.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        match (self.table(), other.table()) {
            (Some(table), Some(other_table)) => table.fits(other_table) && self.params() == other.params(),
            _ => false,
        }
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
