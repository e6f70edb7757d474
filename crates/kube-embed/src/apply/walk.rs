//! Walks over typed values: their fields, the difference of two values, their merge, and the removal of fields.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::set::{FieldSet, Path, field, keyed, scalar};
use crate::schema::node::{ListKind, Node};

/// How a value is divided into fields.
enum Shape<'a> {
    /// As a single value: scalars, atomic lists and maps.
    Leaf,
    Map(&'a Map<String, Value>),
    List(&'a [Value]),
}

fn shape<'a>(value: &'a Value, node: Option<&Node>) -> Shape<'a> {
    match value {
        Value::Object(map) if !node.is_some_and(|n| n.atomic_map) => Shape::Map(map),
        Value::Array(list) if node.is_some_and(|n| n.list != ListKind::Atomic) => Shape::List(list),
        _ => Shape::Leaf,
    }
}

fn child<'a>(node: Option<&'a Node>, name: &str) -> Option<&'a Node> {
    node.and_then(|n| n.child(name)).map(AsRef::as_ref)
}

fn items(node: Option<&Node>) -> Option<&Node> {
    node.and_then(|n| n.items.as_deref())
}

/// Returns the path element of a list item. The error names the missing key.
fn element(item: &Value, node: Option<&Node>) -> Result<String, String> {
    let ListKind::Map(keys) = node.map_or(&ListKind::Atomic, |n| &n.list) else {
        if item.is_object() || item.is_array() || item.is_null() {
            return Err("items of a set must be scalars".into());
        }
        return Ok(scalar(item));
    };
    let mut found: BTreeMap<&str, &Value> = BTreeMap::new();
    for key in keys {
        // A key with a default may be missing.
        let value = item
            .get(key)
            .or_else(|| child(items(node), key).and_then(|n| n.default.as_ref()));
        if let Some(value) = value.filter(|v| !v.is_null()) {
            found.insert(key, value);
        }
    }
    if found.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            quoted.join(" ")
        ));
    }
    Ok(keyed(&found))
}

/// Returns the fields that a value sets.
pub(super) fn fields_of(value: &Value, node: Option<&Node>) -> FieldSet {
    let mut set = FieldSet::default();
    collect(value, node, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, node: Option<&Node>, path: &mut Path, set: &mut FieldSet) {
    match shape(value, node) {
        Shape::Leaf => set.insert(path),
        Shape::Map(map) => {
            for (name, below) in map {
                path.push(field(name));
                collect(below, child(node, name), path, set);
                let empty = below.is_null() || below.as_object().is_some_and(Map::is_empty);
                let named = node.is_some_and(|n| n.properties.contains_key(name));
                if empty || !named {
                    set.insert(path);
                }
                path.pop();
            }
        }
        // Upstream forgets an empty list here and then removes the surrounding struct as empty. Here it is kept for
        // its owner as a leaf, like an empty map.
        Shape::List([]) => set.insert(path),
        Shape::List(list) => {
            for item in list {
                let Ok(element) = element(item, node) else { continue };
                path.push(element);
                collect(item, items(node), path, set);
                set.insert(path);
                path.pop();
            }
        }
    }
}

/// The difference between two values.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Fields that `new` sets and that are absent or different in `old`.
    pub(super) fn changed(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

pub(super) fn compare(old: &Value, new: &Value, node: Option<&Node>) -> Comparison {
    let mut out = Comparison::default();
    diff(Some(old), Some(new), node, &mut Vec::new(), &mut out);
    out
}

fn diff(old: Option<&Value>, new: Option<&Value>, node: Option<&Node>, path: &mut Path, out: &mut Comparison) {
    let leaf = Shape::Leaf;
    let (left, right) = (
        old.map_or(leaf, |v| shape(v, node)),
        new.map_or(Shape::Leaf, |v| shape(v, node)),
    );
    match (old, new, left, right) {
        (_, _, Shape::Map(left), Shape::Map(right)) if !(left.is_empty() && right.is_empty()) => {
            diff_maps(Some(left), Some(right), node, path, out);
        }
        (_, None, Shape::Map(left), _) if !left.is_empty() => {
            diff_maps(Some(left), None, node, path, out);
            out.removed.insert(path);
        }
        (None, _, _, Shape::Map(right)) if !right.is_empty() => {
            diff_maps(None, Some(right), node, path, out);
            out.added.insert(path);
        }
        (_, _, Shape::List(left), Shape::List(right)) if !(left.is_empty() && right.is_empty()) => {
            diff_lists(left, right, node, path, out);
        }
        (_, None, Shape::List(left), _) if !left.is_empty() => {
            diff_lists(left, &[], node, path, out);
            out.removed.insert(path);
        }
        (None, _, _, Shape::List(right)) if !right.is_empty() => {
            diff_lists(&[], right, node, path, out);
            out.added.insert(path);
        }
        (None, Some(_), ..) => out.added.insert(path),
        (Some(_), None, ..) => out.removed.insert(path),
        (Some(old), Some(new), ..) if old != new => out.modified.insert(path),
        _ => {}
    }
}

fn diff_maps(
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
    node: Option<&Node>,
    path: &mut Path,
    out: &mut Comparison,
) {
    for (name, old) in left.into_iter().flatten() {
        path.push(field(name));
        diff(Some(old), right.and_then(|r| r.get(name)), child(node, name), path, out);
        path.pop();
    }
    for (name, new) in right.into_iter().flatten() {
        if left.is_none_or(|l| !l.contains_key(name)) {
            path.push(field(name));
            diff(None, Some(new), child(node, name), path, out);
            path.pop();
        }
    }
}

fn diff_lists(left: &[Value], right: &[Value], node: Option<&Node>, path: &mut Path, out: &mut Comparison) {
    let index = |list: &'_ [Value]| -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        for (i, item) in list.iter().enumerate() {
            if let Ok(element) = element(item, node) {
                seen.entry(element).or_insert(i);
            }
        }
        seen
    };
    let (before, after) = (index(left), index(right));
    for (element, i) in &before {
        path.push(element.clone());
        diff(
            Some(&left[*i]),
            after.get(element).map(|j| &right[*j]),
            items(node),
            path,
            out,
        );
        path.pop();
    }
    for (element, j) in after.iter().filter(|(e, _)| !before.contains_key(*e)) {
        path.push(element.clone());
        diff(None, Some(&right[*j]), items(node), path, out);
        path.pop();
    }
}

/// Merges an applied value into a live one. The error names the malformed list of the applied value.
pub(super) fn merge(live: &Value, applied: &Value, node: Option<&Node>, at: &str) -> Result<Value, String> {
    match (shape(live, node), shape(applied, node)) {
        (Shape::Map(live), Shape::Map(applied)) => {
            let mut out = live.clone();
            for (name, value) in applied {
                let at = format!("{at}.{name}");
                let merged = match live.get(name) {
                    Some(before) => merge(before, value, child(node, name), &at)?,
                    None => fresh(value, child(node, name), &at)?,
                };
                out.insert(name.clone(), merged);
            }
            Ok(Value::Object(out))
        }
        (Shape::List(live), Shape::List(applied)) => merge_lists(live, applied, node, at).map(Value::Array),
        _ => fresh(applied, node, at),
    }
}

/// A value into which nothing was merged must still be well-formed.
fn fresh(value: &Value, node: Option<&Node>, at: &str) -> Result<Value, String> {
    well_formed(value, node, at).map(|()| value.clone())
}

/// Checks that the items of every keyed list have distinct keys.
pub(crate) fn well_formed(value: &Value, node: Option<&Node>, at: &str) -> Result<(), String> {
    match shape(value, node) {
        Shape::Leaf => {}
        Shape::Map(map) => {
            for (name, below) in map {
                well_formed(below, child(node, name), &format!("{at}.{name}"))?;
            }
        }
        Shape::List(list) => {
            for (element, item) in keyed_items(list, node, at)? {
                well_formed(item, items(node), &format!("{at}[{element}]"))?;
            }
        }
    }
    Ok(())
}

fn keyed_items<'a>(list: &'a [Value], node: Option<&Node>, at: &str) -> Result<Vec<(String, &'a Value)>, String> {
    let mut out: Vec<(String, &Value)> = Vec::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        let element = element(item, node).map_err(|e| format!("{at}: element {i}: {e}"))?;
        if out.iter().any(|(seen, _)| *seen == element) {
            let shown = FieldSet::decode(&Value::from_iter([(element, Value::Object(Map::new()))]));
            return Err(format!("{at}: duplicate entries for key {}", shown.paths().concat()));
        }
        out.push((element, item));
    }
    Ok(out)
}

/// Applied items keep the applied order. Items that are only in the live list keep their position relative to the
/// items in both lists.
fn merge_lists(live: &[Value], applied: &[Value], node: Option<&Node>, at: &str) -> Result<Vec<Value>, String> {
    let right = keyed_items(applied, node, at)?;
    // Live items without a key (from before a list became keyed) match no item and are kept.
    let left: Vec<(Option<String>, &Value)> = live.iter().map(|item| (element(item, node).ok(), item)).collect();
    let is_applied: HashSet<&str> = right.iter().map(|(element, _)| element.as_str()).collect();
    let mut live_items: HashMap<&str, &Value> = HashMap::new();
    for (element, item) in &left {
        if let Some(element) = element {
            live_items.entry(element).or_insert(item);
        }
    }
    let combine = |element: &str, item: &Value| {
        let at = format!("{at}[{element}]");
        match live_items.get(element) {
            Some(before) => merge(before, item, items(node), &at),
            None => fresh(item, items(node), &at),
        }
    };
    let mut both = right
        .iter()
        .map(|(element, _)| element.as_str())
        .filter(|e| live_items.contains_key(e));
    let mut next_both = both.next();
    let mut done: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(live.len() + applied.len());
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        let here = left.get(l).map(|(element, item)| (element.as_deref(), *item));
        let applied_here = here.and_then(|(element, _)| element).filter(|e| is_applied.contains(e));
        if let (Some(element), Some((wanted, item))) = (applied_here, right.get(r)) {
            if element == wanted {
                out.push(combine(wanted, item)?);
                done.insert(wanted);
                (l, r) = (l + 1, r + 1);
                next_both = both.next();
                continue;
            }
            if next_both.is_some_and(|next| next != element) {
                // The item is in both lists, but its position is later (or it was already added).
                l += 1;
                continue;
            }
        }
        match (here, applied_here) {
            (Some((_, item)), None) => {
                out.push(item.clone());
                l += 1;
                continue;
            }
            (Some(_), Some(element)) if done.contains(element) => l += 1,
            _ => {}
        }
        if let Some((element, item)) = right.get(r) {
            out.push(combine(element, item)?);
            done.insert(element);
            r += 1;
            if next_both == Some(element.as_str()) {
                next_both = both.next();
            }
        }
    }
    Ok(out)
}

/// Returns the value without the fields of a set. A container that loses its last entry stays as an empty container,
/// unless it is in the set itself. Another manager then keeps it.
pub(super) fn without(value: &Value, gone: &FieldSet, node: Option<&Node>) -> Value {
    match shape(value, node) {
        Shape::Leaf => value.clone(),
        Shape::Map(map) => {
            let kept = map.iter().filter_map(|(name, below)| {
                let element = field(name);
                if gone.has(&element) {
                    return None;
                }
                let below = match gone.below(&element) {
                    Some(gone) => without(below, gone, child(node, name)),
                    None => below.clone(),
                };
                Some((name.clone(), below))
            });
            Value::Object(kept.collect())
        }
        Shape::List(list) => {
            let kept = list.iter().filter_map(|item| {
                let Ok(element) = element(item, node) else {
                    return Some(item.clone());
                };
                if gone.has(&element) {
                    return None;
                }
                Some(match gone.below(&element) {
                    Some(gone) => without(item, gone, items(node)),
                    None => item.clone(),
                })
            });
            Value::Array(kept.collect())
        }
    }
}
