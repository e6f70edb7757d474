//! The command line of the model server.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use legion_server::serve::{Options, Server};
use tokio::signal::unix::{SignalKind, signal};
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
    model_dir: std::path::PathBuf,
    /// Python interpreter of the model's environment.
    #[arg(long, env = "LEGION_PYTHON", default_value = "python3")]
    python: std::path::PathBuf,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Command::Serve(serve) = Cli::parse().command;
    let filter = tracing_subscriber::EnvFilter::try_from_env("LEGION_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(serve: Serve) -> anyhow::Result<()> {
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
    let server = Server::bind(&serve.model_dir, &serve.python, &serve.options).await?;
    server.serve(stop).await;
    Ok(())
}
