//! One table of accept and reject cases. Offline validation and the embedded API server check each case.

use std::collections::{BTreeMap, BTreeSet};

use kube_embed::CrdSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    base: String,
    #[serde(default)]
    set: Map<String, Value>,
    #[serde(default)]
    unset: Vec<String>,
    #[serde(default)]
    repeat: Option<Repeat>,
    #[serde(default)]
    old: Option<Map<String, Value>>,
    #[serde(default)]
    reject: Option<Reject>,
}

#[derive(Deserialize)]
struct Repeat {
    path: String,
    count: usize,
    item: Value,
}

#[derive(Deserialize)]
struct Reject {
    field: String,
    message: String,
}

impl Reject {
    /// Returns whether an error names the field, or a field below or above it, with one of the texts.
    fn fits(&self, field: &str, message: &str) -> bool {
        field.starts_with(&self.field) && self.message.split('|').any(|part| message.contains(part))
    }
}

fn base(kind: &str) -> Value {
    match kind {
        "training" => json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining", "metadata": {"name": "wine"},
            "spec": {"model": {"name": "wine", "version": "1"}, "toolchain": "mlflow", "source": {"configMap": {"name": "wine-source"}}}
        }),
        "connection" => json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "Connection", "metadata": {"name": "models"},
            "spec": {"type": "s3", "uri": "s3://bucket/prefix"}
        }),
        "toolchain" => json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ToolchainIntegration", "metadata": {"name": "mlflow"},
            "spec": {"type": "Training", "image": "example/x:1", "command": ["train"], "format": "gppi/v1"}
        }),
        other => panic!("no base {other:?}"),
    }
}

/// Returns the parent of a dotted path, and its last key.
fn parent<'a, 'p>(object: &'a mut Value, path: &'p str) -> (&'a mut Map<String, Value>, &'p str) {
    let (head, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = object;
    for key in head.split('.').filter(|key| !key.is_empty()) {
        at = &mut at[key];
    }
    (
        at.as_object_mut()
            .unwrap_or_else(|| panic!("{path}: the parent is no object")),
        last,
    )
}

fn apply(object: &mut Value, set: &Map<String, Value>) {
    for (path, value) in set {
        let (map, key) = parent(object, path);
        map.insert(key.to_owned(), value.clone());
    }
}

fn build(case: &Case) -> (Value, Option<Value>) {
    let mut object = base(&case.base);
    apply(&mut object, &case.set);
    for path in &case.unset {
        let (map, key) = parent(&mut object, path);
        assert!(map.remove(key).is_some(), "{}: nothing at {path}", case.name);
    }
    if let Some(Repeat { path, count, item }) = &case.repeat {
        let text = item.to_string();
        let items = (0..*count)
            .map(|i| serde_json::from_str(&text.replace("{}", &i.to_string())).unwrap())
            .collect();
        let (map, key) = parent(&mut object, path);
        map.insert(key.to_owned(), Value::Array(items));
    }
    let old = case.old.as_ref().map(|set| {
        let mut old = base(&case.base);
        apply(&mut old, set);
        old
    });
    (object, old)
}

fn compare(case: &Case, by: &str, errors: &[(String, String)], failures: &mut Vec<String>) {
    let ok = match &case.reject {
        None => errors.is_empty(),
        Some(reject) => errors.iter().any(|(field, message)| reject.fits(field, message)),
    };
    if !ok {
        let wanted = case
            .reject
            .as_ref()
            .map_or("acceptance".to_owned(), |r| format!("{}: {}", r.field, r.message));
        failures.push(format!("{} ({by}): wanted {wanted}, got {errors:?}", case.name));
    }
}

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("cases.yaml")).unwrap()
}

/// Every CEL rule of the CRDs refuses a case in the table. A rule that no case breaks may be useless.
#[test]
fn every_rule_refuses_a_case() {
    let mut rules = BTreeSet::new();
    for (kind, schema) in crate::crds::schemas() {
        crate::crds::walk(&schema, &kind, &mut |path, node| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                rules.insert((
                    kind.clone(),
                    path.to_owned(),
                    rule["message"].as_str().unwrap().to_owned(),
                ));
            }
        });
    }
    let refused: Vec<(String, String, String)> = cases()
        .iter()
        .map(build)
        .flat_map(|(object, old)| {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let problems = legion_api::validate::object(&object, old.as_ref());
            problems
                .into_iter()
                .map(move |problem| (kind.clone(), problem.field, problem.message))
        })
        .collect();
    let unbroken: Vec<_> = rules
        .iter()
        .filter(|(kind, path, message)| {
            // An error names `ModelTraining.spec.data[].localPath` as `spec.data[0].localPath`, or by the rule's field
            // path.
            let field = path
                .trim_start_matches(kind.as_str())
                .trim_start_matches('.')
                .replace("[]", "[0]");
            !refused
                .iter()
                .any(|(of, at, reported)| of == kind && at.starts_with(&field) && reported.contains(message))
        })
        .collect();
    assert!(unbroken.is_empty(), "nothing in the table breaks {unbroken:#?}");
}

/// An accepted case sets every field of a spec. A field that no object can set would be useless.
#[test]
fn every_field_is_accepted_somewhere() {
    let accepted: Vec<Value> = cases()
        .iter()
        .filter(|case| case.reject.is_none())
        .map(|case| build(case).0)
        .collect();
    let mut missing = Vec::new();
    for (kind, schema) in crate::crds::schemas() {
        let mut of_spec = |path: &str, field: &str| {
            let pointer = format!("/{path}/{field}");
            let given = accepted
                .iter()
                .any(|object| object["kind"] == kind.as_str() && object.pointer(&pointer).is_some());
            if !given {
                missing.push(format!("{kind}{pointer}"));
            }
        };
        let spec = &schema["properties"]["spec"];
        for (field, schema) in spec["properties"].as_object().unwrap() {
            of_spec("spec", field);
            // One level deeper, where the type is Legion's own.
            if field != "affinity" {
                let item = schema.get("items").map(|item| (format!("spec/{field}/0"), item));
                let (path, schema) = item.unwrap_or((format!("spec/{field}"), schema));
                let ours = !matches!(field.as_str(), "env" | "tolerations");
                for inner in schema["properties"].as_object().into_iter().flatten().filter(|_| ours) {
                    of_spec(&path, inner.0);
                }
            }
        }
    }
    assert!(missing.is_empty(), "no accepted case gives {missing:#?}");
}

#[test]
fn both_validators_give_the_results_of_the_table() {
    let cases = cases();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let served_schemas: BTreeMap<String, CrdSchema> = legion_api::crd::all()
        .into_iter()
        .map(|crd| (crd.spec.names.kind.clone(), serde_json::to_value(crd).unwrap()))
        .map(|(kind, crd)| {
            (
                kind,
                CrdSchema::compile(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).unwrap(),
            )
        })
        .collect();
    let mut failures = Vec::new();
    for case in &cases {
        let (object, old) = build(case);
        let problems = legion_api::validate::object(&object, old.as_ref());
        let errors: Vec<_> = problems.into_iter().map(|p| (p.field, p.message)).collect();
        compare(case, "offline", &errors, &mut failures);

        let schema = &served_schemas[object["kind"].as_str().unwrap()];
        let mut served = object.clone();
        let mut errors: Vec<_> = schema
            .prune(&mut served)
            .into_iter()
            .map(|field| (field, "unknown field".to_owned()))
            .collect();
        schema.default(&mut served);
        errors.extend(
            schema
                .validate(&served, old.as_ref())
                .into_iter()
                .map(|e| (e.path.to_string(), e.to_string())),
        );
        compare(case, "embedded API", &errors, &mut failures);
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    println!("{} cases, each judged by two validators", cases.len());
}
