//! One running server: its options, its parts and its end. `legion-server` and `legionctl model` both start it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    WorkerSettings,
    http::{self, Front},
    metrics::Metrics,
    model::Model,
    pool::{Limits, Pool},
};

/// Longest answer of a worker, in bytes.
const MAX_ANSWER: u64 = 1 << 30;

/// How a model is served.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address to listen on.
    #[arg(long, env = "LEGION_BIND", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub bind: SocketAddr,
    /// Processes that hold the model.
    #[arg(long, env = "LEGION_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub workers: u16,
    /// Whether requests that wait may share a call of the model.
    #[arg(long, env = "LEGION_BATCHING", default_value = "auto")]
    pub batching: Batching,
    /// Whether the model may be called with an array instead of a DataFrame.
    #[arg(long, env = "LEGION_RAW", default_value = "auto")]
    pub raw: Switch,
    /// Rows of a call that requests share.
    #[arg(long, env = "LEGION_MAX_BATCH_ROWS", default_value_t = 256, value_name = "N")]
    pub max_batch_rows: usize,
    /// Requests that may wait.
    #[arg(long, env = "LEGION_MAX_QUEUE", default_value_t = 1024, value_name = "N")]
    pub max_queue: usize,
    /// Longest body of a request, in bytes.
    #[arg(long, env = "LEGION_MAX_BODY", default_value_t = 10 << 20, value_name = "BYTES")]
    pub max_body: usize,
    /// Seconds for a prediction. A process that needs twice as long is replaced.
    #[arg(long, env = "LEGION_DEADLINE", default_value_t = 30.0, value_parser = seconds, value_name = "SECONDS")]
    pub deadline: f64,
    /// Seconds for loading the model.
    #[arg(long, env = "LEGION_START_TIMEOUT", default_value_t = 300.0, value_parser = seconds, value_name = "SECONDS")]
    pub start_timeout: f64,
    /// Memory of a process in bytes. A process above it is replaced between two calls. Default: no limit.
    #[arg(long, env = "LEGION_MAX_MEMORY", value_name = "BYTES")]
    pub max_memory: Option<u64>,
}

/// Whether requests share calls of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Batching {
    /// For libraries whose predictions treat each row alone.
    Auto,
    /// For every model. Its code must return a row for each row, and treat each row alone.
    On,
    /// Never.
    Off,
}

/// Whether a way to be faster is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Where it gives the same predictions.
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

/// A server that listens. Its workers load the model in the background.
pub struct Server {
    listener: TcpListener,
    front: Arc<Front>,
    address: SocketAddr,
}

impl Server {
    /// Reads the model, listens, and starts the workers with this interpreter.
    ///
    /// # Errors
    /// When the directory is no model that can be served, or the address cannot be used.
    pub async fn bind(model: &Path, python: &Path, options: &Options) -> anyhow::Result<Self> {
        let model = Model::read(model)?;
        let listener = TcpListener::bind(options.bind)
            .await
            .with_context(|| format!("cannot listen on {}", options.bind))?;
        let address = listener.local_addr()?;
        let workers = usize::from(options.workers);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = WorkerSettings {
            python: PathBuf::from(python),
            task: model.task(options.raw == Switch::Auto),
            threads: (cores / workers).max(1),
            start_timeout: Duration::from_secs_f64(options.start_timeout),
            max_answer: MAX_ANSWER,
        };
        let limits = Limits {
            workers,
            batching: match options.batching {
                Batching::Auto => model.is_row_wise,
                Batching::On => true,
                Batching::Off => false,
            },
            max_batch_rows: options.max_batch_rows,
            max_queue: options.max_queue,
            deadline: Duration::from_secs_f64(options.deadline),
            max_memory: options.max_memory,
        };
        let metrics = Metrics::default();
        let front = Front {
            pool: Pool::start(&model, limits, &settings, metrics.clone()),
            model,
            metrics,
            max_body: options.max_body,
            is_local: address.ip().is_loopback(),
        };
        tracing::info!(%address, model = front.model.name, version = front.model.version, "listening");
        Ok(Self {
            listener,
            front: Arc::new(front),
            address,
        })
    }

    /// Returns the address, with the real port if the system chose it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what requests need.
    #[must_use]
    pub fn front(&self) -> Arc<Front> {
        Arc::clone(&self.front)
    }

    /// Serves until `stop` is cancelled. Then it finishes the requests that it has, and ends the workers.
    pub async fn serve(self, stop: CancellationToken) {
        http::serve(self.listener, self.front, stop).await;
    }
}
