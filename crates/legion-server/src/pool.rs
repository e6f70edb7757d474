//! The queue before the workers. What waits while a prediction runs shares the next call.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    input::Input,
    metrics::Metrics,
    model::Model,
    output::{Array, Kind, Output},
    worker::{
        frame::{self, Reply},
        process::{Worker, WorkerError, WorkerSettings},
    },
};

/// Delay before another start of a worker that could not be started. It doubles up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Limits of the queue and of calls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number of workers.
    pub workers: usize,
    /// Whether requests may share a call.
    pub batching: bool,
    /// Rows of a call that requests share. A larger request has a call of its own.
    pub max_batch_rows: usize,
    /// Requests that may wait.
    pub max_queue: usize,
    /// Time for a prediction, from its arrival. A worker that needs twice as long for a call is killed.
    pub deadline: Duration,
    /// Memory of a worker in bytes. A worker above it is replaced between two calls.
    pub max_memory: Option<u64>,
}

/// Why there is no prediction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too many requests wait, or the server ends.
    #[error("too many requests wait: try again")]
    Busy,
    /// The prediction took too long.
    #[error("the prediction took longer than {} s", .0.as_secs_f64())]
    Deadline(Duration),
    /// The code of the model raised an exception.
    #[error("{}{message}", if kind.is_empty() { String::new() } else { format!("{kind}: ") })]
    Model {
        /// Name of the exception's class. Empty if the worker itself refuses the request.
        kind: String,
        /// Its message.
        message: String,
        /// Whether MLflow says that the request is wrong.
        refused: bool,
    },
    /// The worker ended during the prediction.
    #[error("the process of the model ended during the prediction")]
    Died,
    /// The worker's answer was wrong.
    #[error("the answer of the model's process cannot be read")]
    Answer,
}

/// A prediction and its times.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// What the model returned.
    pub output: Output,
    /// Time that the request waited for a worker.
    pub queued: Duration,
    /// Time of the call of the worker.
    pub predicted: Duration,
}

struct Job {
    input: Input,
    reply: oneshot::Sender<Result<Prediction, Failure>>,
    queued: Instant,
    /// It shared a call whose worker died, so it gets one of its own.
    alone: bool,
}

impl Job {
    fn rows(&self) -> usize {
        self.input.rows()
    }

    /// Whether both may share a call.
    fn fits(&self, other: &Self) -> bool {
        !self.alone && !other.alone && self.input.fits(&other.input)
    }
}

struct PoolState {
    model: Model,
    limits: Limits,
    waiting: Mutex<VecDeque<Job>>,
    /// Notified for each job.
    arrived: Notify,
    /// Cancelled when the server ends.
    ends: CancellationToken,
    /// Whether the server ends soon, so that it must get no new clients.
    is_draining: AtomicBool,
    ready: AtomicUsize,
    /// What the first worker that ended its start has found.
    started: watch::Sender<Option<Result<(), String>>>,
    /// Becomes false when an output cannot be divided.
    batching: AtomicBool,
    metrics: Metrics,
}

/// The workers of a model and their queue.
pub struct Pool {
    shared: Arc<PoolState>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Pool {
    /// Starts the workers. They load the model in the background.
    #[must_use]
    pub fn start(model: &Model, limits: Limits, settings: &WorkerSettings, metrics: Metrics) -> Self {
        let shared = Arc::new(PoolState {
            model: model.clone(),
            limits,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            ends: CancellationToken::new(),
            is_draining: AtomicBool::new(false),
            ready: AtomicUsize::new(0),
            started: watch::Sender::new(None),
            batching: AtomicBool::new(limits.batching),
            metrics,
        });
        let mut tasks = JoinSet::new();
        for number in 0..limits.workers {
            tasks.spawn(keep(Arc::clone(&shared), settings.clone(), number));
        }
        Self {
            shared,
            tasks: tokio::sync::Mutex::new(tasks),
        }
    }

    /// Returns whether a worker has loaded the model, and the server does not end.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Relaxed) > 0 && !self.shared.is_draining.load(Ordering::Relaxed)
    }

    /// Is not ready any more, but still predicts.
    pub fn drain(&self) {
        self.shared.is_draining.store(true, Ordering::Relaxed);
    }

    /// Waits until a worker has loaded the model.
    ///
    /// # Errors
    /// When the first start of a worker failed. The server tries again.
    pub async fn loaded(&self) -> Result<(), String> {
        let mut started = self.shared.started.subscribe();
        match started.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            // The sender lives as long as the pool.
            Ok(None) | Err(_) => Err("the server ends".to_owned()),
        }
    }

    /// Predicts.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn predict(&self, input: Input) -> Result<Prediction, Failure> {
        let shared = &self.shared;
        let (reply, answer) = oneshot::channel();
        let queued = Instant::now();
        {
            let mut waiting = shared.lock();
            if waiting.len() >= shared.limits.max_queue || shared.ends.is_cancelled() {
                return Err(Failure::Busy);
            }
            waiting.push_back(Job {
                input,
                reply,
                queued,
                alone: false,
            });
        }
        shared.arrived.notify_one();
        match timeout_at(queued + shared.limits.deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::Busy),
            Err(_) => Err(Failure::Deadline(shared.limits.deadline)),
        }
    }

    /// Takes no more requests, answers those that wait, and ends the workers.
    pub async fn stop(&self) {
        self.shared.ends.cancel();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

impl PoolState {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job and takes it with those that can share its call. Returns nothing at the end.
    async fn next(&self) -> Option<Vec<Job>> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(batch) = self.take() {
                return Some(batch);
            }
            tokio::select! {
                biased;
                () = arrived => {}
                () = self.ends.cancelled() => return self.take(),
            }
        }
    }

    fn take(&self) -> Option<Vec<Job>> {
        let mut waiting = self.lock();
        // No one waits for the answer of those that were given up.
        while waiting.front().is_some_and(|job| job.reply.is_closed()) {
            waiting.pop_front();
        }
        let first = waiting.pop_front()?;
        let mut rows = first.rows();
        let mut batch = vec![first];
        if self.batching.load(Ordering::Relaxed) {
            while let Some(next) = waiting.front() {
                if !batch[0].fits(next) || rows + next.rows() > self.limits.max_batch_rows {
                    break;
                }
                rows += next.rows();
                batch.extend(waiting.pop_front().filter(|job| !job.reply.is_closed()));
            }
        }
        if !waiting.is_empty() {
            self.arrived.notify_one();
        }
        self.metrics.call(rows);
        Some(batch)
    }

    fn started(&self, result: Result<(), String>) {
        self.started
            .send_if_modified(|first| first.is_none() && first.replace(result).is_none());
    }

    /// Puts jobs back, each for a call of its own.
    fn put_back(&self, jobs: Vec<Job>) {
        let mut waiting = self.lock();
        for mut job in jobs.into_iter().rev() {
            job.alone = true;
            waiting.push_front(job);
        }
        self.arrived.notify_one();
    }
}

/// Keeps one worker running until the end.
async fn keep(shared: Arc<PoolState>, settings: WorkerSettings, number: usize) {
    let mut delay = FIRST_DELAY;
    while !shared.ends.is_cancelled() {
        let worker = match Worker::start(&settings).await {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(worker = number, %error, "no worker");
                shared.started(Err(error.to_string()));
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = shared.ends.cancelled() => {}
                }
                delay = (delay * 2).min(MAX_DELAY);
                continue;
            }
        };
        tracing::info!(worker = number, memory = worker.memory(), "the model is loaded");
        delay = FIRST_DELAY;
        shared.ready.fetch_add(1, Ordering::Relaxed);
        shared.started(Ok(()));
        let reason = serve(&shared, worker).await;
        shared.ready.fetch_sub(1, Ordering::Relaxed);
        if let Some(reason) = reason {
            tracing::warn!(worker = number, %reason, "the worker is replaced");
            shared.metrics.restart();
        }
    }
}

/// Answers with one worker. Returns why it must be replaced, or nothing at the end.
async fn serve(shared: &PoolState, mut worker: Worker) -> Option<String> {
    while let Some(batch) = shared.next().await {
        if let Err(error) = call(shared, &mut worker, batch).await {
            return Some(error.to_string());
        }
        if let Some(most) = shared.limits.max_memory {
            let memory = worker.memory();
            if memory > most {
                return Some(format!("it uses {memory} bytes of memory"));
            }
        }
    }
    None
}

/// Makes one call for all jobs of a batch. If the model refuses a call of several, each gets one of its own.
async fn call(shared: &PoolState, worker: &mut Worker, batch: Vec<Job>) -> Result<(), WorkerError> {
    let parts: Vec<usize> = batch.iter().map(Job::rows).collect();
    let inputs: Vec<&Input> = batch.iter().map(|job| &job.input).collect();
    let Ok(question) = frame::encode(&inputs, shared.model.signature.as_ref()) else {
        fail(batch, &Failure::Answer);
        return Ok(());
    };
    let began = Instant::now();
    for job in &batch {
        shared.metrics.queued(began - job.queued);
    }
    let result = worker.ask(&question, shared.limits.deadline * 2).await;
    let predicted = began.elapsed();
    shared.metrics.predicted(predicted);
    let (reply, buffers) = match result {
        Ok(answer) => answer,
        Err(error) => {
            if batch.len() > 1 {
                shared.put_back(batch);
            } else {
                fail(batch, &Failure::Died);
            }
            return Err(error);
        }
    };
    match outputs(reply, buffers, &parts) {
        Ok(outputs) => {
            for (job, output) in batch.into_iter().zip(outputs) {
                let _ = job.reply.send(Ok(Prediction {
                    output,
                    queued: began - job.queued,
                    predicted,
                }));
            }
        }
        Err(failure) if batch.len() > 1 => {
            if failure == Failure::Answer && shared.batching.swap(false, Ordering::Relaxed) {
                tracing::warn!("the output has not a row for each row of the input: requests get calls of their own");
            }
            shared.put_back(batch);
        }
        Err(failure) => fail(batch, &failure),
    }
    Ok(())
}

fn fail(batch: Vec<Job>, failure: &Failure) {
    for job in batch {
        // A client that has gone needs no answer.
        let _ = job.reply.send(Err(failure.clone()));
    }
}

/// Divides an answer among the requests of a call.
fn outputs(reply: Reply, buffers: Bytes, parts: &[usize]) -> Result<Vec<Output>, Failure> {
    match reply {
        Reply::Array { r#type, shape } => {
            let array = Kind::parse(&r#type).and_then(|kind| Array::new(kind, shape, buffers));
            let array = array.ok_or(Failure::Answer)?;
            if parts.len() == 1 {
                return Ok(vec![Output::Array(array)]);
            }
            let split = array.split(parts).ok_or(Failure::Answer)?;
            Ok(split.into_iter().map(Output::Array).collect())
        }
        Reply::Json { parts: lengths } => {
            let mut buffers = buffers;
            let total = lengths.iter().try_fold(0_usize, |sum, length| sum.checked_add(*length));
            if lengths.len() != parts.len() || total != Some(buffers.len()) {
                return Err(Failure::Answer);
            }
            Ok(lengths
                .iter()
                .map(|length| Output::Json(buffers.split_to(*length)))
                .collect())
        }
        Reply::Error {
            r#type,
            message,
            refused,
        } => Err(Failure::Model {
            kind: r#type,
            message,
            refused,
        }),
        Reply::Unaligned | Reply::Ready | Reply::Proof { .. } => Err(Failure::Answer),
    }
}
