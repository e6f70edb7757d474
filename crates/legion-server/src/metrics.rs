//! What the server counts.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// Bounds of durations, in seconds.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];
/// Bounds of rows.
const ROWS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    protocol: &'static str,
    code: u16,
}

/// The metrics of a server.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Labels, Counter>,
    duration: Histogram,
    queue: Histogram,
    predict: Histogram,
    rows: Histogram,
    calls: Counter,
    restarts: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(SECONDS);
        let mut registry = Registry::with_prefix("legion_server");
        let metrics = (
            Family::default(),
            histogram(),
            histogram(),
            histogram(),
            Histogram::new(ROWS),
            Counter::default(),
            Counter::default(),
        );
        let (requests, duration, queue, predict, rows, calls, restarts) = metrics;
        registry.register("requests", "Answers, by protocol and status code", requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time from the head of a request to its answer",
            duration.clone(),
        );
        registry.register(
            "queue_duration_seconds",
            "Time that a request waited for a worker",
            queue.clone(),
        );
        registry.register(
            "predict_duration_seconds",
            "Time of a call of a worker",
            predict.clone(),
        );
        registry.register("batch_rows", "Rows of a call", rows.clone());
        registry.register("calls", "Calls of workers", calls.clone());
        registry.register("worker_restarts", "Workers that were replaced", restarts.clone());
        Self {
            registry: Arc::new(registry),
            requests,
            duration,
            queue,
            predict,
            rows,
            calls,
            restarts,
        }
    }
}

impl Metrics {
    pub(crate) fn answered(&self, protocol: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&Labels { protocol, code }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn queued(&self, time: Duration) {
        self.queue.observe(time.as_secs_f64());
    }

    pub(crate) fn predicted(&self, time: Duration) {
        self.predict.observe(time.as_secs_f64());
    }

    pub(crate) fn batch(&self, requests: usize, rows: usize) {
        debug_assert!(requests > 0, "a call has a request");
        self.calls.inc();
        #[expect(clippy::cast_precision_loss, reason = "a batch has few rows")]
        self.rows.observe(rows as f64);
    }

    pub(crate) fn restart(&self) {
        self.restarts.inc();
    }

    /// Returns the text that Prometheus scrapes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
