//! The examples, trained as the README says, in the local mode: operator, pod and the real MLflow.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use legion_tests::local::{Local, git, repository, succeeded, text};
use rstest::rstest;
use serde_json::Value;

#[rstest]
#[case::script("script", "mse", "files/v1")]
#[case::wine("wine", "val_accuracy", "gppi/v1")]
#[case::diabetes("diabetes", "rmse", "gppi/v1")]
#[case::grid_search("grid-search", "best_cv_score", "gppi/v1")]
fn trains_from_the_manifest_and_from_git_alike(#[case] name: &str, #[case] objective: &str, #[case] format: &str) {
    let local = Local::new().unwrap();
    local.up().unwrap();
    let directory = repository().join("examples").join(name);
    let (code, training, errors) = local.train(&directory.join("training.yaml")).unwrap();
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(succeeded(&training)["status"], "True");
    let status = &training["status"];
    assert!(
        status["score"].as_str().unwrap().starts_with(&format!("{objective}=")),
        "{status:#}"
    );
    assert!(!status["parameters"].as_object().unwrap().is_empty());
    assert_eq!(status["artifact"]["format"], format);
    stored(status);

    // The manifest with the git source. A clone on this machine replaces the address.
    let clone = tempfile::tempdir().unwrap();
    let commit = commit_of_examples(clone.path());
    let manifest = fs::read_to_string(directory.join("training-git.yaml")).unwrap();
    let address = "https://github.com/legion-platform/legion.git";
    assert!(manifest.contains(address), "{manifest}");
    let file = clone.path().join("training-git.yaml");
    fs::write(
        &file,
        manifest.replace(address, &format!("file://{}", clone.path().display())),
    )
    .unwrap();
    let (code, from_git, errors) = local.train(&file).unwrap();
    assert_eq!(code, Some(0), "{errors}");
    let again = &from_git["status"];
    assert_eq!(again["source"]["commit"], commit.as_str(), "{again:#}");
    assert_eq!(again["run"]["sequence"], 2, "another source is another run: {again:#}");
    assert_eq!(again["parameters"], status["parameters"]);
    assert_eq!(metrics(again), metrics(status));
    stored(again);
    local.down().unwrap();
}

/// Returns the metrics of a status, without their times.
fn metrics(status: &Value) -> Vec<Value> {
    let mut metrics = status["metrics"].as_array().unwrap().clone();
    for metric in &mut metrics {
        metric.as_object_mut().unwrap().remove("time").unwrap();
    }
    assert!(!metrics.is_empty(), "{status:#}");
    metrics
}

/// Creates a repository from the present `examples/`, and returns the commit of its branch `main`.
fn commit_of_examples(directory: &Path) -> String {
    let git = |arguments: &[&str]| git(directory, arguments).unwrap();
    git(&["init", "--quiet", "--initial-branch", "main"]);
    let copied = Command::new("cp")
        .arg("-r")
        .arg(repository().join("examples"))
        .arg(directory)
        .status();
    assert!(copied.unwrap().success());
    git(&["add", "examples"]);
    git(&["commit", "--quiet", "--message", "Examples"]);
    git(&["rev-parse", "HEAD"]).trim_end().to_owned()
}

/// Checks that the files in the status exist and match it.
#[track_caller]
fn stored(status: &Value) {
    let path = |uri: &Value| uri.as_str().unwrap().strip_prefix("file://").unwrap().to_owned();
    let artifact = path(&status["artifact"]["uri"]);
    assert_eq!(
        fs::metadata(&artifact).unwrap().len(),
        status["artifact"]["sizeBytes"].as_u64().unwrap(),
        "{artifact}"
    );
    let sum = Command::new("sha256sum").arg(&artifact).output().unwrap();
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
fn a_claim_can_be_the_default_output() {
    let local = Local::new().unwrap();
    local.up().unwrap();
    let example = |path: &str| fs::read_to_string(repository().join("examples").join(path)).unwrap();
    // The local mode has created a default output in this namespace, hence the other name.
    let training = example("script/training.yaml").replacen(
        "  toolchain: script\n",
        "  toolchain: script\n  output: {connection: models}\n",
        1,
    );
    let manifest = local.path().join("claim.yaml");
    fs::write(
        &manifest,
        format!("{}\n---\n{training}", example("default-output/pvc.yaml")),
    )
    .unwrap();
    let (code, training, errors) = local.train(&manifest).unwrap();
    assert_eq!(code, Some(0), "{errors}");
    let status = &training["status"];
    assert_eq!(status["output"]["connection"], "models");
    let run = status["run"]["id"].as_str().unwrap();
    assert_eq!(
        status["artifact"]["uri"],
        format!("pvc://legion-models/default/script/{run}/model.tar")
    );
    // The claim is a directory of the node. It contains the whole artifact.
    let claims = local.path().join("node/claims");
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
    // The log and the series are read from it, too.
    let said = |arguments: &[&str]| -> Output { local.output(arguments).unwrap() };
    let logs = said(&["logs", "script", "-c", "trainer"]);
    assert!(text(&logs).contains("slope 2.5"), "{}", text(&logs));
    let report = said(&["get", "mt", "script", "-o", "report"]);
    assert!(text(&report).contains("pvc://legion-models"), "{}", text(&report));
    local.down().unwrap();
}
