//! What a change of a field of the spec does to a run: one table. The run id and the reference docs are generated from
//! it.

use legion_api::ModelTrainingSpec;
use serde_json::{Value, json};

use crate::run::id;

/// What a change of a field does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldEffect {
    /// The field means work: a change starts a new run.
    NewRun,
    /// The field configures the pod: a change applies from the next attempt on. A pod that cannot start is recreated.
    NextAttempt,
    /// A change starts nothing and restarts nothing.
    None,
}

impl FieldEffect {
    /// Returns the text of the reference docs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewRun => "new run",
            Self::NextAttempt => "next attempt only",
            Self::None => "no effect",
        }
    }
}

/// A field of `spec` and what a change of it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Path below `spec`.
    pub name: &'static str,
    /// What a change does.
    pub effect: FieldEffect,
    /// Details, or empty.
    pub note: &'static str,
}

const fn line(name: &'static str, effect: FieldEffect, note: &'static str) -> Field {
    Field { name, effect, note }
}

/// Every field of `spec`, in the order of the manifest. The run id is a hash over the fields with
/// [`FieldEffect::NewRun`]. This list is closed: adding or removing a field needs a new version of the hash.
const FIELDS: &[Field] = &[
    line("model", FieldEffect::NewRun, "name and version"),
    line(
        "toolchain",
        FieldEffect::NewRun,
        "the name; a new generation of the toolchain applies from the next run on",
    ),
    line(
        "source",
        FieldEffect::NewRun,
        "with the content of a ConfigMap; branches and objects are resolved once per run",
    ),
    line("workDir", FieldEffect::NewRun, ""),
    line("entrypoint", FieldEffect::NewRun, ""),
    line("args", FieldEffect::NewRun, ""),
    line("arguments", FieldEffect::NewRun, ""),
    line("hyperParameters", FieldEffect::NewRun, ""),
    line("objective", FieldEffect::NewRun, "the training code may act on it"),
    line("data", FieldEffect::NewRun, ""),
    line("output", FieldEffect::NewRun, ""),
    line("image", FieldEffect::NewRun, ""),
    line("env", FieldEffect::NewRun, ""),
    line("resources", FieldEffect::NextAttempt, ""),
    line("nodeSelector", FieldEffect::NextAttempt, ""),
    line("tolerations", FieldEffect::NextAttempt, ""),
    line("affinity", FieldEffect::NextAttempt, ""),
    line("priorityClassName", FieldEffect::NextAttempt, ""),
    line("schedulerName", FieldEffect::NextAttempt, ""),
    line("runtimeClassName", FieldEffect::NextAttempt, ""),
    line("serviceAccountName", FieldEffect::NextAttempt, ""),
    line("imagePullSecrets", FieldEffect::NextAttempt, ""),
    line("podMetadata", FieldEffect::NextAttempt, ""),
    line("workspace", FieldEffect::NextAttempt, ""),
    line("sharedMemory", FieldEffect::NextAttempt, ""),
    line("gracePeriod", FieldEffect::NextAttempt, ""),
    line("timeout", FieldEffect::NextAttempt, ""),
    line(
        "startTimeout",
        FieldEffect::None,
        "applies immediately to a pod that has not started",
    ),
    line("retries", FieldEffect::None, "applies when an attempt ends"),
    line(
        "ttlAfterFinished",
        FieldEffect::None,
        "applies immediately to pods that have ended",
    ),
    line(
        "suspend",
        FieldEffect::None,
        "ends the pod, or resumes the same run; never a new run",
    ),
    line(
        "trigger",
        FieldEffect::NewRun,
        "any change requests a new run of the same spec",
    ),
];

/// Returns every field of `spec`, in the order of the manifest.
#[must_use]
pub fn fields() -> &'static [Field] {
    FIELDS
}

/// Returns the id of run number `sequence` of a training.
pub(super) fn run_id(uid: &str, sequence: i64, spec: &ModelTrainingSpec, source_digest: Option<&str>) -> String {
    // A spec is plain data with string keys: it always serializes.
    let spec = serde_json::to_value(spec).unwrap_or_default();
    id::run_id(uid, sequence, &part(&spec, FieldEffect::NewRun), source_digest)
}

/// Returns the hash of everything that means work. It does not depend on which object has the spec, and not on how
/// often it was run.
pub(super) fn content_hash(spec: &ModelTrainingSpec, source_digest: Option<&str>) -> String {
    let spec = serde_json::to_value(spec).unwrap_or_default();
    id::content_hash(&part(&spec, FieldEffect::NewRun), source_digest)
}

/// Returns the part of a spec with the given effect.
///
/// A field with its default value counts as absent. A default that a user writes, or that a newer CRD fills in,
/// therefore changes nothing.
pub(super) fn part(spec: &Value, effect: FieldEffect) -> Value {
    let chosen = FIELDS.iter().filter(|line| line.effect == effect).filter_map(|line| {
        let value = without_defaults(spec.get(line.name)?, &default_of(line.name))?;
        Some((line.name.to_owned(), value))
    });
    Value::Object(chosen.collect())
}

/// Returns the defaults of the CRD below a field of the closed list. A test compares them with the CRD.
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

/// Returns `value` without the parts that equal `default`, or `None` when nothing is left.
fn without_defaults(value: &Value, default: &Value) -> Option<Value> {
    if value.is_null() || value == default {
        return None;
    }
    match (value, default) {
        (Value::Object(fields), Value::Object(defaults)) => {
            // Only defaults are dropped. An object that becomes empty stays: it was given.
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
    use std::collections::BTreeSet;

    use legion_api::ModelTraining;

    use super::*;

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
        let of_table: BTreeSet<&str> = fields().iter().map(|line| line.name).collect();
        assert_eq!(of_schema, of_table);
        assert_eq!(of_table.len(), FIELDS.len());
    }

    /// Collects the defaults of a schema. Lists have no defaults that could be dropped.
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
        for line in FIELDS.iter().filter(|line| line.effect != FieldEffect::None) {
            let of_crd = defaults(&schema["properties"][line.name]);
            let ours = default_of(line.name);
            // A duration has several spellings. They are compared in their serialized form.
            let same = match (of_crd.as_str(), ours.as_str()) {
                (Some(a), Some(b)) if a != b => a.parse::<legion_api::duration::Span>() == b.parse(),
                _ => of_crd == ours,
            };
            assert!(same, "{}: the CRD has {of_crd}, the table {ours}", line.name);
        }
    }

    fn spec(change: impl FnOnce(&mut Value)) -> ModelTrainingSpec {
        let mut object = json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining", "metadata": {"name": "wine"},
            "spec": {
                "model": {"name": "wine", "version": "1"}, "toolchain": "mlflow",
                "source": {"git": {"uri": "https://example.com/wine.git"}},
            },
        });
        change(&mut object["spec"]);
        serde_json::from_value::<ModelTraining>(object).unwrap().spec
    }

    fn id(spec: &ModelTrainingSpec) -> String {
        run_id("uid-1", 1, spec, None)
    }

    #[test]
    fn the_id_is_stable_across_releases() {
        // A different value here means that every existing training runs again.
        assert_eq!(id(&spec(|_| {})), "a6337467");
    }

    #[test]
    fn explicit_defaults_change_nothing() {
        let short = id(&spec(|_| {}));
        let long = spec(|spec| {
            spec["entrypoint"] = json!("main");
            spec["source"]["git"]["submodules"] = json!(false);
            spec["args"] = json!([]);
            spec["timeout"] = json!("1440m");
            spec["retries"] = json!(0);
        });
        assert_eq!(id(&long), short);
        // Empty lists and objects are not given, in whatever form they come.
        let empty = json!({"args": [], "arguments": {}, "env": [], "workDir": null});
        assert_eq!(part(&empty, FieldEffect::NewRun), json!({}));
    }

    #[test]
    fn the_content_hash_depends_on_the_work_alone() {
        let hash = |change: fn(&mut Value), digest| content_hash(&spec(change), digest);
        let plain = hash(|_| {}, None);
        // A different value here means that every backup trains again.
        assert_eq!(plain, "1:13212ceac25b73d2");
        assert!(id::is_known_hash(&plain) && !id::is_known_hash("2:0123456789abcdef"));
        assert_eq!(hash(|spec| spec["retries"] = json!(3), None), plain);
        assert_ne!(hash(|spec| spec["trigger"] = json!("a"), None), plain);
        assert_ne!(hash(|_| {}, Some("sha256:0")), plain);
    }

    #[test]
    fn order_of_keys_does_not_matter_and_order_of_lists_does() {
        let with = |text: &str| id(&spec(|spec| spec["arguments"] = serde_json::from_str(text).unwrap()));
        assert_eq!(
            with(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#),
            with(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#)
        );
        assert_ne!(with(r#"{"a": [1, 2]}"#), with(r#"{"a": [2, 1]}"#));
    }

    #[test]
    fn each_field_has_the_effect_of_the_table() {
        let samples = json!({
            "model": {"name": "wine", "version": "2"}, "toolchain": "other",
            "source": {"git": {"uri": "https://example.com/other.git"}}, "workDir": "sub", "entrypoint": "train.py",
            "args": ["--x"], "arguments": {"a": 1}, "hyperParameters": {"c": "1"},
            "objective": {"metric": "f1", "goal": "Maximize"}, "data": [{"name": "d", "connection": "c"}],
            "output": {"connection": "o"}, "image": "other:1", "env": [{"name": "A", "value": "1"}],
            "resources": {"limits": {"cpu": "1"}}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "a"}],
            "affinity": {"nodeAffinity": {}}, "priorityClassName": "high", "schedulerName": "s",
            "runtimeClassName": "r", "serviceAccountName": "sa", "imagePullSecrets": [{"name": "p"}],
            "podMetadata": {"labels": {"a": "b"}}, "workspace": {"size": "1Gi"}, "sharedMemory": "1Gi",
            "gracePeriod": "2m", "timeout": "1h", "startTimeout": "2h", "retries": 3, "ttlAfterFinished": "1h",
            "suspend": true, "trigger": "again",
        });
        let before = spec(|_| {});
        for line in FIELDS {
            let sample = samples
                .get(line.name)
                .unwrap_or_else(|| panic!("no sample for {}", line.name));
            let after = spec(|spec| spec[line.name] = sample.clone());
            assert_ne!(before, after, "{}", line.name);
            assert_eq!(
                id(&before) != id(&after),
                line.effect == FieldEffect::NewRun,
                "{}",
                line.name
            );
        }
    }

    #[test]
    fn the_id_depends_on_uid_sequence_and_content() {
        let spec = spec(|_| {});
        let ids = [
            ("a", 1, None),
            ("b", 1, None),
            ("a", 2, None),
            ("a", 1, Some("sha256:0")),
        ]
        .map(|(uid, sequence, digest)| run_id(uid, sequence, &spec, digest));
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(
            ids.iter()
                .all(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        );
    }
}
