//! The arguments of the command line. `docs/reference/legionctl.md` and the shell completions are generated from them.

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
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Kubeconfig to use. Default: the one of --data-dir if its local API is up, then $KUBECONFIG, then the one of the
    /// default data directory if its local API is up, then ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace to use. Default: the namespace of the context.
    #[arg(long, short, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Data directory of the local mode. Default: $XDG_DATA_HOME/legion, then ~/.local/share/legion.
    #[arg(long, global = true, env = "LEGION_DATA_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Commands of `legionctl`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs Legion on this machine, without a cluster.
    #[command(subcommand)]
    Local(Local),
    /// Checks manifests like the API server does, but needs no API server.
    Validate(Validate),
    /// Shows trainings, toolchains and connections.
    Get(Get),
    /// Prints the log of a training, also after its pod was deleted.
    Logs(Logs),
    /// Waits until trainings have ended.
    Wait(Wait),
    /// Requests a new run of the same spec.
    Rerun(Rerun),
    /// Serves, tries and checks trained models on this machine.
    #[command(subcommand)]
    Model(Model),
    /// Works with toolchains.
    #[command(subcommand)]
    Toolchain(Toolchain),
    /// Prints what this machine offers for the local mode, and what is missing.
    Doctor {
        /// Output format.
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Shows and removes the environments and downloads that the local mode keeps.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Prints a completion script for a shell.
    Completions {
        /// Name of the shell.
        shell: clap_complete::Shell,
    },
}

/// Subcommands of `legionctl local`.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Starts the API and the operator. Stays in the foreground until Ctrl-C or `local down`.
    Up(Up),
    /// Runs a training: starts the local mode if needed, applies the file, follows the training and prints its result.
    Run(Run),
    /// Prints whether the local mode is up, and its paths.
    Status {
        /// Output format.
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Stops the local mode. Running trainings are interrupted and continue after the next start.
    Down,
}

/// Arguments of `legionctl local up`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Up {
    /// Starts in the background and returns when everything is ready.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Loopback port of the API. Default: the port of the last start, then any free port.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Set by `--detach` for the background process: it leaves the session of the terminal.
    #[arg(long, hide = true)]
    pub(crate) session: bool,
}

/// Arguments of `legionctl local run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Manifest to apply, in the order of its objects. `-` reads standard input.
    #[arg(long = "file", short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Uses the files of this directory instead of the source in the manifest. Useful while you edit the code.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: Option<PathBuf>,
    /// Output format of the result. Progress goes to standard error.
    #[arg(long, short, value_enum, default_value_t = Format::Report)]
    pub(crate) output: Format,
    /// Maximum time to wait. The training continues if `local up` is running.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Does not print the log of the training.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Arguments of `legionctl validate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Validate {
    /// Manifests with one or more objects. `-` reads standard input.
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Output format of the problems.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Arguments of `legionctl get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Get {
    /// Kind to show: trainings (mt), toolchains (ti) or connections (conn). Default: all three.
    #[arg(value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Name of one object.
    #[arg(value_name = "NAME", requires = "kind")]
    pub(crate) name: Option<String>,
    /// Shows the objects of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "name")]
    pub(crate) all_namespaces: bool,
    /// Shows only objects with these labels.
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "name")]
    pub(crate) selector: Option<String>,
    /// Output format. `report` shows one training with metrics and plots.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Arguments of `legionctl logs`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Logs {
    /// Name of the training.
    pub(crate) name: String,
    /// Follows the log through all attempts until the training has ended.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Container: trainer, fetch or publish. The logs of fetch and publish exist as long as the pod exists.
    #[arg(long, short, default_value = "trainer", value_parser = ["trainer", "fetch", "publish"])]
    pub(crate) container: String,
    /// Prints only this many lines from the end.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) tail: Option<i64>,
}

/// Arguments of `legionctl wait`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wait {
    /// Names of trainings.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Maximum time to wait.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Output format of the trainings.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Arguments of `legionctl rerun`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rerun {
    /// Name of the training.
    pub(crate) name: String,
    /// Value for `spec.trigger`. Default: the current time.
    #[arg(long, value_name = "TEXT")]
    pub(crate) trigger: Option<String>,
}

/// Subcommands of `legionctl cache`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CacheCommand {
    /// Prints the environments and downloads in the cache, with their sizes.
    List {
        /// Output format.
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Removes what nothing uses. It is created again when a training needs it.
    Prune {
        /// Removes only what was not used for so long. `0s` removes everything that is not in use.
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "720h")]
        older_than: Duration,
        /// Prints what would be removed, and removes nothing.
        #[arg(long)]
        dry_run: bool,
        /// Output format.
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

/// Subcommands of `legionctl model`.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Serves a model over HTTP until Ctrl-C, in an environment that is created once.
    Serve(Box<ModelServe>),
    /// Predicts with a model, without a server that stays.
    Predict {
        #[command(flatten)]
        model: ModelPlace,
        #[command(flatten)]
        request: ModelRequest,
    },
    /// Predicts with a model that is being served.
    Invoke {
        /// Address of the server, or of a route to it.
        #[arg(default_value = "http://127.0.0.1:8080", value_name = "URL", value_hint = ValueHint::Url)]
        url: String,
        #[command(flatten)]
        request: ModelRequest,
    },
    /// Prints what a model is, takes and returns.
    Info {
        /// Model: a directory, an archive, or the name of a training.
        #[arg(value_name = "MODEL", value_hint = ValueHint::AnyPath)]
        model: String,
        /// Output format.
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Checks a model and prints every problem.
    Check {
        #[command(flatten)]
        model: ModelPlace,
        /// Loads the model, too, in a process of its own, and predicts its sample.
        #[arg(long)]
        load: bool,
        /// Memory of that process in bytes.
        #[arg(long, value_name = "BYTES", requires = "load")]
        max_memory: Option<u64>,
        /// Time for loading, and for the prediction.
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m", requires = "load")]
        timeout: Duration,
    },
    /// Makes a GPPI directory of an MLflow model.
    Convert {
        #[command(flatten)]
        model: ModelPlace,
        /// Directory to create.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        to: PathBuf,
        /// Name of the model. Default: the name of its directory.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Version of the model.
        #[arg(long, value_name = "VERSION", default_value = "1")]
        model_version: String,
    },
}

/// Which model, and where it is loaded.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelPlace {
    /// Model: a GPPI or MLflow directory, an archive of one, or the name of a training.
    #[arg(value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub(crate) model: String,
    /// Interpreter of an environment in which the model loads. Default: an environment with the model's requirements,
    /// created once.
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::ExecutablePath)]
    pub(crate) python: Option<PathBuf>,
}

/// Arguments of `legionctl model serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelServe {
    #[command(flatten)]
    pub(crate) model: ModelPlace,
    #[command(flatten)]
    pub(crate) options: legion_server::serve::Options,
}

/// What to predict.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelRequest {
    /// File with the input: JSON, CSV or Parquet. `-` reads standard input. Default: the sample of the model.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) input: Option<PathBuf>,
    /// Format of the input. Default: the ending of its name, or else JSON.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<InputFormat>,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = PredictionFormat::Table)]
    pub(crate) output: PredictionFormat,
}

/// Format of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// A body of MLflow's scoring server, a list of records, or a list of rows.
    Json,
    /// With the names of the columns in the first line.
    Csv,
    /// A table.
    Parquet,
}

/// Format of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PredictionFormat {
    /// A table.
    Table,
    /// The answer of the server.
    Json,
    /// CSV.
    Csv,
}

/// Subcommands of `legionctl toolchain`.
#[derive(Debug, Subcommand)]
pub(crate) enum Toolchain {
    /// Runs the conformance cases of a toolchain. Needs neither the operator nor a cluster.
    Test {
        /// Directory of the toolchain, with its toolchain.yaml.
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// Runs only the cases with this text in their names.
        #[arg(long, value_name = "TEXT")]
        case: Option<String>,
        /// Number of cases that run in parallel. Default: the number of processors.
        #[arg(long, value_name = "N")]
        jobs: Option<NonZeroUsize>,
    },
}

/// Output format of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Table,
    /// One training in full, with a table of metrics and a plot of each series.
    Report,
    /// JSON: the whole object and nothing else on standard output.
    Json,
    /// YAML: the whole object and nothing else on standard output.
    Yaml,
}

/// Parses a duration as in manifests: `90s`, `15m`, `1h30m`.
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
    fn the_arguments_are_valid_for_clap() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_written_as_in_manifests() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("soon").is_err());
    }
}
