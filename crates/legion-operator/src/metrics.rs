//! The operator's counters. Those that count once per reconciliation are looked up once, when the driver starts. After
//! that, counting is an atomic addition. Values of caches and queues are read at each scrape, see `collector`.

use legion_api::{Reason, ReasonKind, run::RunStatus};
use legion_runtime::{metrics::DURATION_BUCKETS, requests::RequestMetrics, retry::ErrorClass};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Prefix of the operator's own metrics.
pub(crate) const PREFIX: &str = "legion_operator";
/// A run takes between seconds and days.
const RUN_SECONDS: [f64; 12] = [
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 43_200.0, 86_400.0, 259_200.0,
];
/// Work waits for less than a millisecond when all is well, and for minutes when it is not.
const WAIT_SECONDS: [f64; 13] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    pub(crate) kind: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Retried {
    kind: &'static str,
    class: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfResource {
    pub(crate) resource: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WithReason {
    pub(crate) reason: &'static str,
}

/// The operator's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Requests to the API server.
    pub(crate) requests: RequestMetrics,
    reconciles: Family<Reconciled, Counter>,
    durations: Family<OfKind, Histogram, fn() -> Histogram>,
    waits: Family<OfKind, Histogram, fn() -> Histogram>,
    retries: Family<Retried, Counter>,
    failing: Family<OfKind, Gauge>,
    throttled: Counter,
    relists: Family<OfResource, Counter>,
    watch_failures: Family<OfResource, Counter>,
    watch_events: Family<OfResource, Counter>,
    /// Pods that were created.
    pub(crate) pods_created: Counter,
    /// Pods whose deletion was asked for.
    pub(crate) pods_deleted: Counter,
    /// Pods that another release of the platform has created for the same trainings.
    pub(crate) pods_of_others: Counter,
    runs: Family<WithReason, Counter>,
    run_durations: Histogram,
}

impl Metrics {
    /// `resources` are the plural names that requests are counted by.
    pub(crate) fn new(resources: &'static [&'static str]) -> Self {
        let metrics = Self {
            requests: RequestMetrics::new(resources),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            waits: Family::new_with_constructor(|| Histogram::new(WAIT_SECONDS)),
            retries: Family::default(),
            failing: Family::default(),
            throttled: Counter::default(),
            relists: Family::default(),
            watch_failures: Family::default(),
            watch_events: Family::default(),
            pods_created: Counter::default(),
            pods_deleted: Counter::default(),
            pods_of_others: Counter::default(),
            runs: Family::default(),
            run_durations: Histogram::new(RUN_SECONDS),
        };
        // From zero, so that the first one of a reason is an increase.
        for reason in Reason::ALL {
            if is_end(*reason) {
                drop(metrics.runs.get_or_create(&WithReason {
                    reason: reason.as_str(),
                }));
            }
        }
        metrics
    }
}

/// Does a run end with this reason?
fn is_end(reason: Reason) -> bool {
    matches!(reason.kind(), ReasonKind::Failure) || reason == Reason::RunSucceeded
}

/// What the driver of one kind counts.
#[derive(Clone, Debug)]
pub(crate) struct DriverMetrics {
    kind: &'static str,
    retries: Family<Retried, Counter>,
    /// Reconciliations that went through.
    pub(crate) done: Counter,
    /// Of objects that are gone.
    pub(crate) gone: Counter,
    /// That failed and are tried again.
    pub(crate) failed: Counter,
    /// That panicked.
    pub(crate) panicked: Counter,
    /// How long they took.
    pub(crate) duration: Histogram,
    /// How many objects failed the last time.
    pub(crate) failing: Gauge,
}

impl DriverMetrics {
    /// One more retry after an error of this class.
    pub(crate) fn retry(&self, class: ErrorClass) {
        let labels = Retried {
            kind: self.kind,
            class: class.as_str(),
        };
        self.retries.get_or_create(&labels).inc();
    }
}

/// What the watches of one resource count.
#[derive(Clone, Debug)]
pub(crate) struct WatchMetrics {
    /// Complete lists.
    pub(crate) relists: Counter,
    /// Lists and watches that failed.
    pub(crate) failures: Counter,
    /// Watch events received.
    pub(crate) events: Counter,
}

impl Metrics {
    /// For the driver of this kind.
    #[must_use]
    pub(crate) fn for_driver(&self, kind: &'static str) -> DriverMetrics {
        // From zero, so that the first error of a class is an increase.
        for class in ErrorClass::ALL {
            let class = class.as_str();
            drop(self.retries.get_or_create(&Retried { kind, class }));
        }
        let counter = |result| self.reconciles.get_or_create_owned(&Reconciled { kind, result });
        DriverMetrics {
            kind,
            retries: self.retries.clone(),
            done: counter("done"),
            gone: counter("gone"),
            failed: counter("failed"),
            panicked: counter("panicked"),
            duration: self.durations.get_or_create_owned(&OfKind { kind }),
            failing: self.failing.get_or_create_owned(&OfKind { kind }),
        }
    }

    /// Returns the histogram of the time that objects of this kind wait for their reconciliation.
    #[must_use]
    pub(crate) fn queue_wait(&self, kind: &'static str) -> Histogram {
        self.waits.get_or_create_owned(&OfKind { kind })
    }

    /// For the watches of this resource.
    #[must_use]
    pub(crate) fn for_watch(&self, resource: &'static str) -> WatchMetrics {
        let labels = OfResource { resource };
        WatchMetrics {
            relists: self.relists.get_or_create_owned(&labels),
            failures: self.watch_failures.get_or_create_owned(&labels),
            events: self.watch_events.get_or_create_owned(&labels),
        }
    }

    /// Counts a pause of all work because the API server throttles the operator.
    pub(crate) fn throttle(&self) {
        self.throttled.inc();
    }

    /// Counts a run that a status write has ended.
    pub(crate) fn status_written(&self, before: Option<&RunStatus>, after: Option<&RunStatus>) {
        let Some(after) = after else { return };
        let Some(finished) = &after.finished_at else { return };
        if before.is_some_and(|before| before.id == after.id && before.finished_at.is_some()) {
            return;
        }
        let reason = after.reason.as_deref().and_then(|reason| reason.parse::<Reason>().ok());
        if let Some(reason) = reason {
            let reason = reason.as_str();
            self.runs.get_or_create(&WithReason { reason }).inc();
        }
        if let Some(started) = &after.started_at {
            self.run_durations
                .observe(finished.0.duration_since(started.0).as_secs_f64());
        }
    }

    /// Adds all counters to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        registry.register("reconciles", "Reconciliations, by result", self.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one reconciliation, requests included",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register_with_unit(
            "queue_wait",
            "Time from when an object is due until its reconciliation starts",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register(
            "retries",
            "Reconciliations that are retried with back-off, by the class of the error",
            self.retries.clone(),
        );
        registry.register(
            "failing_objects",
            "Objects whose last reconciliation failed",
            self.failing.clone(),
        );
        registry.register(
            "throttles",
            "Pauses of all work because the API server throttled the operator",
            self.throttled.clone(),
        );
        registry.register("relists", "Complete lists that filled a cache", self.relists.clone());
        registry.register(
            "watch_failures",
            "Failed lists and watches, which are retried",
            self.watch_failures.clone(),
        );
        registry.register("watch_events", "Watch events received", self.watch_events.clone());
        registry.register("pods_created", "Created pods of runs", self.pods_created.clone());
        registry.register(
            "pods_deleted",
            "Pods of runs whose deletion was requested",
            self.pods_deleted.clone(),
        );
        registry.register(
            "pods_of_other_releases",
            "Pods that another release of the platform has created for the same runs",
            self.pods_of_others.clone(),
        );
        registry.register(
            "runs_finished",
            "Finished runs, by the reason of the condition Succeeded",
            self.runs.clone(),
        );
        registry.register_with_unit(
            "run_duration",
            "Time from a run's first pod to its end",
            Unit::Seconds,
            self.run_durations.clone(),
        );
    }
}
