//! Entry point of `cargo xtask`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks through them"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::suites::Choice;

/// Generators and checks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the generated files: CRDs, reference docs, JSON Schemas, examples.
    Gen {
        /// Writes nothing; fails with a diff when a file is out of date.
        #[arg(long)]
        check: bool,
    },
    /// Runs all tests, the fast tiers first, and prints what each tier took.
    Test {
        /// The fast tiers only: no MLflow, no kubectl, no binaries under test.
        #[arg(long, group = "tiers")]
        fast: bool,
        /// Without the tiers in real clusters, which need root.
        #[arg(long, group = "tiers")]
        embedded: bool,
        /// The tiers in real clusters only: conformance, charts, acceptance, failures, high availability.
        #[arg(long, group = "tiers")]
        kubernetes: bool,
    },
    /// Prints figures about the code and the docs: lines, functions, circles, public items, prose.
    Measure {
        /// Another checkout of this repository.
        #[arg(long, value_name = "DIR")]
        root: Option<std::path::PathBuf>,
    },
    /// Builds the images with Buildah and prints their sizes.
    Image(xtask::image::Options),
    /// A complete Kubernetes on this machine, for tests.
    Cluster {
        #[command(subcommand)]
        action: xtask::cluster::Action,
    },
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        // A person reads it: what happened and why, no stack.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let root = xtask::repository();
    match Cli::parse().command {
        Command::Gen { check } => {
            let drift = xtask::generate::run(&root, !check)?;
            for entry in &drift {
                println!("{entry}");
            }
            if check && !drift.is_empty() {
                println!("{} file(s) are out of date: run `cargo xtask gen`", drift.len());
                return Ok(ExitCode::FAILURE);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Test {
            fast,
            embedded,
            kubernetes,
        } => {
            let choice = match (fast, embedded, kubernetes) {
                (true, _, _) => Choice::Fast,
                (_, true, _) => Choice::Embedded,
                (_, _, true) => Choice::Kubernetes,
                _ => Choice::All,
            };
            xtask::suites::run(&root, choice)
        }
        Command::Measure { root: other } => {
            xtask::measure::run(&other.unwrap_or(root))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Image(options) => xtask::image::run(&root, &options),
        Command::Cluster { action } => xtask::cluster::act(&root, action),
    }
}
