//! The metrics registry of a process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{encoding::text, metrics::info::Info, registry::Registry};

use crate::process::ProcessCollector;

/// Content type of the OpenMetrics format. Prometheus reads it since version 2.5.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Histogram buckets in seconds for operations that normally take milliseconds.
pub const DURATION_BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Metrics of a process. Clones share the same registry.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    /// Creates a registry with the metrics of the process itself.
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        Self(Arc::new(Mutex::new(registry)))
    }
}

impl Metrics {
    /// Calls `add` to register further metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds the metric `PREFIX_build_info`. Its value is always 1, and its label holds the running version.
    pub fn register_build(&self, prefix: &str, version: &'static str) {
        self.register(|registry| {
            registry.register(
                format!("{prefix}_build"),
                "The version that runs",
                Info::new(vec![("version", version)]),
            );
        });
    }

    /// Returns the current values of all metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a collector cannot encode a metric.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_exports_its_resource_use_and_its_version() {
        let metrics = Metrics::default();
        metrics.register_build("tool", "1.2.3");
        let text = metrics.encode().unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name));
            let line = line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") > value("process_open_fds"));
        let age = jiff::Timestamp::now().as_second() as f64 - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
        assert_eq!(value("tool_build_info{version=\"1.2.3\"}"), 1.0);
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
