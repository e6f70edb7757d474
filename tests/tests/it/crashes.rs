//! `kill -9` of the local process at ten moments of a run: after a restart there is exactly one result, no orphan process,
//! and nothing is lost.

use std::{fs, path::Path};

use legion_tests::{Killed, Local, processes_of, succeeded, text};

const TRAINING: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: crash-source}
data:
  train.sh: |
    echo run >> "$COUNTER"
    i=0
    while [ $i -lt 10 ]; do i=$((i + 1)); legion_metric loss 0.$i $i; sleep 0.1; done
    mkdir -p "$LEGION_OUTPUT/model" && echo trained > "$LEGION_OUTPUT/model/weights"
---
apiVersion: legion-platform.org/v1alpha1
kind: ModelTraining
metadata: {name: crash}
spec:
  model: {name: crash, version: "1"}
  toolchain: script
  source: {configMap: {name: crash-source}}
  entrypoint: train.sh
  objective: {metric: loss, goal: Minimize}
  env: [{name: COUNTER, value: COUNTER_FILE}]
"#;

/// Kills when the process's own words, or the training's reason, say that a moment has come.
#[test]
fn kill_nine_at_ten_moments_leaves_one_result_and_no_process() {
    // Words of the progress on standard error, and how many lines after them.
    let moments = [
        ("local API", 0),
        ("configmap/crash-source", 0),
        ("modeltraining/crash", 0),
        ("pod crash-", 0),
        ("pod crash-", 1),
        ("Training:", 0),
        ("Training:", 1),
        ("log line 1", 0),
        ("log line 5", 0),
        ("RunSucceeded", 0),
    ];
    for (moment, (words, more)) in moments.into_iter().enumerate() {
        let local = Local::new();
        let counter = local.data.path().join("counter");
        let manifest = local.data.path().join("training.yaml");
        let text_of = TRAINING
            .replace("COUNTER_FILE", counter.to_str().unwrap())
            .replace("i=$((i + 1));", "i=$((i + 1)); echo \"log line $i\";");
        fs::write(&manifest, text_of).unwrap();

        kill_when(&local, &manifest, words, more);

        let (code, training, errors) = local.train(&manifest);
        assert_eq!(code, 0, "moment {moment} ({words}): {errors}");
        assert_eq!(succeeded(&training)["status"], "True", "moment {moment}: {training:#}");
        let status = &training["status"];
        assert_eq!(status["run"]["sequence"], 1, "moment {moment}: one run only");
        assert_eq!(status["metrics"][0]["count"], 10, "moment {moment}: {status:#}");
        let outputs = local.data.path().join("outputs");
        assert_eq!(count(&outputs, "model.tar"), 1, "moment {moment}");
        let runs = fs::read_to_string(&counter).unwrap().lines().count();
        let attempts = status["run"]["attempt"].as_u64().unwrap();
        assert_eq!(
            runs as u64, attempts,
            "moment {moment}: the code ran once in each attempt"
        );
        assert_eq!(processes_of(local.data.path()), [""; 0], "moment {moment}");
    }
}

/// Starts a run and kills the process `more` lines after the first line that holds `words`.
fn kill_when(local: &Local, manifest: &Path, words: &str, more: usize) {
    use std::io::{BufRead as _, BufReader};
    let mut child = local
        .command(&["local", "run", "-f", manifest.to_str().unwrap()])
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let killed = Killed(child);
    let mut lines = lines.skip_while(|line| !line.contains(words));
    assert!(lines.next().is_some(), "no line with {words:?}");
    for _ in 0..more {
        lines.next();
    }
    drop(killed);
}

/// How many files of this name there are below a directory.
fn count(directory: &Path, name: &str) -> usize {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            if entry.path().is_dir() {
                count(&entry.path(), name)
            } else {
                usize::from(entry.file_name() == name)
            }
        })
        .sum()
}

#[test]
fn down_ends_what_runs_and_up_goes_on_with_it() {
    let local = Local::up();
    let counter = local.data.path().join("counter");
    let manifest = local.data.path().join("training.yaml");
    fs::write(&manifest, TRAINING.replace("COUNTER_FILE", counter.to_str().unwrap())).unwrap();
    let run = Killed(
        local
            .command(&["local", "run", "-f", manifest.to_str().unwrap()])
            .spawn()
            .unwrap(),
    );
    local.until("crash", |training| succeeded(training)["reason"] == "Training");
    drop(run);
    let down = local.legionctl(&["local", "down"]);
    assert!(down.status.success(), "{}", text(&down));
    assert_eq!(processes_of(local.data.path()), [""; 0]);
    let (code, training, errors) = local.train(&manifest);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(training["status"]["run"]["sequence"], 1);
}
