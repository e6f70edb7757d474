//! The id of a run: a hash over what makes it this run and no other.

use legion_api::{ModelTrainingSpec, run::RunStatus};

use crate::{
    hash,
    training::fields::{self, Effect},
};

/// Version of the hash. Part of its input: should the list of fields ever change, ids of the old version stay what they
/// are, because an id is computed once and then kept in the status.
const VERSION: &str = "legion-run/1";

/// The id of the run number `sequence` of a training: eight hexadecimal digits.
#[must_use]
pub fn run_id(uid: &str, sequence: i64, spec: &ModelTrainingSpec, source_digest: Option<&str>) -> String {
    // A spec is plain data with string keys: it always serialises.
    let spec = serde_json::to_value(spec).unwrap_or_default();
    let work = hash::canonical(&fields::part(&spec, Effect::NewRun));
    let hash = hash::short(
        VERSION,
        &[uid, &sequence.to_string(), &work, source_digest.unwrap_or_default()],
    );
    format!("{:08x}", hash >> 32)
}

/// Whether `run` is still what `spec` asks for.
pub(crate) fn is_same(uid: &str, run: &RunStatus, spec: &ModelTrainingSpec, source_digest: Option<&str>) -> bool {
    run_id(uid, run.sequence, spec, source_digest) == run.id
}

#[cfg(test)]
mod tests {
    use super::*;
    use legion_api::ModelTraining;
    use serde_json::{Value, json};

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
        // Golden on purpose: a different value here means that every training in the world would run again.
        assert_eq!(id(&spec(|_| {})), "a6337467");
    }

    #[test]
    fn defaults_written_out_change_nothing() {
        let short = id(&spec(|_| {}));
        let long = spec(|spec| {
            spec["entrypoint"] = json!("main");
            spec["source"]["git"]["submodules"] = json!(false);
            spec["args"] = json!([]);
            spec["timeout"] = json!("1440m");
            spec["retries"] = json!(0);
        });
        assert_eq!(id(&long), short);
    }

    #[test]
    fn order_of_keys_changes_nothing_and_order_of_lists_does() {
        let with = |text: &str| id(&spec(|spec| spec["arguments"] = serde_json::from_str(text).unwrap()));
        assert_eq!(
            with(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#),
            with(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#)
        );
        assert_ne!(with(r#"{"a": [1, 2]}"#), with(r#"{"a": [2, 1]}"#));
    }

    #[test]
    fn each_field_does_what_the_table_says() {
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
        for line in fields::field_effects() {
            let sample = samples
                .get(line.field)
                .unwrap_or_else(|| panic!("no sample for {}", line.field));
            let after = spec(|spec| spec[line.field] = sample.clone());
            assert_ne!(before, after, "{}", line.field);
            assert_eq!(
                id(&before) != id(&after),
                line.effect == Effect::NewRun,
                "{}",
                line.field
            );
        }
    }

    #[test]
    fn uid_sequence_and_content_belong_to_it() {
        let spec = spec(|_| {});
        let ids = [
            ("a", 1, None),
            ("b", 1, None),
            ("a", 2, None),
            ("a", 1, Some("sha256:0")),
        ]
        .map(|(uid, sequence, digest)| run_id(uid, sequence, &spec, digest));
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(
            ids.iter()
                .all(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        );
    }
}
