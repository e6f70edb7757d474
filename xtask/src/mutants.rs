//! `cargo xtask mutants`: puts small faults into the pure crates, one at a time. A test of the crate must fail for
//! each.
//!
//! [cargo-mutants](https://mutants.rs) makes the faults and runs the tests. This command chooses the sample and
//! compares the survivors with the list of accepted ones.

#![allow(clippy::print_stdout, reason = "a command-line tool reports on stdout")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail, ensure};

use crate::{setup, suites};

/// The pure crates: one test process decides about a mutant, without servers and clocks.
const PACKAGES: [&str; 1] = ["legion-plan"];

/// The accepted survivors, each with its reason.
const ACCEPTED: &str = "xtask/mutants.txt";

/// About as many mutants are in a sample.
const SAMPLE: usize = 5;

/// The least share of mutants that the tests must catch, in percent.
const GOAL: usize = 95;

/// The number of random cases in each property. Few, because they run again for each mutant. Other tests catch more.
const HISTORIES: &str = "20";

/// Which mutants are tested.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// All. Otherwise a sample.
    pub exhaustive: bool,
    /// All of these files only, as globs. Empty: of all files.
    pub files: Vec<String>,
}

/// How often each mutant is in a list, by its name without line and column. Edits elsewhere in a file move lines.
type Counts = BTreeMap<String, usize>;

/// The list of accepted survivors.
#[derive(Debug, Default, PartialEq, Eq)]
struct Accepted {
    mutants: Counts,
    /// Files that a sample leaves out.
    files: Vec<String>,
}

/// What the tests did with the mutants.
#[derive(Debug, Default)]
struct Outcomes {
    caught: usize,
    survived: Counts,
    /// They did not compile.
    unviable: usize,
    /// A test did not end. That is a failure, so they count as caught.
    timeouts: usize,
}

/// Tests mutants and prints what the tests did with them.
///
/// # Errors
/// When the tests fail without a mutant, when the list of accepted survivors is wrong, or when a command cannot be
/// started.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let accepted = parse(&fs::read_to_string(root.join(ACCEPTED)).context(ACCEPTED)?)?;
    let program = setup::cargo_mutants()?;
    let target = suites::target(root).join("mutants");
    fs::create_dir_all(&target)?;
    // Another run with the same directory would replace the tests of this one.
    let lock = File::create(target.join("lock"))?;
    lock.lock().context("the directory of builds cannot be locked")?;

    let all = list(root, &program)?;
    let mut arguments = Vec::new();
    if !options.files.is_empty() {
        arguments.extend(options.files.iter().map(|file| format!("--file={file}")));
    } else if !options.exhaustive {
        let candidates = all.iter().filter(|name| !accepted.leaves_out(name)).count();
        let shares = (candidates / SAMPLE).max(1);
        let seed = suites::seed(root);
        let share = usize::try_from(seed % shares as u64)?;
        println!(
            "LEGION_SEED={seed} chooses one of {shares} shares of {candidates} mutants; {} are in files left out",
            all.len() - candidates
        );
        arguments.extend(accepted.files.iter().map(|file| format!("--exclude={file}")));
        arguments.push(format!("--shard={share}/{shares}"));
        arguments.push("--sharding=round-robin".to_owned());
    }
    test(root, &program, &target, &arguments)?;

    let outcomes = read(&target.join("mutants.out"))?;
    let existing = count(&all);
    ensure!(outcomes.viable() + outcomes.unviable > 0, "no mutant was tested");
    let is_whole = options.exhaustive && options.files.is_empty();
    let faults = faults(&outcomes, &accepted, &existing, is_whole);
    print!("{}", summary(&outcomes));
    for fault in &faults {
        println!("{fault}");
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the names of all mutants of the pure crates.
fn list(root: &Path, program: &Path) -> anyhow::Result<Vec<String>> {
    let output = command(root, program)
        .args(["--list", "--line-col=false"])
        .output()
        .context("cargo-mutants cannot be started")?;
    ensure!(
        output.status.success(),
        "cargo-mutants lists no mutants: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// Runs the tests without a mutant and then with each.
fn test(root: &Path, program: &Path, target: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let status = command(root, program)
        .args(["--colors=never", "--caught", "--output"])
        .arg(target)
        // No documentation tests: none of them decides anything.
        .arg("--cargo-test-arg=--tests")
        .args(arguments)
        // A copy in another directory compiles the same third-party crates. Theirs are found here.
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // clippy would compile each mutant, and judge it.
        .env_remove("LEGION_LINTS")
        // Whether a mutant survives must not depend on chance, or on a mutant before it.
        .env("PROPTEST_RNG_SEED", "1")
        .env("PROPTEST_CASES", HISTORIES)
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .status()
        .context("cargo-mutants cannot be started")?;
    // 2: some survived. 3: a test did not end. https://mutants.rs/exit-codes.html
    match status.code() {
        Some(0 | 2 | 3) => Ok(()),
        Some(4) => bail!("the tests fail without a mutant"),
        _ => bail!("cargo-mutants failed: {status}"),
    }
}

fn command(root: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("mutants").arg("--no-config").current_dir(root);
    command.args(PACKAGES.map(|package| format!("--package={package}")));
    command
}

/// Reads what cargo-mutants wrote: a file for each kind of outcome, a mutant in each line.
fn read(directory: &Path) -> anyhow::Result<Outcomes> {
    let lines = |name: &str| -> anyhow::Result<Vec<String>> {
        let path = directory.join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.lines().map(without_position).collect())
    };
    Ok(Outcomes {
        caught: lines("caught.txt")?.len(),
        survived: count(&lines("missed.txt")?),
        unviable: lines("unviable.txt")?.len(),
        timeouts: lines("timeout.txt")?.len(),
    })
}

/// Returns `FILE: DESCRIPTION` for `FILE:LINE:COLUMN: DESCRIPTION`.
fn without_position(name: &str) -> String {
    let Some((position, description)) = name.split_once(": ") else {
        return name.to_owned();
    };
    let file = position.split(':').next().unwrap_or(position);
    format!("{file}: {description}")
}

fn count(names: &[String]) -> Counts {
    let mut counts = Counts::new();
    for name in names {
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts
}

/// Parses the list of accepted survivors: mutants and files, each in a line, and below them the indented reason.
fn parse(text: &str) -> anyhow::Result<Accepted> {
    let mut accepted = Accepted::default();
    let mut without_reason = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with(' ') {
            without_reason = None;
        } else if line.is_empty() {
            ensure_reason(without_reason)?;
        } else {
            if line.contains(": ") {
                *accepted.mutants.entry(line.to_owned()).or_default() += 1;
            } else {
                accepted.files.push(line.to_owned());
            }
            without_reason = Some(line);
        }
    }
    ensure_reason(without_reason)?;
    Ok(accepted)
}

impl Accepted {
    fn leaves_out(&self, name: &str) -> bool {
        let file = name.split(": ").next();
        file.is_some_and(|file| self.files.iter().any(|left_out| left_out == file))
    }
}

fn ensure_reason(without_reason: Option<&str>) -> anyhow::Result<()> {
    match without_reason {
        Some(entry) => bail!("{ACCEPTED}: write the reason below `{entry}`, indented"),
        None => Ok(()),
    }
}

/// Returns what is wrong, each as a line with its remedy.
fn faults(outcomes: &Outcomes, accepted: &Accepted, existing: &Counts, is_whole: bool) -> Vec<String> {
    let of = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or_default();
    let mut faults = Vec::new();
    for (name, times) in &outcomes.survived {
        if *times > of(&accepted.mutants, name) {
            faults.push(format!(
                "survived: {name}\n  assert what it changes, remove code without effect, or accept it with a reason in \
                 {ACCEPTED}"
            ));
        }
    }
    for (name, times) in &accepted.mutants {
        if *times > of(existing, name) {
            faults.push(format!("no longer a mutant: {name}\n  remove it from {ACCEPTED}"));
        } else if is_whole && *times > of(&outcomes.survived, name) {
            faults.push(format!("caught: {name}\n  remove it from {ACCEPTED}"));
        }
    }
    for file in &accepted.files {
        if !existing.keys().any(|name| name.starts_with(&format!("{file}: "))) {
            faults.push(format!("no mutants are in {file}\n  remove it from {ACCEPTED}"));
        }
    }
    let (caught, viable) = (outcomes.caught + outcomes.timeouts, outcomes.viable());
    if is_whole && caught * 100 < viable * GOAL {
        faults.push(format!(
            "the tests caught {caught} of {viable} mutants, less than {GOAL} %"
        ));
    }
    faults
}

impl Outcomes {
    fn viable(&self) -> usize {
        self.caught + self.timeouts + self.survived.values().sum::<usize>()
    }
}

fn summary(outcomes: &Outcomes) -> String {
    let mut text = format!(
        "\nmutants: {} caught; {} survived; {} timeouts; {} unviable",
        outcomes.caught,
        outcomes.survived.values().sum::<usize>(),
        outcomes.timeouts,
        outcomes.unviable
    );
    let caught = outcomes.caught + outcomes.timeouts;
    if let Some(tenths) = (caught * 1000).checked_div(outcomes.viable()) {
        let _ = write!(text, "; {}.{} % of viable ones caught", tenths / 10, tenths % 10);
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUS: &str = "crates/a/src/lib.rs: replace + with - in sum";
    const TRUE: &str = "crates/a/src/b.rs: replace is -> bool with true";

    fn counts(names: &[&str]) -> Counts {
        count(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn accepted(names: &[&str]) -> Accepted {
        Accepted {
            mutants: counts(names),
            files: Vec::new(),
        }
    }

    fn outcomes(caught: usize, survived: &[&str]) -> Outcomes {
        Outcomes {
            caught,
            survived: counts(survived),
            ..Outcomes::default()
        }
    }

    #[test]
    fn a_survivor_is_known_by_file_and_description() {
        let name = "crates/a/src/lib.rs:12:7: replace + with - in sum";
        assert_eq!(without_position(name), PLUS);
        assert_eq!(
            without_position("crates/a/src/lib.rs:1:2: replace S::f -> X with Default::default()"),
            "crates/a/src/lib.rs: replace S::f -> X with Default::default()"
        );
    }

    #[test]
    fn accepted_survivors_need_a_reason() {
        let text = format!("# A comment.\n\n{PLUS}\n{TRUE}\n    The reason of both.\n\n{PLUS}\n    Another one.\n");
        assert_eq!(parse(&text).unwrap(), accepted(&[PLUS, PLUS, TRUE]));
        for text in [format!("{PLUS}\n"), format!("{PLUS}\n\n{TRUE}\n    Why.\n")] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(PLUS) && error.contains("reason"), "{error}");
        }
    }

    #[test]
    fn a_file_is_left_out_of_samples_as_long_as_it_has_mutants() {
        let accepted = parse("crates/a/src/b.rs\n    It is not examined yet.\n").unwrap();
        assert!(accepted.leaves_out(TRUE) && !accepted.leaves_out(PLUS));
        assert!(faults(&outcomes(1, &[]), &accepted, &counts(&[TRUE]), true).is_empty());
        let found = faults(&outcomes(1, &[]), &accepted, &counts(&[PLUS]), false);
        assert!(found.len() == 1 && found[0].contains("crates/a/src/b.rs"), "{found:?}");
        // Its survivors are faults of the whole run.
        assert_eq!(
            faults(&outcomes(99, &[TRUE]), &accepted, &counts(&[TRUE]), true).len(),
            1
        );
    }

    #[test]
    fn a_survivor_that_is_not_accepted_is_a_fault_in_a_sample_too() {
        let existing = counts(&[PLUS, PLUS, TRUE]);
        for whole in [false, true] {
            assert!(faults(&outcomes(99, &[PLUS]), &accepted(&[PLUS]), &existing, whole).is_empty());
            // One of two with the same description was accepted.
            let found = faults(&outcomes(99, &[PLUS, PLUS]), &accepted(&[PLUS]), &existing, whole);
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("survived: {PLUS}")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn an_accepted_mutant_must_exist_and_survive() {
        let gone = faults(&outcomes(9, &[]), &accepted(&[PLUS]), &counts(&[TRUE]), false);
        assert!(gone.len() == 1 && gone[0].starts_with("no longer a mutant"), "{gone:?}");
        // A sample leaves mutants out.
        assert!(faults(&outcomes(9, &[]), &accepted(&[PLUS]), &counts(&[PLUS]), false).is_empty());
        let caught = faults(&outcomes(9, &[]), &accepted(&[PLUS]), &counts(&[PLUS]), true);
        assert!(caught.len() == 1 && caught[0].starts_with("caught"), "{caught:?}");
    }

    #[test]
    fn the_whole_run_must_reach_the_goal() {
        let (accepted, existing) = (accepted(&[PLUS]), counts(&[PLUS]));
        assert!(faults(&outcomes(19, &[PLUS]), &accepted, &existing, true).is_empty());
        let below = outcomes(18, &[PLUS]);
        assert!(faults(&below, &accepted, &existing, false).is_empty());
        let found = faults(&below, &accepted, &existing, true);
        assert!(found.len() == 1 && found[0].contains("18 of 19"), "{found:?}");
        assert!(summary(&below).contains("; 94.7 % of"), "{}", summary(&below));
        // A test that does not end has caught its mutant.
        let timeouts = Outcomes { timeouts: 1, ..below };
        assert!(faults(&timeouts, &accepted, &existing, true).is_empty());
    }
}
