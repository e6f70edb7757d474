//! What changing a field of the spec does to a run: one table, from which the run id and the reference docs are made.

use serde_json::{Value, json};

/// What changing a field does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The field means work: a change starts a new run.
    NewRun,
    /// The field shapes the pod: a change counts from the next attempt on. A pod that cannot start is made anew.
    NextAttempt,
    /// A change starts nothing and restarts nothing.
    None,
}

impl Effect {
    /// As the reference docs say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewRun => "new run",
            Self::NextAttempt => "next attempt only",
            Self::None => "no effect",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldEffect {
    /// The field, below `spec`.
    pub field: &'static str,
    /// What changing it does.
    pub effect: Effect,
    /// More about it; empty when there is nothing to add.
    pub note: &'static str,
}

const fn line(field: &'static str, effect: Effect, note: &'static str) -> FieldEffect {
    FieldEffect { field, effect, note }
}

/// Every field of `spec`, in the order of the manifest. The lines with [`Effect::NewRun`] are the closed list that the run
/// id is made of: a field that is added to it, or taken away, needs a new version of the hash.
const FIELDS: &[FieldEffect] = &[
    line("model", Effect::NewRun, "name and version"),
    line(
        "toolchain",
        Effect::NewRun,
        "the name; a new generation of the toolchain counts from the next run on",
    ),
    line(
        "source",
        Effect::NewRun,
        "with the content of a ConfigMap; branches and objects are resolved once a run",
    ),
    line("workDir", Effect::NewRun, ""),
    line("entrypoint", Effect::NewRun, ""),
    line("args", Effect::NewRun, ""),
    line("arguments", Effect::NewRun, ""),
    line("hyperParameters", Effect::NewRun, ""),
    line("objective", Effect::NewRun, "the training code may act on it"),
    line("data", Effect::NewRun, ""),
    line("output", Effect::NewRun, ""),
    line("image", Effect::NewRun, ""),
    line("env", Effect::NewRun, ""),
    line("resources", Effect::NextAttempt, ""),
    line("nodeSelector", Effect::NextAttempt, ""),
    line("tolerations", Effect::NextAttempt, ""),
    line("affinity", Effect::NextAttempt, ""),
    line("priorityClassName", Effect::NextAttempt, ""),
    line("schedulerName", Effect::NextAttempt, ""),
    line("runtimeClassName", Effect::NextAttempt, ""),
    line("serviceAccountName", Effect::NextAttempt, ""),
    line("imagePullSecrets", Effect::NextAttempt, ""),
    line("podMetadata", Effect::NextAttempt, ""),
    line("workspace", Effect::NextAttempt, ""),
    line("sharedMemory", Effect::NextAttempt, ""),
    line("gracePeriod", Effect::NextAttempt, ""),
    line("timeout", Effect::NextAttempt, ""),
    line(
        "startTimeout",
        Effect::None,
        "counts at once for a pod that has not started",
    ),
    line("retries", Effect::None, "counts when an attempt ends"),
    line(
        "ttlAfterFinished",
        Effect::None,
        "counts at once for pods that have ended",
    ),
    line(
        "suspend",
        Effect::None,
        "ends the pod, or lets the same run go on; never a new run",
    ),
    line("trigger", Effect::NewRun, "any change asks for a run of the same spec"),
];

/// The table.
#[must_use]
pub fn field_effects() -> &'static [FieldEffect] {
    FIELDS
}

/// The part of a spec that has the given effect, blind to defaults: a field that stands at its default counts as absent,
/// so that a default that is written out, or filled in by a newer CRD, changes nothing.
pub(crate) fn part(spec: &Value, effect: Effect) -> Value {
    let chosen = FIELDS.iter().filter(|line| line.effect == effect).filter_map(|line| {
        let value = without_defaults(spec.get(line.field)?, &default_of(line.field))?;
        Some((line.field.to_owned(), value))
    });
    Value::Object(chosen.collect())
}

/// The defaults of the CRD below a field of the closed list. A test holds them against the CRD.
fn default_of(field: &str) -> Value {
    match field {
        "entrypoint" => json!("main"),
        "source" => json!({ "git": { "submodules": false } }),
        "output" => json!({ "pathTemplate": "{namespace}/{training}/{runId}" }),
        "gracePeriod" => json!("1m"),
        "timeout" => json!("24h"),
        _ => Value::Null,
    }
}

/// `value` without what equals `default`; nothing when nothing is left.
fn without_defaults(value: &Value, default: &Value) -> Option<Value> {
    if value.is_null() || value == default {
        return None;
    }
    match (value, default) {
        (Value::Object(fields), Value::Object(defaults)) => {
            // Only what is at its default goes: an object that stays behind empty still says that it was given.
            let left = fields.iter().filter_map(|(key, value)| {
                let value = match defaults.get(key) {
                    Some(default) => without_defaults(value, default)?,
                    None => value.clone(),
                };
                Some((key.clone(), value))
            });
            Some(Value::Object(left.collect()))
        }
        (Value::Object(fields), _) if fields.is_empty() => None,
        (Value::Array(items), _) if items.is_empty() => None,
        _ => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn spec_schema() -> Value {
        let crd = legion_api::crd::of_kind("ModelTraining").unwrap();
        let schema = serde_json::to_value(crd).unwrap();
        schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
    }

    #[test]
    fn every_field_of_the_schema_is_in_the_table_once() {
        let schema = spec_schema();
        let of_schema: BTreeSet<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let of_table: BTreeSet<&str> = FIELDS.iter().map(|line| line.field).collect();
        assert_eq!(of_schema, of_table);
        assert_eq!(of_table.len(), FIELDS.len());
    }

    /// Collects the defaults in a schema as a value of its own; below lists there are none that we could leave out.
    fn defaults(schema: &Value) -> Value {
        if let Some(default) = schema.get("default") {
            return default.clone();
        }
        let below = schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let below: serde_json::Map<_, _> = below
            .map(|(name, schema)| (name.clone(), defaults(schema)))
            .filter(|(_, d)| !d.is_null())
            .collect();
        if below.is_empty() {
            Value::Null
        } else {
            Value::Object(below)
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_crd() {
        let schema = spec_schema();
        for line in FIELDS.iter().filter(|line| line.effect != Effect::None) {
            let of_crd = defaults(&schema["properties"][line.field]);
            let ours = default_of(line.field);
            // Durations are written in more than one way: what counts is the form that they serialise to.
            let same = match (of_crd.as_str(), ours.as_str()) {
                (Some(a), Some(b)) if a != b => a.parse::<legion_api::duration::Span>() == b.parse(),
                _ => of_crd == ours,
            };
            assert!(same, "{}: the CRD has {of_crd}, the table {ours}", line.field);
        }
    }
}
