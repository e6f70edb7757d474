//! The command line's grammar. `docs/reference/legionctl.md` and the shell completions are generated from it.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

/// Trains models from manifests: on this machine without a cluster, or on any Kubernetes with Legion's operator.
#[derive(Debug, Parser)]
#[command(name = "legionctl", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done, 1 the training failed, 2 wrong command line or manifest, 3 not found or \
    unreachable, 4 timed out, 5 other, 130 interrupted."
)]
pub(crate) struct Cli {
    /// Settings that every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Settings that every command takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Kubeconfig of the API to talk to; else that of --data-dir where it is up, else $KUBECONFIG, else that of the
    /// local mode's own directory where it is up, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace; else the context's own.
    #[arg(long, short, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Where the local mode keeps everything; else $XDG_DATA_HOME/legion, else ~/.local/share/legion.
    #[arg(long, global = true, env = "LEGION_DATA_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs Legion on this machine, without a cluster.
    #[command(subcommand)]
    Local(Local),
    /// Checks manifests as the API server would, without one.
    Validate(Validate),
    /// Shows trainings, toolchains and connections.
    Get(Get),
    /// Prints the log of a training; also when its pod is gone.
    Logs(Logs),
    /// Waits until trainings have ended.
    Wait(Wait),
    /// Asks for a new run of the same spec.
    Rerun(Rerun),
    /// Works with toolchains.
    #[command(subcommand)]
    Toolchain(Toolchain),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `legionctl local`.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Starts the API and the operator; stays in the foreground until Ctrl-C or `local down`.
    Up(Up),
    /// Trains: starts what is needed, applies the file, follows the training and prints its result.
    Run(Run),
    /// Says whether it is up, and where things are.
    Status {
        /// How to print it.
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Stops it. Trainings that run are interrupted and go on after the next start.
    Down,
}

/// `legionctl local up`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Up {
    /// Goes to the background and returns when everything is ready.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Loopback port of the API; else the one used before, else any free one.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Set by `--detach` for the process in the background: leave the terminal's session.
    #[arg(long, hide = true)]
    pub(crate) session: bool,
}

/// `legionctl local run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Manifest, applied in its order; `-` is standard input.
    #[arg(long = "file", short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Trains with the files of this directory instead of the manifest's source: for the inner loop of editing.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: Option<PathBuf>,
    /// How to print the training at the end; the progress goes to standard error.
    #[arg(long, short, value_enum, default_value_t = Format::Report)]
    pub(crate) output: Format,
    /// Gives up waiting after this long; the training goes on where `local up` runs.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Prints no log lines of the training.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// `legionctl validate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Validate {
    /// Manifests of one or more documents; `-` is standard input.
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// How to print what is wrong.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// `legionctl get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Get {
    /// What to show: trainings (mt), toolchains (ti), connections (conn); everything without it.
    #[arg(value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// One object only.
    #[arg(value_name = "NAME", requires = "kind")]
    pub(crate) name: Option<String>,
    /// Objects of every namespace.
    #[arg(long, short = 'A', conflicts_with = "name")]
    pub(crate) all_namespaces: bool,
    /// Only objects with these labels.
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "name")]
    pub(crate) selector: Option<String>,
    /// How to print them; `report` shows one training with metrics and plots.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// `legionctl logs`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Logs {
    /// Name of the training.
    pub(crate) name: String,
    /// Goes on until the training has ended, over its attempts.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Which step: trainer, fetch or publish. The steps beside the trainer are there as long as the pod is.
    #[arg(long, short, default_value = "trainer", value_parser = ["trainer", "fetch", "publish"])]
    pub(crate) container: String,
    /// Only this many lines from the end.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) tail: Option<i64>,
}

/// `legionctl wait`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wait {
    /// Names of trainings.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Gives up after this long.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How to print the trainings at the end.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// `legionctl rerun`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rerun {
    /// Name of the training.
    pub(crate) name: String,
    /// The text for `spec.trigger`; else the current time.
    #[arg(long, value_name = "TEXT")]
    pub(crate) trigger: Option<String>,
}

/// `legionctl toolchain`.
#[derive(Debug, Subcommand)]
pub(crate) enum Toolchain {
    /// Runs the conformance cases of the toolchain protocol against a toolchain, without operator or cluster.
    Test {
        /// Directory of the toolchain: it holds toolchain.yaml.
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// Only the cases whose names contain this.
        #[arg(long, value_name = "TEXT")]
        case: Option<String>,
        /// How many cases run at once; as many as there are processors without it.
        #[arg(long, value_name = "N")]
        jobs: Option<NonZeroUsize>,
    },
    /// Checks a model directory against GPPI v1; prints every problem.
    ValidateModel {
        /// Directory of the model: it holds legion.model.yaml.
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    Table,
    /// One training in full, with a metrics table and a plot per series.
    Report,
    /// JSON: the whole object, and nothing else on standard output.
    Json,
    /// YAML: the whole object, and nothing else on standard output.
    Yaml,
}

/// A duration as manifests write it: `90s`, `15m`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<legion_api::duration::Span>()
        .map(legion_api::duration::Span::get)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_those_of_manifests() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("soon").is_err());
    }
}
