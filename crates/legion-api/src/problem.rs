//! Problems of resources. Every part of Legion reports them in this form.

use std::fmt;

use crate::Reason;

/// A problem and its remedy. Conditions, `legionctl validate` and answers of APIs use the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Machine-readable class of the problem.
    pub reason: Reason,
    /// The faulty field as a JSON path from the root of the object: `spec.source.git.uri`.
    pub field: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What a user can do.
    pub remedy: String,
}

impl Problem {
    /// Creates a problem with the default remedy of its reason.
    #[must_use]
    pub fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
            remedy: reason.remedy().to_owned(),
        }
    }

    /// Replaces the remedy.
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
