//! The status: some run fills in every field that the CRD declares.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use legion_api::{ModelTraining, ModelTrainingStatus};
use legion_plan::training::{World, decide};
use legion_protocol::{
    exit::ExitRecord,
    message::{PublishOutcome, WireStoredFile},
    result::{WireExternalRun, WireNotice},
};
use serde_json::{Value, json};

use crate::factory::{
    after, connection, created, end, ended, exit, fetched, publish_message, schedule, set, settings, train, training,
    waiting, world,
};

/// An artifact that the status keeps from an earlier run is not the model of this one.
#[test]
fn only_a_run_with_a_model_reports_a_trained_model() {
    for (has_model, expected) in [(true, "the model is trained"), (false, "the run has succeeded")] {
        let mut world = world(training(json!({})));
        let mut pod = created(&world, after(0));
        train(&mut pod);
        world.pods = vec![Arc::new(pod.clone())];
        let training = decide(&world, &settings(), after(6)).status.unwrap();
        let earlier = legion_api::run::Artifact {
            run_id: "an-earlier-run".into(),
            ..Default::default()
        };
        Arc::make_mut(&mut world.training).status = Some(ModelTrainingStatus {
            artifact: Some(earlier),
            ..training
        });
        let mut message = publish_message(PublishOutcome::Published, Some(exit(0)), None);
        message.head.artifact = message.head.artifact.filter(|_| has_model);
        end(&mut pod, ended(0, "Completed", "", 8), 0, &message, 9);
        world.pods = vec![Arc::new(pod)];
        let status = decide(&world, &settings(), after(10)).status.unwrap();
        let succeeded = status
            .conditions
            .iter()
            .find(|found| found.type_ == "Succeeded")
            .unwrap();
        assert!(succeeded.message.starts_with(expected), "{}", succeeded.message);
    }
}

/// Returns the status after a failed attempt, when another one follows.
fn failed(spec: Value, record: ExitRecord) -> ModelTrainingStatus {
    let mut world = world(training(spec));
    let mut pod = created(&world, after(0));
    train(&mut pod);
    let mut message = publish_message(PublishOutcome::Failed, Some(record), None);
    message.tail.log_tail = "epoch 1".into();
    end(&mut pod, ended(137, "OOMKilled", "", 7), 1, &message, 8);
    world.pods = vec![Arc::new(pod)];
    decide(&world, &settings(), after(9)).status.unwrap()
}

/// Returns the statuses of two trainings from a ConfigMap and of one from git. The code of the first failed, and the
/// kernel ended the second. The third has a second run with every field, and a third run that waits.
fn statuses() -> [ModelTrainingStatus; 4] {
    let code_failed = failed(json!({"retries": 1}), exit(3));
    let git = json!({"source": {"git": {"connection": "code", "ref": "main"}}, "retries": 1});
    let code = connection("code", json!({"type": "git", "uri": "https://example.com/wine.git"}));
    let world = |training: ModelTraining| World {
        connections: BTreeMap::from([("code".to_owned(), code.clone())]),
        ..world(training)
    };
    let killed = ExitRecord {
        exit_code: None,
        signal: Some(9),
        ..exit(0)
    };
    let out_of_memory = failed(json!({"retries": 1}), killed);
    let mut training = training(git);

    // The previous run succeeded.
    let succeed = |training: ModelTraining| {
        let mut world = world(training);
        let mut pod = created(&world, after(0));
        train(&mut pod);
        set(&mut pod, "fetch", ended(0, "Completed", &fetched("c0ffee"), 2));
        let mut message = publish_message(PublishOutcome::Published, Some(exit(0)), None);
        let stored = |name: &str| {
            Some(WireStoredFile {
                uri: format!("pvc://models/{name}"),
                size_bytes: 48213,
                points: Some(6),
                ..WireStoredFile::default()
            })
        };
        let tail = &mut message.tail;
        (tail.series, tail.files) = (stored("series.jsonl"), stored("files.tar"));
        tail.log = stored("log.txt").map(|log| WireStoredFile { truncated: true, ..log });
        tail.external = Some(WireExternalRun {
            system: "mlflow".into(),
            version: "3.17.2".into(),
            id: "0bc4".into(),
            name: "wine-1".into(),
            experiment: "wine".into(),
            uri: "https://mlflow.example.com/0bc4".into(),
            other_runs: 2,
        });
        tail.environment = [("python", "3.11.7"), ("from", "project"), ("lock", "sha256:77aa")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        tail.notices = vec![WireNotice {
            reason: "NoSignature".into(),
            message: "the model does not say what it takes".into(),
        }];
        end(&mut pod, ended(0, "Completed", "", 9), 0, &message, 10);
        world.pods = vec![Arc::new(pod)];
        decide(&world, &settings(), after(11)).status.unwrap()
    };
    training.status = Some(succeed(training.clone()));
    training.spec.trigger = Some("again".into());
    training.metadata.generation = Some(2);
    let succeeded = succeed(training.clone());

    // A waiting run.
    let waits = {
        let mut world = world(training);
        let mut pod = created(&world, after(0));
        schedule(&mut pod, 1);
        set(&mut pod, "trainer", waiting("ErrImagePull", "not found"));
        world.pods = vec![Arc::new(pod)];
        decide(&world, &settings(), after(10)).status.unwrap()
    };
    [code_failed, out_of_memory, succeeded, waits]
}

/// The paths of the fields in a value, list items as `[]`.
fn fields_of(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                found.insert(path.clone());
                fields_of(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields_of(item, path, found)),
        _ => {}
    }
}

/// The paths of the fields that a schema declares.
fn fields_in(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let schema = schema.get("items").unwrap_or(schema);
    for (name, schema) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("{path}.{name}");
        found.insert(path.clone());
        fields_in(schema, &path, found);
    }
}

#[test]
fn every_field_of_the_status_is_filled_in_by_some_run() {
    let crd = serde_json::to_value(legion_api::crd::of_kind("ModelTraining").unwrap()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let (mut declared, mut found) = (BTreeSet::new(), BTreeSet::new());
    fields_in(schema, "status", &mut declared);
    // Files are stored completely or not at all. Only logs are cut.
    assert!(declared.remove("status.files.truncated"));
    for status in statuses() {
        fields_of(&serde_json::to_value(status).unwrap(), "status", &mut found);
    }
    let missing: Vec<_> = declared.difference(&found).collect();
    assert!(missing.is_empty(), "no run fills in {missing:#?}");
}

#[test]
fn a_success_has_every_documented_field() {
    let [_, _, status, _] = statuses();
    let run = status.run.clone().unwrap();
    let value = serde_json::to_value(&status).unwrap();
    for (path, expected) in [
        ("/observedGeneration", json!(2)),
        ("/run/sequence", json!(2)),
        ("/toolchain/image", json!("legion-platform/toolchain-mlflow:0.1.0")),
        ("/source/kind", json!("Git")),
        ("/source/name", json!("code")),
        ("/source/uri", json!("https://example.com/wine.git")),
        ("/source/ref", json!("main")),
        ("/source/commit", json!("c0ffee")),
        ("/output/path", json!(format!("lab/wine/{}", run.id))),
        ("/score", json!("val_accuracy=0.9722")),
        ("/metrics/0/value", json!("0.9722222222222222")),
        ("/parameters", json!({"c": "0.5"})),
        ("/tags", json!({"dataset": "sklearn-wine"})),
        ("/omitted", json!({"metrics": 0, "parameters": 0, "tags": 0})),
        ("/external/otherRuns", json!(2)),
        (
            "/environment",
            json!({"python": "3.11.7", "from": "project", "lock": "sha256:77aa"}),
        ),
        ("/artifact/runId", json!(run.id)),
        ("/artifact/format", json!("gppi/v1")),
        (
            "/log",
            json!({"uri": "pvc://models/log.txt", "sizeBytes": 48213, "truncated": true}),
        ),
        ("/series", json!({"uri": "pvc://models/series.jsonl", "points": 6})),
        ("/files", json!({"uri": "pvc://models/files.tar", "sizeBytes": 48213})),
        ("/notices/0/reason", json!("NoSignature")),
        ("/history/0/result", json!("Succeeded")),
        ("/history/0/score", json!("val_accuracy=0.9722")),
    ] {
        assert_eq!(value.pointer(path), Some(&expected), "{path}");
    }
}
