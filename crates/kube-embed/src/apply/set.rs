//! Sets of field paths, and their `FieldsV1` form.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::node::Node;

/// A set of paths as a trie. Elements have their `FieldsV1` form (`f:name`, `k:{"name":"a"}`, `v:"x"`, `i:0`). This
/// form is canonical: keys are sorted, so equal paths have equal text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

/// A path under construction.
pub(super) type Path = Vec<String>;

/// Returns the element of a named field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// Returns the element of a list item that is its own key.
pub(super) fn scalar(value: &Value) -> String {
    format!("v:{value}")
}

/// Returns the element of a list item with key fields. The keys must be sorted.
pub(super) fn keyed(keys: &BTreeMap<&str, &Value>) -> String {
    let inner: Vec<String> = keys.iter().map(|(k, v)| format!("{}:{v}", Value::from(*k))).collect();
    format!("k:{{{}}}", inner.join(","))
}

impl FieldSet {
    /// Decodes `FieldsV1`. Invalid elements are dropped, as in upstream's lenient decoder.
    pub(super) fn decode(fields: &Value) -> Self {
        let mut set = Self::default();
        for (key, below) in fields.as_object().into_iter().flatten() {
            if key == "." {
                set.member = true;
                continue;
            }
            let Some(element) = canonical(key) else { continue };
            let mut child = Self::decode(below);
            child.member |= below.as_object().is_some_and(Map::is_empty);
            set.children.insert(element, child);
        }
        set
    }

    /// Encodes the set as `FieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let mut out = Map::new();
        if self.member && !self.children.is_empty() {
            out.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            out.insert(element.clone(), child.encode());
        }
        Value::Object(out)
    }

    pub(super) fn insert(&mut self, path: &[String]) {
        match path.split_first() {
            None => self.member = true,
            Some((first, rest)) => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Returns whether a child of this node is in the set.
    pub(super) fn has(&self, element: &str) -> bool {
        self.children.get(element).is_some_and(|c| c.member)
    }

    /// Returns the set below an element, or `None` if it is empty.
    pub(super) fn below(&self, element: &str) -> Option<&FieldSet> {
        self.children.get(element).filter(|c| !c.children.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let empty = Self::default();
        let mut out = Self {
            member: keep(self.member, other.member),
            children: BTreeMap::new(),
        };
        for element in self.children.keys().chain(other.children.keys()) {
            if out.children.contains_key(element) {
                continue;
            }
            let child = self
                .children
                .get(element)
                .unwrap_or(&empty)
                .combine(other.children.get(element).unwrap_or(&empty), keep);
            if !child.is_empty() {
                out.children.insert(element.clone(), child);
            }
        }
        out
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    /// Keeps only paths whose first element satisfies the predicate.
    pub(super) fn retain_roots(&mut self, keep: impl Fn(&str) -> bool) {
        self.children.retain(|element, _| keep(element));
    }

    /// Adds named fields of structs that have an owned descendant. A struct has no existence of its own, but entries
    /// of maps and lists do.
    pub(super) fn with_named_fields(&self, node: Option<&Node>) -> Self {
        let mut out = Self {
            member: self.member,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            let name = element.strip_prefix("f:");
            let below = match name {
                Some(name) => node.and_then(|n| n.child(name)).map(AsRef::as_ref),
                None => node.and_then(|n| n.items.as_deref()),
            };
            let mut child = child.with_named_fields(below);
            let named = name.is_some_and(|name| node.is_some_and(|n| n.properties.contains_key(name)));
            child.member |= named && !child.children.is_empty();
            out.children.insert(element.clone(), child);
        }
        out
    }

    /// Returns all paths as messages show them: `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut String, out: &mut Vec<String>) {
        if self.member {
            out.push(prefix.clone());
        }
        for (element, child) in &self.children {
            let length = prefix.len();
            prefix.push_str(&shown(element));
            child.collect(prefix, out);
            prefix.truncate(length);
        }
    }
}

/// Returns the canonical form of an external element.
fn canonical(element: &str) -> Option<String> {
    let (kind, rest) = element.split_once(':')?;
    match kind {
        "f" => Some(element.to_owned()),
        "v" => Some(scalar(&serde_json::from_str(rest).ok()?)),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
            Some(keyed(&keys.iter().map(|(k, v)| (k.as_str(), v)).collect()))
        }
        "i" => rest.parse::<u64>().ok().map(|i| format!("i:{i}")),
        _ => None,
    }
}

fn shown(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let inner: BTreeMap<&String, &Value> = keys.iter().collect();
            let inner: Vec<String> = inner.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", inner.join(","))
        }
        _ => format!("[{}]", element.trim_start_matches("i:")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_v1_round_trip() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}},
        });
        assert_eq!(FieldSet::decode(&fields).encode(), fields);
    }

    #[test]
    fn keys_are_canonical_whatever_their_order() {
        let a = FieldSet::decode(&json!({"k:{\"b\":1, \"a\":2}": {}}));
        let b = FieldSet::decode(&json!({"k:{\"a\":2,\"b\":1}": {}}));
        assert_eq!(a, b);
        assert_eq!(a.paths(), ["[a=2,b=1]"]);
    }

    #[test]
    fn set_algebra() {
        let set = |v: Value| FieldSet::decode(&v);
        let a = set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}}));
        let b = set(json!({"f:b": {"f:c": {}}, "f:d": {}}));
        assert_eq!(a.difference(&b), set(json!({"f:a": {}, "f:b": {}})));
        assert_eq!(a.intersection(&b), set(json!({"f:b": {"f:c": {}}})));
        assert_eq!(
            a.union(&b),
            set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}, "f:d": {}}))
        );
        assert!(a.difference(&a).is_empty());
        assert_eq!(b.paths(), [".b.c", ".d"]);
    }

    #[test]
    fn nonsense_from_outside_is_dropped() {
        assert!(FieldSet::decode(&json!({"x": {}, "k:nope": {}, "v:{": {}, "i:x": {}})).is_empty());
        assert!(FieldSet::decode(&json!("text")).is_empty());
    }
}
