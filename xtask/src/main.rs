//! Entry point of `cargo xtask`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool reports on stdout and stderr"
)]

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{self, ExitCode},
};

use clap::{Args, Parser, Subcommand};
use xtask::{
    bench, mutants, setup,
    suites::{Choice, Options, is_ci},
};

/// The developer commands of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the generated files: CRDs, reference docs, JSON Schemas, examples.
    #[command(disable_help_flag = true)]
    Gen(Forwarded),
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
        /// The tests of the cases that were found by use, with a line for each case: docs/reference/cases.md.
        #[arg(long, group = "tiers")]
        cases: bool,
        /// Runs exhaustive tests whole: every fault, every version, every moment. Otherwise they run a sample.
        #[arg(long)]
        exhaustive: bool,
        /// Fails when a tier cannot run or takes far longer than its budget. The default if CI=true.
        #[arg(long)]
        require_all: bool,
    },
    /// Checks what the tests need besides Rust, and installs what is missing on Debian and Ubuntu.
    Setup {
        /// Fails when something is missing. The default if CI=true.
        #[arg(long)]
        require_all: bool,
    },
    /// Puts small faults into the pure crates, one at a time. A test must fail for each.
    Mutants {
        /// All mutants. Otherwise a sample.
        #[arg(long, env = "LEGION_EXHAUSTIVE")]
        exhaustive: bool,
        /// All mutants of this file or glob only.
        #[arg(long, value_name = "FILE", conflicts_with = "exhaustive")]
        file: Vec<String>,
    },
    /// Prints figures about the code and the pages, to compare two states of the repository.
    Measure {
        /// The checkout to measure. Default: this one.
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Measures beside other programs.
    Bench {
        /// What is measured.
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Builds the images with Buildah and prints their sizes.
    #[command(disable_help_flag = true)]
    Image(Forwarded),
    /// A complete Kubernetes on this machine, for tests.
    #[command(disable_help_flag = true)]
    Cluster(Forwarded),
}

/// Arguments for another program.
#[derive(Args)]
struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
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
        Command::Gen(_) => forward("legion-generators", 2, None),
        // Everything that is missing, before anything is compiled.
        Command::Image(_) => {
            setup::require(setup::IMAGES)?;
            forward("legion-cluster", 1, None)
        }
        Command::Cluster(Forwarded { arguments }) => {
            let has = |argument: &str| arguments.iter().any(|given| given == argument);
            let is = |action: &str| arguments.first().is_some_and(|given| given == action);
            let has_cluster = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
            if is("up") && !has("--help") && !has_cluster {
                setup::require(if has("--control-plane") {
                    setup::CONTROL_PLANE
                } else {
                    setup::NODE
                })?;
            }
            // These two build Go programs.
            let go = if is("up") || is("tool") {
                setup::cached_go()
            } else {
                None
            };
            forward("legion-cluster", 1, go)
        }
        Command::Measure { root: other } => {
            xtask::measure::run(&other.unwrap_or(root))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench { bench } => bench::run(&root, &bench),
        Command::Mutants { exhaustive, file } => {
            let options = mutants::Options {
                exhaustive,
                files: file,
            };
            mutants::run(&root, &options)
        }
        Command::Setup { require_all } => setup::act(require_all || is_ci()),
        Command::Test {
            fast,
            embedded,
            kubernetes,
            cases,
            exhaustive,
            require_all,
        } => {
            let choice = match (fast, embedded, kubernetes, cases) {
                (true, ..) => Choice::Fast,
                (_, true, ..) => Choice::Embedded,
                (_, _, true, _) => Choice::Kubernetes,
                (.., true) => Choice::Cases,
                _ => Choice::All,
            };
            let options = Options {
                choice,
                exhaustive,
                strict: require_all || is_ci(),
            };
            xtask::suites::run(&root, options)
        }
    }
}

/// Becomes `cargo run` of another program of the repository, with the arguments of this one as they were given. `go` is
/// a directory for `PATH`.
fn forward(program: &str, skipped: usize, go: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = xtask::repository().join("Cargo.toml");
    let mut command = process::Command::new(cargo);
    if let Some(path) = go.and_then(|go| setup::path_with(&[go])) {
        command.env("PATH", path);
    }
    let error = command
        .args(["run", "--quiet", "--manifest-path"])
        .arg(manifest)
        .args(["--bin", program, "--"])
        .args(std::env::args_os().skip(skipped))
        .exec();
    Err(error.into())
}
