//! The program behind `cargo xtask gen`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool reports on stdout and stderr"
)]

use std::process::ExitCode;

use clap::Parser;

/// Writes the generated files: CRDs, reference docs, JSON Schemas, examples, parts of the charts.
#[derive(Parser)]
#[command(name = "cargo xtask gen", bin_name = "cargo xtask gen")]
struct Cli {
    /// Writes nothing. Fails with a diff when a file is out of date.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    run(Cli::parse().check).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(check: bool) -> anyhow::Result<ExitCode> {
    let drift = legion_generators::run(&xtask::repository(), !check)?;
    for entry in &drift {
        println!("{entry}");
    }
    if check && !drift.is_empty() {
        println!("{} file(s) are out of date: run `cargo xtask gen`", drift.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
