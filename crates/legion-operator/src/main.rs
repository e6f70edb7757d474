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
    /// Serves the platform's resources until it is told to stop.
    Run(Box<Run>),
    /// Prints the CRDs, for `kubectl apply --server-side -f -`.
    Crds,
}

#[derive(Args)]
struct Run {
    /// Namespace that is served; may be given several times. All, where none is given.
    #[arg(long = "namespace", env = "LEGION_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Namespace of the platform: its toolchains serve every namespace, and the leader lease lives here.
    #[arg(long, env = "LEGION_PLATFORM_NAMESPACE", default_value = "legion-system")]
    platform_namespace: String,
    /// Image of legion-agent, which fetches and publishes in the pod of every training.
    #[arg(long, env = "LEGION_AGENT_IMAGE")]
    agent_image: String,
    /// User id of every container of a training's pod.
    #[arg(long, env = "LEGION_RUN_AS_USER", default_value_t = 65532)]
    run_as_user: i64,
    /// Group id of every container of a training's pod, and of its volumes.
    #[arg(long, env = "LEGION_RUN_AS_GROUP", default_value_t = 65532)]
    run_as_group: i64,
    /// Leave user and group to the cluster, as OpenShift wants it.
    #[arg(long, env = "LEGION_CLUSTER_ASSIGNS_USER", conflicts_with_all = ["run_as_user", "run_as_group"])]
    cluster_assigns_user: bool,
    /// How many objects of one kind are looked at side by side.
    #[arg(long, env = "LEGION_WORKERS", default_value_t = WORKERS)]
    workers: usize,
    /// Name of the lease by which one of several replicas acts.
    #[arg(long, env = "LEGION_LEASE", default_value = "legion-operator")]
    lease: String,
    /// Who asks for the lease: unique among the replicas.
    #[arg(long, env = "POD_NAME", default_value_t = host_name())]
    identity: String,
    /// Act without a lease. Only where no second replica can be.
    #[arg(long, env = "LEGION_NO_LEASE")]
    no_lease: bool,
    /// Address of the HTTP listener with /healthz, /readyz and /metrics; empty for none.
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
    /// What is logged: a level, or target=level pairs.
    #[arg(long, env = "LEGION_LOG", default_value = "info")]
    log: String,
}

/// Where no pod name is given, the host and the process tell replicas apart.
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
        // It blocks while the last spans are sent.
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
