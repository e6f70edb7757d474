//! Conditions: the state of a resource, for people and for tools that wait.
//!
//! Every kind has a main condition ([`SUCCEEDED`] or [`READY`]) and the conditions of kstatus (Flux, `kubectl wait`,
//! Argo CD): [`RECONCILING`] while work is in progress, [`STALLED`] after a final failure.
//! Source: Kubernetes API conventions, "Typical status properties"; `sigs.k8s.io/cli-utils/pkg/kstatus`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::Reason;

/// Main condition of a run: `True` when it succeeded, `False` when it failed, `Unknown` while it works or waits.
pub const SUCCEEDED: &str = "Succeeded";
/// `True` when the resource has reached the state of its spec.
pub const READY: &str = "Ready";
/// `True` while work is in progress.
pub const RECONCILING: &str = "Reconciling";
/// `True` when nothing more happens without a change by the user.
pub const STALLED: &str = "Stalled";

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// `"True"`
    True,
    /// `"False"`
    False,
    /// `"Unknown"`
    Unknown,
}

impl Truth {
    /// Returns the text in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Longest message of a condition, in bytes. A longer message is cut at a character boundary and ends with `…`.
pub const MESSAGE_MAX: usize = 1024;

/// Builds a condition. `now` is used only when the status differs from the status in `previous`: the API conventions
/// require that the transition time changes with the status only.
#[must_use]
pub fn condition(
    previous: &[Condition],
    type_: &str,
    truth: Truth,
    reason: Reason,
    message: &str,
    generation: i64,
    now: &Time,
) -> Condition {
    let since = previous
        .iter()
        .find(|c| c.type_ == type_ && c.status == truth.as_str())
        .map_or_else(|| now.clone(), |c| c.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message: cut(message, MESSAGE_MAX),
        observed_generation: Some(generation),
        last_transition_time: since,
    }
}

/// Cuts `text` to at most `max` bytes at a character boundary. A cut text ends with `…`.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    const MARK: char = '…';
    let end = text.floor_char_boundary(max.saturating_sub(MARK.len_utf8()));
    format!("{}{MARK}", &text[..end])
}

/// Returns the condition of a type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Returns whether the condition of a type is `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == Truth::True.as_str())
}

/// Returns whether the condition of a type is `False`.
#[must_use]
pub fn is_false(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == Truth::False.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_keeps_characters_whole() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcdef", 5), "ab…");
        assert_eq!(cut("ääää", 6), "ä…");
    }
}
