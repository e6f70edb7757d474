//! Commands of `legionctl`, with their output and exit codes.

use std::fs;

use legion_tests::local::{Local, repository, text, until};

const EXAMPLE: &str = "examples/script/training.yaml";

#[test]
fn an_unchanged_manifest_starts_nothing_and_changed_code_trains_again() {
    let local = Local::new().unwrap();
    let manifest = repository().join(EXAMPLE);
    let (code, first, errors) = local.train(&manifest).unwrap();
    assert_eq!(code, Some(0), "{errors}");

    let again = local.output(&["local", "run", "-f", EXAMPLE]).unwrap();
    assert!(again.status.success(), "{}", text(&again));
    assert!(text(&again).contains("nothing was started"), "{}", text(&again));

    let changed = local.path().join("changed.yaml");
    let source = fs::read_to_string(&manifest).unwrap();
    let edited = source.replacen("train.sh: |\n", "train.sh: |\n    # another line\n", 1);
    assert_ne!(source, edited, "the example has a train.sh");
    fs::write(&changed, edited).unwrap();
    let (code, second, errors) = local.train(&changed).unwrap();
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(
        second["metadata"]["generation"], first["metadata"]["generation"],
        "only the ConfigMap changed"
    );
    assert_ne!(second["status"]["run"]["id"], first["status"]["run"]["id"]);
    assert_eq!(second["status"]["run"]["sequence"], 2);
    assert_eq!(second["status"]["history"][0]["runId"], first["status"]["run"]["id"]);
    local.deserted().unwrap();
}

#[test]
fn a_directory_replaces_the_source_and_logs_outlive_the_pod() {
    let local = Local::new().unwrap();
    local.up().unwrap();
    let from_git = fs::read_to_string(repository().join("examples/script/training-git.yaml")).unwrap();
    let manifest = local.path().join("training.yaml");
    fs::write(
        &manifest,
        from_git.replacen("spec:\n", "spec:\n  ttlAfterFinished: 1ms\n", 1),
    )
    .unwrap();
    let manifest = manifest.to_str().unwrap();
    let run = ["local", "run", "-f", manifest, "--source", "examples/script/project"];
    let output = local.output(&run).unwrap();
    assert!(output.status.success(), "{}", text(&output));

    let pods = local.path().join("node/pods");
    until("the pod is deleted", || {
        Ok(fs::read_dir(&pods)?.next().is_none().then_some(()))
    })
    .unwrap();
    for arguments in [
        &["logs", "script"][..],
        &["logs", "--follow", "script"],
        &["logs", "--tail", "1000", "script"],
    ] {
        let logs = local.run(arguments).unwrap();
        assert!(logs.contains("slope 2.5"), "{arguments:?}: {logs}");
    }
    let last = local.run(&["logs", "script", "--tail", "1"]).unwrap();
    assert_eq!(last.lines().count(), 1, "{last}");
    let fetch = local.output(&["logs", "script", "-c", "fetch"]).unwrap();
    assert_eq!(fetch.status.code(), Some(3), "{}", text(&fetch));
    assert!(text(&fetch).contains("as long as the pod exists"), "{}", text(&fetch));

    local.run(&["rerun", "script", "--trigger", "again"]).unwrap();
    local.run(&["wait", "script", "--timeout", "60s"]).unwrap();
    assert_eq!(local.training("script").unwrap()["status"]["run"]["sequence"], 2);
    local.down().unwrap();
}

#[test]
fn a_missing_object_has_its_own_exit_code() {
    let local = Local::new().unwrap();
    local.up().unwrap();
    for (arguments, code, part) in [
        (&["get", "mt", "nope"][..], 3, "\"nope\" not found"),
        (&["wait", "nope"][..], 3, "\"nope\" not found"),
        (&["rerun", "nope"][..], 3, "\"nope\" not found"),
        (&["logs", "nope"][..], 3, "\"nope\" not found"),
        (&["get", "pods"][..], 2, "unknown kind \"pods\""),
        (&["validate", "/no/such/file"][..], 3, "no such file"),
        (
            &["local", "run", "-f", "crds/connections.yaml"][..],
            2,
            "no ModelTraining in it",
        ),
    ] {
        let output = local.output(arguments).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(part), "{arguments:?}: {}", text(&output));
        assert!(output.stdout.is_empty(), "errors do not stand on standard output");
    }
    local.down().unwrap();
}

#[test]
fn without_an_api_the_error_names_the_command_that_starts_one() {
    let local = Local::new().unwrap();
    let output = local.output(&["get", "mt"]).unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let start = format!("legionctl local up --detach --data-dir {}", local.path().display());
    assert!(text(&output).contains(&start), "{}", text(&output));
}
