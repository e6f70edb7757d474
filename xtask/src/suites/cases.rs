//! `cargo xtask test --cases`: runs the tests that `docs/reference/cases.md` names, and prints a line for each case.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, bail};

use super::{output::Output, run::Runner};

/// The page that lists the cases.
pub const PAGE: &str = "docs/reference/cases.md";

/// Where a test belongs. Its first word in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// A unit test of a crate.
    Lib,
    /// A test in a crate's `tests/it`.
    It,
    /// A test of `tests/legionctl`.
    Legionctl,
    /// A row of the table of bad input.
    BadInput,
    /// A case of `legionctl toolchain test`, with the name of the toolchain before it.
    Toolchain,
    /// A test of the MLflow toolchain.
    Mlflow,
    /// A test on a real control plane. This command does not run it.
    HighAvailability,
}

impl Suite {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "lib" => Self::Lib,
            "it" => Self::It,
            "legionctl" => Self::Legionctl,
            "bad_input" => Self::BadInput,
            "toolchain" => Self::Toolchain,
            "mlflow" => Self::Mlflow,
            "high_availability" => Self::HighAvailability,
            _ => return None,
        })
    }
}

/// A test of a case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    /// Where it belongs.
    pub suite: Suite,
    /// Its name there.
    pub name: String,
}

/// A row of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What was tried.
    pub what: String,
    /// The tests that assert the right result.
    pub tests: Vec<Test>,
}

/// Reads the cases of the page.
///
/// # Errors
/// When a row has no test, or a test without a known suite.
pub fn cases(page: &str) -> anyhow::Result<Vec<Case>> {
    let mut in_table = false;
    let mut cases = Vec::new();
    for line in page.lines() {
        if line.starts_with("| case |") {
            in_table = true;
        } else if !line.starts_with('|') {
            in_table = false;
        } else if in_table && !line.starts_with("|---") {
            cases.push(case(line)?);
        }
    }
    Ok(cases)
}

fn case(line: &str) -> anyhow::Result<Case> {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [what, _, tests] = cells[..] else {
        bail!("{PAGE}: not a row of three cells: {line}");
    };
    let tests: Vec<Test> = tests
        .split('`')
        .skip(1)
        .step_by(2)
        .map(test)
        .collect::<anyhow::Result<_>>()?;
    if tests.is_empty() {
        bail!("{PAGE}: no test for {what:?}");
    }
    Ok(Case {
        what: what.to_owned(),
        tests,
    })
}

fn test(text: &str) -> anyhow::Result<Test> {
    let (suite, name) = text.split_once(' ').unwrap_or((text, ""));
    let suite = Suite::of(suite).filter(|_| !name.is_empty());
    Ok(Test {
        suite: suite.with_context(|| format!("{PAGE}: {text:?} is no suite and a name"))?,
        name: name.to_owned(),
    })
}

/// Runs the tests of all cases. Returns whether every case has passed.
pub(super) fn run(root: &Path, runner: &Runner) -> anyhow::Result<bool> {
    let page = fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let cases = cases(&page)?;
    let mut names: BTreeMap<Suite, BTreeSet<&str>> = BTreeMap::new();
    for test in cases.iter().flat_map(|case| &case.tests) {
        names.entry(test.suite).or_default().insert(&test.name);
    }
    let mut ran = Ran::default();
    for (suite, names) in &names {
        for command in commands(*suite, names) {
            let output = Output::buffered()?;
            println!("$ {}", command.join(" "));
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let succeeded = runner.execute(&command, &output)?;
            let text = output.content()?;
            if !succeeded {
                println!("{text}");
            }
            ran.read(*suite, &command, &text, succeeded);
        }
    }
    println!();
    let mut all = true;
    for case in &cases {
        let missing: Vec<String> = case.tests.iter().filter_map(|test| ran.fault(test)).collect();
        let result = if missing.is_empty() { "ok" } else { "FAILED" };
        println!("{result:<6}  {}", case.what);
        for fault in &missing {
            println!("        {fault}");
        }
        all &= missing.is_empty();
    }
    let tests: usize = names.values().map(BTreeSet::len).sum();
    println!("\n{} cases with {tests} tests", cases.len());
    if let Some(others) = names.get(&Suite::HighAvailability) {
        println!(
            "{} of the tests need a real control plane: cargo xtask test --kubernetes",
            others.len()
        );
    }
    Ok(all)
}

/// Returns the commands that run these tests.
fn commands(suite: Suite, names: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let with_names = |text: &str| -> Vec<Vec<String>> {
        let names = names.iter().map(|name| (*name).to_owned());
        vec![words(text).into_iter().chain(names).collect()]
    };
    match suite {
        Suite::Lib => with_names("cargo test --lib --bins --no-fail-fast --"),
        // Those that need a server are ignored otherwise.
        Suite::It => with_names("cargo test --test it --no-fail-fast -- --include-ignored"),
        Suite::Legionctl => with_names("cargo test --test legionctl --no-fail-fast --"),
        Suite::BadInput => vec![words("cargo test --test bad_input --no-fail-fast")],
        Suite::Toolchain => {
            let toolchains: BTreeSet<&str> = names.iter().filter_map(|name| Some(name.split_once('/')?.0)).collect();
            let command =
                |toolchain| format!("cargo run --quiet --bin legionctl -- toolchain test toolchains/{toolchain}");
            toolchains.into_iter().map(|name| words(&command(name))).collect()
        }
        Suite::Mlflow => {
            let files = names.iter().map(|name| format!("tests/{name}"));
            vec![words("toolchains/mlflow/test -v").into_iter().chain(files).collect()]
        }
        Suite::HighAvailability => Vec::new(),
    }
}

/// What ran, by suite: names of tests, and whether they passed.
#[derive(Default)]
struct Ran {
    passed: BTreeMap<Suite, BTreeSet<String>>,
    failed: BTreeMap<Suite, BTreeSet<String>>,
}

impl Ran {
    /// Reads the results from the output of a command.
    fn read(&mut self, suite: Suite, command: &[&str], output: &str, succeeded: bool) {
        let toolchain = command
            .last()
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default();
        for line in output.lines() {
            let result = match suite {
                Suite::Toolchain => line.strip_prefix("case ").and_then(|rest| {
                    let (name, result) = rest.split_once(" ... ")?;
                    Some((format!("{toolchain}/{name}"), result.starts_with("ok")))
                }),
                // A parameter of a test may hold spaces.
                Suite::Mlflow => line.strip_prefix("tests/").and_then(|rest| {
                    let name = rest.split(['[', ' ']).next()?;
                    let has = |word: &str| rest.contains(word);
                    let passed = has(" PASSED");
                    (passed || has(" FAILED") || has(" ERROR")).then(|| (name.to_owned(), passed))
                }),
                _ => line.strip_prefix("test ").and_then(|rest| {
                    let (name, result) = rest.split_once(" ... ")?;
                    ["ok", "FAILED"]
                        .contains(&result)
                        .then(|| (name.to_owned(), result == "ok"))
                }),
            };
            if let Some((name, passed)) = result {
                let names = if passed { &mut self.passed } else { &mut self.failed };
                names.entry(suite).or_default().insert(name);
            }
        }
        // The rows of this suite are not tests of their own.
        if suite == Suite::BadInput && !succeeded {
            self.failed.entry(suite).or_default().insert("bad_input".to_owned());
        }
    }

    /// Returns what is wrong with a test, if it did not pass.
    fn fault(&self, test: &Test) -> Option<String> {
        let any = |results: &BTreeMap<Suite, BTreeSet<String>>| {
            let names = results.get(&test.suite).into_iter().flatten();
            names.into_iter().any(|name| is_of(name, &test.name))
        };
        let has = |results: &BTreeMap<Suite, BTreeSet<String>>| {
            results.get(&test.suite).is_some_and(|names| !names.is_empty())
        };
        let name = &test.name;
        match test.suite {
            Suite::HighAvailability => None,
            Suite::BadInput if has(&self.failed) || !has(&self.passed) => Some(format!("the suite failed: {name}")),
            Suite::BadInput => None,
            _ if any(&self.failed) => Some(format!("failed: {name}")),
            _ if any(&self.passed) => None,
            _ => Some(format!("did not run: {name}")),
        }
    }
}

/// Returns whether a test that ran is the named one, in any module and with any parameters.
fn is_of(ran: &str, name: &str) -> bool {
    ran == name || ran.split("::").any(|part| part == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_tests() {
        let page = "| case | what happens | tests |\n|---|---|---|\n| a `b` | c | `lib d` `mlflow e.py::f` |\n\n| x | y | z |\n";
        let found = cases(page).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "a `b`");
        let tests: Vec<_> = found[0].tests.iter().map(|t| (t.suite, t.name.as_str())).collect();
        assert_eq!(tests, [(Suite::Lib, "d"), (Suite::Mlflow, "e.py::f")]);
        for wrong in [
            "| a | b | |",
            "| a | b | `lib` |",
            "| a | b | `other c` |",
            "| a | `lib c` |",
        ] {
            assert!(
                cases(&format!("| case | x | y |\n|---|---|---|\n{wrong}\n")).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_did_not_run_or_failed_is_a_fault() {
        let mut ran = Ran::default();
        ran.read(
            Suite::It,
            &[],
            "test git::a ... ok\ntest git::b ... FAILED\ntest s3::c ... ignored\n",
            false,
        );
        ran.read(Suite::It, &[], "test rules::d::case_1 ... ok\n", true);
        ran.read(
            Suite::Toolchain,
            &["test", "toolchains/script"],
            "case e ... ok (0.1 s)\n",
            true,
        );
        ran.read(
            Suite::Mlflow,
            &[],
            "tests/x.py::f[1 a] PASSED [ 3%]\ntests/x.py::g SKIPPED [ 3%]\n",
            true,
        );
        let fault = |suite, name: &str| {
            ran.fault(&Test {
                suite,
                name: name.to_owned(),
            })
        };
        for (suite, passed) in [
            (Suite::It, "a"),
            (Suite::It, "d"),
            (Suite::Toolchain, "script/e"),
            (Suite::Mlflow, "x.py::f"),
        ] {
            assert_eq!(fault(suite, passed), None);
        }
        assert_eq!(fault(Suite::It, "b").unwrap(), "failed: b");
        for (suite, absent) in [
            (Suite::It, "c"),
            (Suite::Lib, "a"),
            (Suite::Mlflow, "x.py::g"),
            (Suite::Toolchain, "mlflow/e"),
        ] {
            assert_eq!(fault(suite, absent).unwrap(), format!("did not run: {absent}"));
        }
        assert!(fault(Suite::BadInput, "row").is_some(), "the suite did not run");
    }
}
