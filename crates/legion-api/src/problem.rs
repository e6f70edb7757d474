//! Problems: what is wrong with a resource, in the words that every part of Legion uses.

use std::fmt;

use crate::Reason;

/// One thing that is wrong, and what to do about it. The same text stands in conditions, in `legionctl validate` and in
/// answers of APIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The machine-readable class of the problem.
    pub reason: Reason,
    /// The field at fault as a JSON path from the root of the object: `spec.source.git.uri`.
    pub field: String,
    /// What is wrong; names the value.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem with the default remedy of its reason.
    #[must_use]
    pub fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
            remedy: reason.remedy().to_owned(),
        }
    }

    /// The same problem with a remedy of its own.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}
