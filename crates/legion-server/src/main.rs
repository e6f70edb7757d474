//! The command line of the model server.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use legion_server::{
    WorkerSettings,
    http::{self, Front, Page},
    metrics::Metrics,
    model::Model,
    pool::{Limits, Pool},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Serves a model over HTTP.
#[derive(Parser)]
#[command(name = "legion-server", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a model until SIGTERM or Ctrl-C.
    Serve(Serve),
}

#[derive(Args)]
struct Serve {
    /// Directory of the model: GPPI v1, or MLflow's own.
    #[arg(long, env = "LEGION_MODEL_DIR", value_name = "DIR")]
    model_dir: PathBuf,
    /// Address to listen on.
    #[arg(long, env = "LEGION_BIND", default_value = "127.0.0.1:8080")]
    bind: SocketAddr,
    /// Processes that hold the model.
    #[arg(long, env = "LEGION_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Python interpreter of the model's environment.
    #[arg(long, env = "LEGION_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Whether requests that wait may share a call of the model.
    #[arg(long, env = "LEGION_BATCHING", default_value = "auto")]
    batching: Batching,
    /// Rows of a call that requests share.
    #[arg(long, env = "LEGION_MAX_BATCH_ROWS", default_value_t = 256)]
    max_batch_rows: usize,
    /// Requests that may wait.
    #[arg(long, env = "LEGION_MAX_QUEUE", default_value_t = 1024)]
    max_queue: usize,
    /// Longest body of a request, in bytes.
    #[arg(long, env = "LEGION_MAX_BODY", default_value_t = 10 << 20)]
    max_body: usize,
    /// Seconds for a prediction. A process that needs twice as long is replaced.
    #[arg(long, env = "LEGION_DEADLINE", default_value_t = 30.0, value_parser = seconds)]
    deadline: f64,
    /// Seconds for loading the model.
    #[arg(long, env = "LEGION_START_TIMEOUT", default_value_t = 300.0, value_parser = seconds)]
    start_timeout: f64,
    /// Memory of a process in bytes. A process above it is replaced between two calls. Default: no limit.
    #[arg(long, env = "LEGION_MAX_MEMORY")]
    max_memory: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Batching {
    /// For models whose predictions treat each row alone.
    Auto,
    /// Never.
    Off,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds < 86_400.0 => Ok(seconds),
        _ => Err("a number of seconds above 0 and below 86400".to_owned()),
    }
}

fn main() -> ExitCode {
    let Command::Serve(serve) = Cli::parse().command;
    let filter = tracing_subscriber::EnvFilter::try_from_env("LEGION_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(&serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(serve: &Serve) -> anyhow::Result<()> {
    let model = Model::read(&serve.model_dir)?;
    let stop = CancellationToken::new();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        }
    });
    let listener = TcpListener::bind(serve.bind)
        .await
        .with_context(|| format!("cannot listen on {}", serve.bind))?;
    let address = listener.local_addr()?;
    let workers = usize::from(serve.workers);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = WorkerSettings {
        python: serve.python.clone(),
        model: model.path.clone(),
        threads: (cores / workers).max(1),
        start_timeout: Duration::from_secs_f64(serve.start_timeout),
        max_answer: 1 << 30,
    };
    let limits = Limits {
        workers,
        batching: serve.batching == Batching::Auto,
        max_batch_rows: serve.max_batch_rows,
        max_queue: serve.max_queue,
        deadline: Duration::from_secs_f64(serve.deadline),
        max_memory: serve.max_memory,
    };
    let metrics = Metrics::default();
    let front = Front {
        pool: Pool::start(&model, limits, &settings, metrics.clone()),
        page: Page::read(&serve.model_dir, &model),
        model,
        metrics,
        max_body: serve.max_body,
    };
    tracing::info!(%address, model = front.model.name, version = front.model.version, "listening");
    http::serve(listener, Arc::new(front), stop).await;
    Ok(())
}
