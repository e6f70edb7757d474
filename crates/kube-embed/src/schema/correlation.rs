//! Pairs the items of a list with their old values.

use serde_json::Value;

use super::node::{ListKind, Node};

/// Finds the old value of an item: by key in list-maps, by value in list-sets, by position in atomic lists. Only
/// ratcheting uses the position. CEL does not correlate items of atomic lists.
pub(super) struct Correlation<'a> {
    old: &'a [Value],
    kind: &'a ListKind,
}

impl<'a> Correlation<'a> {
    pub(super) fn new(old: Option<&'a Value>, node: &'a Node) -> Self {
        Self {
            old: old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default(),
            kind: &node.list,
        }
    }

    /// Returns the old value for ratcheting.
    pub(super) fn find(&self, index: usize, item: &Value) -> Option<&'a Value> {
        match self.kind {
            ListKind::Atomic => self.old.get(index),
            ListKind::Set => self.old.iter().find(|o| *o == item),
            ListKind::Map(_) => self.find_keyed(item),
        }
    }

    /// Returns the old value for transition rules. Only items of list-maps are correlatable.
    pub(super) fn find_keyed(&self, item: &Value) -> Option<&'a Value> {
        let ListKind::Map(keys) = self.kind else { return None };
        self.old
            .iter()
            .find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
    }
}
