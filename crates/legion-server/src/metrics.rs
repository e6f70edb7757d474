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
        let mut registry = Registry::with_prefix("legion_server");
        let requests = Family::default();
        registry.register("requests", "Answers, by protocol and status code", requests.clone());
        let mut seconds = |name: &str, help: &str| {
            let histogram = Histogram::new(SECONDS);
            registry.register(name, help, histogram.clone());
            histogram
        };
        let duration = seconds(
            "request_duration_seconds",
            "Time from the head of a request to its answer",
        );
        let queue = seconds("queue_duration_seconds", "Time that a request waited for a worker");
        let predict = seconds("predict_duration_seconds", "Time of a call of a worker");
        let rows = Histogram::new(ROWS);
        registry.register("batch_rows", "Rows of a call", rows.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let calls = counter("calls", "Calls of workers");
        let restarts = counter("worker_restarts", "Workers that were replaced");
        Self {
            requests,
            duration,
            queue,
            predict,
            rows,
            calls,
            restarts,
            registry: Arc::new(registry),
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

    pub(crate) fn call(&self, rows: usize) {
        self.calls.inc();
        #[expect(clippy::cast_precision_loss, reason = "a call has few rows")]
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
