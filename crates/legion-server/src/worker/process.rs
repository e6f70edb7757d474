//! One process that holds the model: its start, its calls, its end.

use std::{io, os::fd::OwnedFd, path::PathBuf, process::Stdio, time::Duration};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    time::timeout,
};

use super::frame::{self, Reply};

/// The program of a worker.
const SCRIPT: &str = include_str!("worker.py");
/// Variables for the number of threads of numerical libraries.
const THREADS: [&str; 4] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

/// How workers are started.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The Python interpreter of the model's environment.
    pub python: PathBuf,
    /// What it loads.
    pub task: WorkerTask,
    /// Threads of numerical libraries in each worker, unless their variables are set.
    pub threads: usize,
    /// How long loading the model may take.
    pub start_timeout: Duration,
    /// Longest answer, in bytes.
    pub max_answer: u64,
}

/// What a worker loads.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerTask {
    /// `mlflow-pyfunc` or `module`.
    pub loader: &'static str,
    /// The directory with `MLmodel`, or with the module.
    pub path: PathBuf,
    /// Name of the module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// The question whether arrays may be used, if they may at all.
    #[serde(skip)]
    pub proof: Option<Bytes>,
}

/// Why a worker cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("{} cannot be started: {source}", python.display())]
    Start { python: PathBuf, source: io::Error },
    #[error("the model cannot be loaded: {kind}: {message}")]
    Load { kind: String, message: String },
    #[error("it has ended: {0}")]
    Ended(io::Error),
    #[error("it sent what was not asked for")]
    Protocol,
    #[error("it did not answer within {} s", .0.as_secs_f64())]
    Hangs(Duration),
}

/// A running worker. Dropping it kills it with all its children.
pub(crate) struct Worker {
    child: Child,
    channel: UnixStream,
    max_answer: u64,
}

impl Worker {
    /// Starts a worker and waits until it has loaded the model.
    pub(crate) async fn start(settings: &WorkerSettings) -> Result<Self, WorkerError> {
        let failed = |source| WorkerError::Start {
            python: settings.python.clone(),
            source,
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut command = Command::new(&settings.python);
        // Isolated: PYTHONPATH and the working directory would come before the standard library.
        command
            .args(["-I", "-c", SCRIPT])
            .arg(serde_json::to_string(&settings.task).map_err(|error| failed(error.into()))?)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0)
            .kill_on_drop(true);
        // The threads of OpenMP would otherwise wait for work on cores that the front needs.
        if std::env::var_os("OMP_WAIT_POLICY").is_none() {
            command.env("OMP_WAIT_POLICY", "PASSIVE");
        }
        for variable in THREADS {
            if std::env::var_os(variable).is_none() {
                command.env(variable, settings.threads.to_string());
            }
        }
        let child = command.spawn().map_err(failed)?;
        // The command holds the other end. Without it the channel ends together with the worker.
        drop(command);
        let mut worker = Self {
            child,
            channel: UnixStream::from_std(ours).map_err(failed)?,
            max_answer: settings.max_answer,
        };
        let limit = settings.start_timeout;
        let first = timeout(limit, frame::read(&mut worker.channel, settings.max_answer)).await;
        match first.map_err(|_| WorkerError::Hangs(limit))? {
            Ok((Reply::Ready, _)) => worker.prove(settings).await,
            Ok((Reply::Error { r#type, message, .. }, _)) => Err(WorkerError::Load { kind: r#type, message }),
            Ok(_) => Err(WorkerError::Protocol),
            Err(error) => Err(WorkerError::Ended(error)),
        }
    }

    /// Lets the worker use arrays, if they give the same predictions.
    async fn prove(mut self, settings: &WorkerSettings) -> Result<Self, WorkerError> {
        let Some(proof) = &settings.task.proof else {
            return Ok(self);
        };
        match self.ask(proof, settings.start_timeout).await?.0 {
            Reply::Proof { why } if why.is_empty() => {
                tracing::info!("the model takes arrays: they give the same as its sample")
            }
            Reply::Proof { why } => tracing::info!(why, "the model takes DataFrames"),
            Reply::Error { r#type, message, .. } => tracing::info!(r#type, message, "the model takes DataFrames"),
            _ => return Err(WorkerError::Protocol),
        }
        Ok(self)
    }

    /// Sends a question and waits for the answer. After an error the worker cannot be used any more.
    pub(crate) async fn ask(&mut self, question: &[u8], limit: Duration) -> Result<(Reply, Bytes), WorkerError> {
        let exchange = async {
            frame::write(&mut self.channel, question).await?;
            frame::read(&mut self.channel, self.max_answer).await
        };
        match timeout(limit, exchange).await {
            Ok(Ok((reply, buffers))) => Ok((reply, buffers.into())),
            Ok(Err(error)) => Err(WorkerError::Ended(error)),
            Err(_) => Err(WorkerError::Hangs(limit)),
        }
    }

    /// Returns the memory that only this process uses, in bytes, or 0 if it has ended.
    pub(crate) fn memory(&self) -> u64 {
        let statm = self
            .child
            .id()
            .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/statm")).ok());
        let resident = statm.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        resident.unwrap_or_default() * rustix::param::page_size() as u64
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(group) = pid {
            // It may have ended already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
