//! The examples train, as the README says, through the local mode: operator, pod and the real MLflow.

use std::{fs, path::Path};

use legion_tests::{Local, repository, succeeded, text};
use rstest::rstest;
use serde_json::Value;

#[rstest]
#[case::script("script", "mse", "files/v1")]
#[case::wine("wine", "val_accuracy", "gppi/v1")]
#[case::diabetes("diabetes", "rmse", "gppi/v1")]
#[case::grid_search("grid-search", "best_cv_score", "gppi/v1")]
fn trains(#[case] name: &str, #[case] objective: &str, #[case] format: &str) {
    let local = Local::new();
    let manifest = repository().join("examples").join(name).join("training.yaml");
    let (code, training, errors) = local.train(&manifest);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(succeeded(&training)["status"], "True");
    let status = &training["status"];
    assert!(
        status["score"].as_str().unwrap().starts_with(&format!("{objective}=")),
        "{status:#}"
    );
    assert!(!status["parameters"].as_object().unwrap().is_empty());
    assert_eq!(status["artifact"]["format"], format);
    stored(status);
}

/// What status says is stored is there, and is what status says.
#[track_caller]
fn stored(status: &Value) {
    let path = |uri: &Value| uri.as_str().unwrap().strip_prefix("file://").unwrap().to_owned();
    let artifact = path(&status["artifact"]["uri"]);
    assert_eq!(
        fs::metadata(&artifact).unwrap().len(),
        status["artifact"]["sizeBytes"].as_u64().unwrap(),
        "{artifact}"
    );
    let sum = std::process::Command::new("sha256sum").arg(&artifact).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(
        status["artifact"]["digest"],
        format!("sha256:{}", sum.split_whitespace().next().unwrap())
    );
    let points = fs::read_to_string(path(&status["series"]["uri"])).unwrap();
    let metrics = points.lines().filter(|line| line.contains("\"metric\"")).count();
    assert_eq!(status["series"]["points"].as_u64().unwrap(), metrics as u64);
    assert!(Path::new(&path(&status["log"]["uri"])).is_file());
}

#[test]
fn a_claim_takes_the_results_where_the_namespace_has_one() {
    let local = Local::new();
    let example = |path: &str| fs::read_to_string(repository().join("examples").join(path)).unwrap();
    // Local mode has made its own default output in this namespace, hence the name.
    let training = example("script/training.yaml").replacen(
        "  toolchain: script\n",
        "  toolchain: script\n  output: {connection: models}\n",
        1,
    );
    let manifest = local.data.path().join("claim.yaml");
    fs::write(
        &manifest,
        format!("{}\n---\n{training}", example("default-output/pvc.yaml")),
    )
    .unwrap();
    let (code, training, errors) = local.train(&manifest);
    assert_eq!(code, 0, "{errors}");
    let status = &training["status"];
    assert_eq!(status["output"]["connection"], "models");
    let run = status["run"]["id"].as_str().unwrap();
    assert_eq!(
        status["artifact"]["uri"],
        format!("pvc://legion-models/default/script/{run}/model.tar")
    );
    // The claim is a directory of the node: the artifact is in it, whole.
    let claims = local.data.path().join("node/claims");
    let stored: Vec<_> = fs::read_dir(&claims)
        .unwrap()
        .map(|claim| claim.unwrap().path().join(format!("default/script/{run}/model.tar")))
        .filter(|file| file.is_file())
        .collect();
    assert_eq!(stored.len(), 1, "{}", claims.display());
    assert_eq!(
        fs::metadata(&stored[0]).unwrap().len(),
        status["artifact"]["sizeBytes"].as_u64().unwrap()
    );
}

#[test]
fn the_same_manifest_starts_nothing_and_a_changed_line_of_code_trains_again() {
    let local = Local::new();
    let manifest = repository().join("examples/script/training.yaml");
    let (code, first, errors) = local.train(&manifest);
    assert_eq!(code, 0, "{errors}");

    let again = local.legionctl(&["local", "run", "-f", manifest.to_str().unwrap()]);
    assert!(again.status.success(), "{}", text(&again));
    assert!(text(&again).contains("nothing was started"), "{}", text(&again));

    let changed = local.data.path().join("changed.yaml");
    let source = fs::read_to_string(&manifest).unwrap();
    let edited = source.replacen("train.sh: |\n", "train.sh: |\n    # another line\n", 1);
    assert_ne!(source, edited, "the example has a train.sh");
    fs::write(&changed, edited).unwrap();
    let (code, second, errors) = local.train(&changed);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(
        second["metadata"]["generation"], first["metadata"]["generation"],
        "only the ConfigMap changed"
    );
    assert_ne!(second["status"]["run"]["id"], first["status"]["run"]["id"]);
    assert_eq!(second["status"]["run"]["sequence"], 2);
    assert_eq!(second["status"]["history"][0]["runId"], first["status"]["run"]["id"]);
}

#[test]
fn a_directory_can_take_the_place_of_the_source_and_logs_are_there_after_the_run() {
    let local = Local::up();
    let manifest = repository().join("examples/script/training-git.yaml");
    let output = local.legionctl(&[
        "local",
        "run",
        "-f",
        manifest.to_str().unwrap(),
        "--source",
        "examples/script/project",
        "-o",
        "json",
    ]);
    assert!(output.status.success(), "{}", text(&output));
    let logs = local.legionctl(&["logs", "script"]);
    assert!(text(&logs).contains("slope 2.5"), "{}", text(&logs));
    let kubeconfig = local.data.path().join("kubeconfig");
    let pod = local.training("script")["status"]["run"]["pod"]
        .as_str()
        .unwrap()
        .to_owned();
    let deleted = kubectl(&kubeconfig, &["delete", "pod", &pod]);
    if let Some(deleted) = deleted {
        assert!(deleted.status.success(), "{}", text(&deleted));
        let logs = local.legionctl(&["logs", "-f", "script"]);
        assert!(text(&logs).contains("slope 2.5"), "from the store: {}", text(&logs));
    }
    let rerun = local.legionctl(&["rerun", "script", "--trigger", "again"]);
    assert!(rerun.status.success(), "{}", text(&rerun));
    let wait = local.legionctl(&["wait", "script", "--timeout", "60s"]);
    assert!(wait.status.success(), "{}", text(&wait));
    assert_eq!(local.training("script")["status"]["run"]["sequence"], 2);
}

/// The system's kubectl, where there is one; the suite `kubectl` brings its own.
fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Option<std::process::Output> {
    std::process::Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .output()
        .ok()
}

#[test]
fn what_is_not_there_is_told_with_an_exit_code_of_its_own() {
    let local = Local::up();
    for (arguments, code, part) in [
        (&["get", "mt", "nope"][..], 3, "\"nope\" not found"),
        (&["wait", "nope"][..], 3, "\"nope\" not found"),
        (&["logs", "nope"][..], 3, "\"nope\" not found"),
        (&["get", "pods"][..], 2, "unknown kind \"pods\""),
        (&["validate", "/no/such/file"][..], 3, "no such file"),
        (
            &["local", "run", "-f", "crds/connections.yaml"][..],
            2,
            "no ModelTraining in it",
        ),
    ] {
        let output = local.legionctl(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(part), "{arguments:?}: {}", text(&output));
        assert!(output.stdout.is_empty(), "errors do not stand on standard output");
    }
}
