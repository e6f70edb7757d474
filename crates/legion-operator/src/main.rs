//! The operator's command line.

use std::{io::Write as _, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use legion_operator::{Settings, WORKERS};
use legion_plan::Identity;
use legion_runtime::{
    Shutdown, SystemClock, client,
    lease::LeaseSettings,
    listen,
    logs::{self, Format},
    memory,
    telemetry::Telemetry,
    traces::Traces,
};
use tracing_subscriber::Layer as _;

/// Trains models from manifests.
#[derive(Parser)]
#[command(name = "legion-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconciles the platform's resources until SIGTERM.
    Run(Box<Run>),
    /// Prints the CRDs, for `kubectl apply --server-side -f -`.
    Crds,
}

#[derive(Args)]
struct Run {
    /// Namespace to serve. Can be repeated. Default: all namespaces.
    #[arg(long = "namespace", env = "LEGION_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Namespace of the platform. Its toolchains serve every namespace, and it holds the leader lease.
    #[arg(long, env = "LEGION_PLATFORM_NAMESPACE", default_value = "legion-system")]
    platform_namespace: String,
    /// Image of legion-agent for the steps fetch and publish in every training's pod.
    #[arg(long, env = "LEGION_AGENT_IMAGE")]
    agent_image: String,
    /// User id of every container of a training's pod.
    #[arg(long, env = "LEGION_RUN_AS_USER", default_value_t = 65532)]
    run_as_user: i64,
    /// Group id of every container of a training's pod, and of its volumes.
    #[arg(long, env = "LEGION_RUN_AS_GROUP", default_value_t = 65532)]
    run_as_group: i64,
    /// Leave user and group to the cluster, as OpenShift requires.
    #[arg(long, env = "LEGION_CLUSTER_ASSIGNS_USER", conflicts_with_all = ["run_as_user", "run_as_group"])]
    cluster_assigns_user: bool,
    /// Concurrent reconciliations per kind.
    #[arg(long, env = "LEGION_WORKERS", default_value_t = WORKERS)]
    workers: usize,
    /// Name of the lease that selects the leader among the replicas.
    #[arg(long, env = "LEGION_LEASE", default_value = "legion-operator")]
    lease: String,
    /// Identity in the lease. Must be unique among the replicas.
    #[arg(long, env = "POD_NAME", default_value_t = host_name())]
    identity: String,
    /// Act without a lease. Only for installations with a single replica.
    #[arg(long, env = "LEGION_NO_LEASE")]
    no_lease: bool,
    /// Address of the HTTP listener with /healthz, /readyz and /metrics. Empty: no listener.
    #[arg(
        long,
        env = "LEGION_LISTEN",
        default_value = "[::]:8080",
        value_name = "ADDRESS:PORT"
    )]
    listen: String,
    /// text or json.
    #[arg(long, env = "LEGION_LOG_FORMAT", default_value = "text")]
    log_format: Format,
    /// Log filter: a level, or target=level pairs.
    #[arg(long, env = "LEGION_LOG", default_value = "info")]
    log: String,
}

/// Returns the default identity: host name and process id.
fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

fn main() -> ExitCode {
    memory::limit_malloc_arenas();
    let result = match Cli::parse().command {
        Command::Run(arguments) => run(*arguments),
        Command::Crds => print_crds(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logs may not be set up yet.
            let _closed = writeln!(std::io::stderr(), "legion-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: Run) -> anyhow::Result<()> {
    let traces = Traces::from_env("legion-operator", env!("CARGO_PKG_VERSION"))?;
    let layer = traces.as_ref().map(|traces| traces.layer().boxed());
    logs::init(arguments.log_format, &arguments.log, layer)?;
    let served = serve(arguments).await;
    if let Some(traces) = traces {
        // This call blocks while the last spans are sent.
        if let Err(error) = tokio::task::spawn_blocking(move || traces.shut_down()).await? {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
    served
}

async fn serve(arguments: Run) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot install signal handlers")?;
    let telemetry = Telemetry::default();
    if !arguments.listen.is_empty() {
        let listener = listen::bind(&arguments.listen).await.context("--listen")?;
        tracing::info!(address = %listener.address(), "listening");
        tokio::spawn(listener.serve(telemetry.clone(), shutdown.clone()));
    }
    let client = client::connect().await?;
    let mut plan = legion_plan::Settings::new(&arguments.platform_namespace, &arguments.agent_image);
    plan.identity = (!arguments.cluster_assigns_user).then_some(Identity {
        uid: arguments.run_as_user,
        gid: arguments.run_as_group,
        fs_group: arguments.run_as_group,
    });
    let lease = LeaseSettings::new(arguments.platform_namespace, arguments.lease, arguments.identity);
    let settings = Settings {
        plan,
        namespaces: arguments.namespaces,
        workers: arguments.workers,
        lease: (!arguments.no_lease).then_some(lease),
        telemetry: Some(telemetry),
    };
    legion_operator::run(client, settings, Arc::new(SystemClock), shutdown).await?;
    Ok(())
}

fn print_crds() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for crd in legion_api::crd::all() {
        // JSON is YAML: one document a CRD, for kubectl.
        writeln!(out, "---\n{}", serde_json::to_string_pretty(&crd)?).context("cannot write to standard output")?;
    }
    Ok(())
}
