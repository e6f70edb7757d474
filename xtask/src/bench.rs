//! `cargo xtask bench`: measurements that compare with other programs.
//!
//! The harness of the model server is in Python (`benchmarks/serving`), because most of what it starts is. This module
//! builds what it needs.

#![allow(clippy::print_stdout, reason = "a command-line tool reports on stdout")]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};

use crate::{setup, suites};

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Measures legion-server beside other servers of the same models, and prints tables and goals.
    Serving(Serving),
}

/// Which part of the measurement runs.
#[derive(Args)]
pub struct Serving {
    /// A minute or two: one short round of legion-server and FastAPI with one model. Its figures say little.
    #[arg(long)]
    quick: bool,
    /// Repetitions of each figure. Default: 5.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Seconds of a repetition. Default: 4.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Only these servers, such as mlflow,fastapi,legion.
    #[arg(long, value_name = "NAMES")]
    peers: Option<String>,
    /// Only these models: sklearn, xgboost.
    #[arg(long, value_name = "NAMES")]
    models: Option<String>,
    /// Directory of results.md, results.json and the logs. Default: bench/serving in the target directory.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Writes the tables into docs/reports/serving.md, too.
    #[arg(long)]
    report: bool,
}

/// Builds the servers and runs the measurement.
///
/// # Errors
/// When something is missing that cannot be installed, or a command cannot be started.
pub fn run(root: &Path, bench: &Bench) -> anyhow::Result<ExitCode> {
    let Bench::Serving(serving) = bench;
    let directories = setup::run(setup::BENCHMARKS)?;
    setup::require(setup::BENCHMARKS)?;
    let python = setup::python().context("Python is missing")?;
    build(root)?;
    let target = suites::target(root);
    let release = target.join("release");
    let output = serving.output.clone().unwrap_or_else(|| target.join("bench/serving"));
    let mut command = Command::new(python);
    command
        .arg(root.join("benchmarks/serving"))
        .args(serving.arguments(root))
        .arg("--output")
        .arg(&output)
        .arg("--legion-server")
        .arg(release.join("legion-server"))
        .arg("--echo")
        .arg(release.join("examples/echo"));
    if let Some(path) = setup::path_with(&directories) {
        command.env("PATH", path);
    }
    let status = command.status().context("Python cannot be started")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds legion-server as it is shipped, and the bare server beside which its front is measured.
fn build(root: &Path) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--package", "legion-server"])
        .args(["--bin", "legion-server", "--example", "echo"])
        .current_dir(root)
        // clippy would compile it.
        .env_remove("LEGION_LINTS")
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "legion-server cannot be built: {status}");
    Ok(())
}

impl Serving {
    /// Returns the arguments for the harness.
    fn arguments(&self, root: &Path) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        if self.quick {
            arguments.push("--quick".to_owned());
        }
        let options = [
            ("--rounds", self.rounds.map(|number| number.to_string())),
            ("--seconds", self.seconds.map(|number| number.to_string())),
            ("--peers", self.peers.clone()),
            ("--models", self.models.clone()),
            (
                "--page",
                self.report
                    .then(|| root.join("docs/reports/serving.md").display().to_string()),
            ),
        ];
        for (name, value) in options {
            arguments.extend(value.map(|value| format!("{name}={value}")));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_options_are_passed_on() {
        let serving = Serving {
            quick: true,
            rounds: None,
            seconds: Some(2),
            peers: Some("legion".to_owned()),
            models: None,
            output: None,
            report: true,
        };
        let page = "--page=/r/docs/reports/serving.md";
        let expected = ["--quick", "--seconds=2", "--peers=legion", page];
        assert_eq!(serving.arguments(Path::new("/r")), expected);
    }
}
