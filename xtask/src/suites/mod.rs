//! `cargo xtask test`: all tests, the fast tiers first, each with its time and its budget.
//!
//! Exhaustive tests run a sample that changes with the commit, unless `--exhaustive` is given. They read the seed from
//! `LEGION_SEED` and print what the sample leaves out.

#![allow(clippy::print_stdout, reason = "a command-line tool reports on stdout")]

pub mod cases;
mod output;
mod run;
mod tiers;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use run::{Lane, Runner};
use tiers::{COMPILATION, FAST, ON_A_CONTROL_PLANE, ON_A_NODE, SLOW, Tier};

use crate::setup;

/// Which tiers are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All.
    All,
    /// All that need no real cluster.
    Embedded,
    /// Those that need nothing besides Rust.
    Fast,
    /// Those in a real cluster.
    Kubernetes,
    /// No tiers, but the tests that the page of cases names.
    Cases,
}

/// How the tiers are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which tiers.
    pub choice: Choice,
    /// Whether exhaustive tests run whole.
    pub exhaustive: bool,
    /// Whether a tier that is left out, or that takes far longer than its budget, is a failure.
    pub strict: bool,
}

/// Returns whether this runs in CI: `CI=true`.
#[must_use]
pub fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Prepares the machine, runs the tiers and prints what each took. Every tier that can run does, also after a failure.
///
/// # Errors
/// When a command cannot be started.
pub fn run(root: &Path, options: Options) -> anyhow::Result<ExitCode> {
    // The fast tiers run alone first. Then the tiers that compute run beside the one that mostly waits for its cluster.
    // The tier that measures runs alone again.
    let phases: &[&[Lane<'static>]] = match options.choice {
        Choice::All => &[&[&[&FAST]], &[&[&SLOW], &[&ON_A_NODE]], &[&[&ON_A_CONTROL_PLANE]]],
        Choice::Embedded => &[&[&[&FAST, &SLOW]]],
        Choice::Fast => &[&[&[&FAST]]],
        Choice::Kubernetes => &[&[&[&ON_A_NODE]], &[&[&ON_A_CONTROL_PLANE]]],
        Choice::Cases => &[],
    };
    let tiers: Vec<&Tier> = run::tiers_of(phases).collect();
    let mut needs: Vec<setup::Need> = tiers.iter().flat_map(|tier| tier.needs).copied().collect();
    if options.choice == Choice::Cases {
        needs.extend(setup::SERVERS);
    }
    let tools = setup::run(&needs)?;

    let mut environment: Vec<(&str, Option<OsString>)> = vec![
        ("PATH", setup::path_with(&tools)),
        // The error of a test says where it failed. Beside it, a backtrace only hides the others' errors.
        ("RUST_BACKTRACE", None),
    ];
    if options.exhaustive {
        println!("\nexhaustive tests run whole");
        environment.push(("LEGION_SEED", None));
        environment.push(("LEGION_EXHAUSTIVE", Some("true".into())));
    } else {
        let seed = seed(root);
        println!("\nexhaustive tests run a sample: LEGION_SEED={seed} repeats it, --exhaustive runs them whole");
        environment.push(("LEGION_SEED", Some(seed.to_string().into())));
    }
    let runner = Runner {
        root: root.to_owned(),
        target: target(root),
        environment,
        strict: options.strict,
    };
    let passed = match options.choice {
        Choice::Cases => cases::run(root, &runner)?,
        _ => runner.run(&COMPILATION, phases)?,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the seed of the samples: `LEGION_SEED`, or the first digits of the commit.
pub(crate) fn seed(root: &Path) -> u64 {
    if let Some(seed) = env::var("LEGION_SEED").ok().and_then(|text| text.parse().ok()) {
        return seed;
    }
    let commit = process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(root)
        .output();
    let commit = commit.map(|output| output.stdout).unwrap_or_default();
    let digits = String::from_utf8_lossy(&commit).chars().take(8).collect::<String>();
    u64::from_str_radix(&digits, 16).unwrap_or_default()
}

/// Returns the directory of builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target))
}
