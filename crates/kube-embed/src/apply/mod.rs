//! Server-side apply and managedFields, with the semantics of structured-merge-diff.
//!
//! A write to the main endpoint of a kind with a status subresource does not set `status`. A write to that subresource
//! sets nothing else. An apply ignores such fields. The caller of [`track_update`] must set them back before.

mod managed;
mod set;
#[cfg(test)]
mod tests;
mod typed;
mod walk;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::managed::Entry;
pub(crate) use self::managed::Operation;
use self::set::FieldSet;
pub(crate) use self::typed::mistyped;
pub(crate) use crate::schema::TypeInfo;
use crate::schema::node::Node;
use crate::status::Cause;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that the applied object sets and that other managers own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflicts {
    /// The message of the Status.
    pub(crate) message: String,
    /// One cause for each field.
    pub(crate) causes: Vec<Cause>,
}

/// The error of a server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum ApplyError {
    /// Other managers own fields with other values. The answer is 409 with reason `Conflict`.
    Conflict(Conflicts),
    /// The applied object sets a field that an applier must not set. The answer is 400.
    Reserved(String),
    /// The applied object does not fit the schema.
    Malformed(String),
}

/// The writer of an applied object, and what it writes to.
pub(crate) struct Applier<'a> {
    pub(crate) manager: &'a str,
    /// Take over the fields of other managers instead of reporting a conflict.
    pub(crate) force: bool,
    /// The subresource, or an empty string.
    pub(crate) subresource: &'a str,
    /// Whether the status of the kind is a subresource.
    pub(crate) separate_status: bool,
}

impl Applier<'_> {
    /// Removes and returns the fields that this write does not set. Kubernetes calls them reset fields.
    fn reset(&self, applied: &mut Value) -> Value {
        let ignored = |field: &str| match self.subresource {
            "status" => !matches!(field, "apiVersion" | "kind" | "metadata" | "status"),
            "" => self.separate_status && field == "status",
            _ => false,
        };
        let Some(fields) = applied.as_object_mut() else {
            return Value::Null;
        };
        let split = |fields: &mut Map<String, Value>, ignored: &dyn Fn(&str) -> bool| -> Map<String, Value> {
            let (removed, kept) = std::mem::take(fields)
                .into_iter()
                .partition(|(field, _)| ignored(field));
            *fields = kept;
            removed
        };
        let mut removed = split(fields, &ignored);
        if self.subresource == "status"
            && let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
        {
            let metadata = split(metadata, &|field| !matches!(field, "name" | "namespace"));
            removed.insert("metadata".into(), Value::Object(metadata));
        }
        Value::Object(removed)
    }
}

struct Merge<'a> {
    node: Option<&'a Node>,
    /// The writer of this request, without fields.
    writer: Entry,
}

impl<'a> Merge<'a> {
    fn new(object: &Value, manager: &str, operation: Operation, subresource: &str, types: &'a TypeInfo) -> Self {
        Self {
            node: Some(types.root()),
            writer: Entry {
                manager: if manager.is_empty() {
                    "unknown".into()
                } else {
                    manager.into()
                },
                operation,
                api_version: object
                    .get("apiVersion")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .into(),
                subresource: subresource.into(),
                time: None,
                fields: FieldSet::default(),
            },
        }
    }

    fn position(&self, entries: &[Entry]) -> Option<usize> {
        entries.iter().position(|e| e.same_writer(&self.writer))
    }

    /// Returns the fields of a set that this writer may own.
    fn ownable(&self, set: &FieldSet) -> FieldSet {
        let mut set = set.difference(&managed::unowned());
        match self.writer.subresource.as_str() {
            "status" => set.retain_roots(|root| root == "f:status"),
            "scale" => set.retain_roots(|root| root == "f:spec"),
            _ => {}
        }
        set
    }

    /// Returns the changed fields that other entries own.
    fn conflicts(&self, entries: &[Entry], changed: &FieldSet) -> Vec<(usize, FieldSet)> {
        entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| !entry.same_writer(&self.writer))
            .map(|(i, entry)| (i, entry.fields.intersection(changed)))
            .filter(|(_, set)| !set.is_empty())
            .collect()
    }

    /// Removes changed and removed fields from all other owners.
    fn disown(&self, entries: &mut Vec<Entry>, comparison: &walk::Comparison) {
        let changed = comparison.changed();
        for entry in entries.iter_mut().filter(|e| !e.same_writer(&self.writer)) {
            entry.fields = entry.fields.difference(&changed).difference(&comparison.removed);
        }
        entries.retain(|e| !e.fields.is_empty() || e.same_writer(&self.writer));
    }

    /// Removes the fields that the writer applied last time and does not apply now, unless another manager owns them.
    /// `applied` has all fields that it applies now, including fields without an owner. An object therefore keeps its
    /// name when its last label is removed.
    fn prune(&self, merged: Value, entries: &[Entry], last: &FieldSet, applied: &FieldSet) -> Value {
        if last.is_empty() {
            return merged;
        }
        let named = |set: &FieldSet| set.with_named_fields(self.node);
        let all = named(&walk::fields_of(&merged, self.node));
        let last = named(last);
        let pruned = walk::without(&merged, &last, self.node);
        // Restores fields of other owners that were removed together with a struct or item.
        let owned = entries.iter().fold(applied.clone(), |sum, e| sum.union(&e.fields));
        let kept = named(&walk::fields_of(&pruned, self.node)).union(&named(&owned));
        let pruned = walk::without(&merged, &all.difference(&kept), self.node);
        // Fields without an owner were not this writer's, so they stay.
        let kept = named(&walk::fields_of(&pruned, self.node));
        walk::without(&merged, &all.difference(&kept).intersection(&last), self.node)
    }
}

/// Merges `applied` into `live` for `manager` and returns the new object with its managedFields. Applying the same
/// object again changes nothing, not even a time.
pub(crate) fn server_side_apply(
    live: Option<&Value>,
    applied: &Value,
    applier: &Applier<'_>,
    types: &TypeInfo,
    now: Timestamp,
) -> Result<Value, ApplyError> {
    let manager = applier.manager;
    if applied
        .pointer("/metadata/managedFields")
        .is_some_and(|m| m.as_array().is_none_or(|m| !m.is_empty()))
    {
        return Err(ApplyError::Reserved("metadata.managedFields must be nil".into()));
    }
    let mut applied = applied.clone();
    managed::strip(&mut applied);
    let ignored = applier.reset(&mut applied);
    let merge = Merge::new(&applied, manager, Operation::Apply, applier.subresource, types);
    let mut entries = live.map(managed::decode).unwrap_or_default();
    let mut before = live.cloned().unwrap_or_else(|| json!({}));
    managed::strip(&mut before);
    if let Some(live) = live
        && entries.is_empty()
    {
        entries.extend(before_first_apply(live, &before, types, now));
    }
    let apply = |force| apply_once(&merge, &before, &applied, entries.clone(), force);
    let outcome = match apply(applier.force) {
        // kubectl migrates from client-side apply. It owns the fields in its annotation that still have the same
        // value.
        Err(Failure::Conflicts(conflicts)) if manager == "kubectl" => {
            let own = last_applied_fields(&before, merge.node);
            let foreign: Vec<(Entry, FieldSet)> = conflicts
                .into_iter()
                .map(|(entry, set)| (entry, set.difference(&own)))
                .filter(|(_, set)| !set.is_empty())
                .collect();
            if foreign.is_empty() {
                apply(true)
            } else {
                Err(Failure::Conflicts(foreign))
            }
        }
        other => other,
    };
    let (mut merged, mut entries) = outcome.map_err(|failure| match failure {
        Failure::Conflicts(conflicts) => ApplyError::Conflict(report(&conflicts)),
        Failure::Malformed(message) => ApplyError::Malformed(message),
    })?;
    if manager == "kubectl"
        && before
            .pointer("/metadata/annotations")
            .is_some_and(|a| a.get(LAST_APPLIED).is_some())
    {
        remember_applied(&mut merged, &applied);
    }
    let former = live.map(managed::decode).unwrap_or_default();
    let mine = |list: &[Entry]| merge.position(list).map(|i| list[i].clone());
    if let Some(i) = merge.position(&entries) {
        let old = mine(&former);
        // A manager that becomes the owner of unchanged fields gets no new time. Other values in fields that this write
        // does not set count as a change, too.
        let same = |with: &Value| walk::merge(&before, with, merge.node, "").map(|merged| merged == before);
        entries[i].time = if live.is_some() && merged == before && same(&ignored).map_err(ApplyError::Malformed)? {
            old.and_then(|o| o.time)
        } else {
            Some(managed::stamp(now))
        };
    }
    managed::encode(&mut merged, entries);
    Ok(merged)
}

enum Failure {
    Conflicts(Vec<(Entry, FieldSet)>),
    Malformed(String),
}

fn apply_once(
    merge: &Merge<'_>,
    before: &Value,
    applied: &Value,
    mut entries: Vec<Entry>,
    force: bool,
) -> Result<(Value, Vec<Entry>), Failure> {
    let merged = walk::merge(before, applied, merge.node, "").map_err(Failure::Malformed)?;
    let all = walk::fields_of(applied, merge.node);
    let set = merge.ownable(&all);
    let last = match merge.position(&entries) {
        Some(i) => {
            entries[i].api_version.clone_from(&merge.writer.api_version);
            std::mem::replace(&mut entries[i].fields, set)
        }
        None => {
            entries.push(Entry {
                fields: set,
                ..merge.writer.clone()
            });
            FieldSet::default()
        }
    };
    let merged = merge.prune(merged, &entries, &last, &all);
    let comparison = walk::compare(before, &merged, merge.node);
    let conflicts = merge.conflicts(&entries, &comparison.changed());
    if !force && !conflicts.is_empty() {
        return Err(Failure::Conflicts(
            conflicts
                .into_iter()
                .map(|(i, set)| (entries[i].clone(), set))
                .collect(),
        ));
    }
    merge.disown(&mut entries, &comparison);
    entries.retain(|e| !e.fields.is_empty());
    Ok((merged, entries))
}

/// Returns the entry for an object from before managedFields. Its fields belong to no particular manager.
fn before_first_apply(live: &Value, stripped: &Value, types: &TypeInfo, now: Timestamp) -> Option<Entry> {
    let merge = Merge::new(live, "before-first-apply", Operation::Update, "", types);
    let comparison = walk::compare(&json!({}), stripped, merge.node);
    let fields = merge.ownable(&comparison.added);
    (!fields.is_empty()).then(|| Entry {
        fields,
        time: Some(managed::stamp(now)),
        ..merge.writer
    })
}

fn last_applied_fields(live: &Value, node: Option<&Node>) -> FieldSet {
    let annotation = live
        .pointer("/metadata/annotations")
        .and_then(|a| a.get(LAST_APPLIED))
        .and_then(Value::as_str);
    let Some(last) = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return FieldSet::default();
    };
    if last.get("apiVersion") != live.get("apiVersion") {
        return FieldSet::default();
    }
    let comparison = walk::compare(&last, live, node);
    walk::fields_of(&last, node)
        .difference(&comparison.changed())
        .difference(&comparison.removed)
}

/// Updates the annotation of client-side apply, so that a user can switch back to it.
fn remember_applied(merged: &mut Value, applied: &Value) {
    let mut applied = applied.clone();
    if let Some(annotations) = applied
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(annotations) = merged
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.insert(LAST_APPLIED.into(), format!("{applied}\n").into());
    }
}

fn report(conflicts: &[(Entry, FieldSet)]) -> Conflicts {
    let mut all: Vec<(String, Vec<String>)> = conflicts
        .iter()
        .map(|(entry, set)| (entry.shown(), set.paths()))
        .collect();
    all.sort();
    let causes: Vec<Cause> = all
        .iter()
        .flat_map(|(who, paths)| {
            paths.iter().map(move |path| Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {who}"),
                field: path.clone(),
            })
        })
        .collect();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let listed: Vec<String> = all
                .iter()
                .flat_map(|(who, paths)| {
                    std::iter::once(format!("conflicts with {who}:")).chain(paths.iter().map(|p| format!("- {p}")))
                })
                .collect();
            format!("Apply failed with {} conflicts: {}", many.len(), listed.join("\n"))
        }
    };
    Conflicts { message, causes }
}

/// Records in `new.metadata.managedFields` what a create, update or patch changed.
///
/// A client that sends managedFields replaces the stored ones. A client that sends none keeps them. `[{}]` clears
/// them.
pub(crate) fn track_update(
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    types: &TypeInfo,
    now: Timestamp,
) {
    if managed::is_reset(new) {
        managed::strip(new);
        return;
    }
    let stored = old.map(managed::decode).unwrap_or_default();
    let sent = managed::decode(new);
    // A write to a subresource cannot change the owners of the object.
    let mut entries = if sent.is_empty() || !subresource.is_empty() {
        stored
    } else {
        sent
    };
    managed::strip(new);
    let mut before = old.cloned().unwrap_or_else(|| json!({}));
    managed::strip(&mut before);
    // An object that was never tracked stays untracked until its first apply.
    if old.is_some() && entries.is_empty() {
        return;
    }
    let merge = Merge::new(new, manager, Operation::Update, subresource, types);
    let comparison = walk::compare(&before, new, merge.node);
    if !comparison.is_same() {
        merge.disown(&mut entries, &comparison);
        let i = merge.position(&entries).unwrap_or_else(|| {
            entries.push(merge.writer.clone());
            entries.len() - 1
        });
        let entry = &mut entries[i];
        let fields = merge.ownable(
            &entry
                .fields
                .difference(&comparison.removed)
                .union(&comparison.changed()),
        );
        // Fields that the server itself writes (such as resourceVersion) are not changes by the writer.
        if fields != entry.fields || !merge.ownable(&comparison.changed()).is_empty() {
            entry.fields = fields;
            entry.time = Some(managed::stamp(now));
        }
        entries.retain(|e| !e.fields.is_empty());
        managed::cap(&mut entries);
    }
    managed::encode(new, entries);
}
