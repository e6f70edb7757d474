//! The table of bad input. Every case runs through the real `legionctl` with real processes. It ends in a rejection or
//! in a condition with the fault and a remedy. Then the remedy is applied, and the training succeeds.
//! `docs/reference/bad-input.md` holds the observed results. `UPDATE=1` writes it.
#![allow(clippy::unwrap_used, reason = "a test fails at the first unexpected result")]

mod case;
mod table;

use std::{
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use case::{Bench, Case, Outcome};
use legion_tests::local::{git, until};

/// Number of cases that run at the same time. A case mostly waits for processes.
const PARALLEL_CASES: usize = 3;

#[test]
fn script_cases_name_field_value_and_remedy() {
    run("script", include_str!("script.yaml"));
}

#[test]
fn mlflow_cases_name_field_value_and_remedy() {
    run("mlflow", include_str!("mlflow.yaml"));
}

/// Runs the cases in one local Legion. Compares each end with the expected one and with the section of the document.
fn run(section: &str, cases: &str) {
    let cases: Vec<Case> = serde_saphyr::from_str(cases).unwrap();
    let bench = Bench::up();
    provide(&bench.files());
    let next = AtomicUsize::new(0);
    let ended: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    let unhealed: Mutex<Vec<String>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_CASES {
            scope.spawn(|| {
                while let Some((index, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cases.get(i)?)))
                {
                    let outcome = case.run(&bench);
                    let fault = case.heal(&bench, &outcome);
                    unhealed.lock().unwrap_or_else(PoisonError::into_inner).extend(fault);
                    ended
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((index, outcome));
                }
            });
        }
    });
    let mut ended = ended.into_inner().unwrap();
    ended.sort_by_key(|(index, _)| *index);
    let mut faults: Vec<String> = ended
        .iter()
        .flat_map(|(index, outcome)| cases[*index].faults(outcome))
        .collect();
    let waiting: Vec<&str> = cases
        .iter()
        .filter(|case| case.is_open())
        .map(|case| case.name.as_str())
        .collect();
    faults.extend(unhealed.into_inner().unwrap());
    faults.extend(left_behind(&bench, &waiting));
    faults.extend(bench.local.down().err().map(|error| format!("{error:#}")));
    let rows: Vec<(&Case, &Outcome)> = ended.iter().map(|(index, outcome)| (&cases[*index], outcome)).collect();
    faults.extend(table::compare(section, &rows, bench.local.path()));
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// Returns processes of pods that outlive their trainings. Those of the named trainings are allowed.
fn left_behind(bench: &Bench, waiting: &[&str]) -> Option<String> {
    let left = || {
        let mut processes = bench.local.processes();
        processes.retain(|process| {
            let pod = process.pod.as_deref();
            pod.is_some_and(|pod| !waiting.iter().any(|name| pod.starts_with(name)))
        });
        processes
    };
    // The rest of a pod ends a moment after the end of its training is known.
    let gone = until("the processes of ended trainings are gone", || {
        Ok(left().is_empty().then_some(()))
    });
    gone.err().map(|error| format!("{error:#}: {:?}", left()))
}

/// Creates the files of the cases: a git repository, a copy of it whose HEAD names a missing branch, a store, and a
/// file in the place of a directory.
fn provide(files: &Path) {
    let git = |arguments: &[&str]| git(&files.join("repository"), arguments).unwrap();
    let write = |path: &str, content: &str| {
        let path = files.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("repository/train.sh", "exit 0\n");
    write("repository/data/part1", "1,2\n");
    write("store/wine/2026.csv", "1,2\n");
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 4\n",
        "0".repeat(64)
    );
    write("store/lfs/pointer.csv", &pointer);
    write("blocked/file", "");
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "A project"]);
    git(&["clone", "--quiet", "--bare", ".", "../bare"]);
    git(&["--git-dir", "../bare", "symbolic-ref", "HEAD", "refs/heads/missing"]);
}
