//! What the operator counts. Everything that is hit once per reconciliation is looked up once, when its driver starts:
//! counting it then is an atomic addition. What can be read off the caches and queues is read when it is asked for.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use legion_api::{ModelTraining, Reason, ReasonKind, condition};
use legion_runtime::{
    lease::Leadership,
    metrics::{SECONDS, UNIT_OF_TIME},
    requests::{Pulse, Requests},
    retry::Class,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use crate::{queue::Queue, shared::Shared};

/// How every metric of the operator's own begins.
pub const PREFIX: &str = "legion_operator";
/// The resources that requests are told apart by.
pub const RESOURCES: &[&str] = &[
    "modeltrainings",
    "toolchainintegrations",
    "connections",
    "pods",
    "configmaps",
    "events",
    "leases",
];
/// A run takes between seconds and days.
const RUN_SECONDS: [f64; 12] = [
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 43_200.0, 86_400.0, 259_200.0,
];
/// Work waits for less than a millisecond when all is well, and for minutes when it is not.
const WAIT_SECONDS: [f64; 13] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
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
struct OfResource {
    resource: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithReason {
    reason: &'static str,
}

/// The operator's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests to the API server.
    pub requests: Requests,
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
    pub pods_created: Counter,
    /// Pods whose deletion was asked for.
    pub pods_deleted: Counter,
    runs: Family<WithReason, Counter>,
    run_durations: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            requests: Requests::new(RESOURCES),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            waits: Family::new_with_constructor(|| Histogram::new(WAIT_SECONDS)),
            retries: Family::default(),
            failing: Family::default(),
            throttled: Counter::default(),
            relists: Family::default(),
            watch_failures: Family::default(),
            watch_events: Family::default(),
            pods_created: Counter::default(),
            pods_deleted: Counter::default(),
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
pub struct OfDriver {
    kind: &'static str,
    retries: Family<Retried, Counter>,
    /// Reconciliations that went through.
    pub done: Counter,
    /// Of objects that are gone.
    pub gone: Counter,
    /// That failed and are tried again.
    pub failed: Counter,
    /// That panicked.
    pub panicked: Counter,
    /// How long they took.
    pub duration: Histogram,
    /// How many objects failed the last time.
    pub failing: Gauge,
}

impl OfDriver {
    /// One more retry after an error of this class.
    pub fn retry(&self, class: Class) {
        let labels = Retried {
            kind: self.kind,
            class: class.as_str(),
        };
        self.retries.get_or_create(&labels).inc();
    }
}

/// What the watches of one resource count.
#[derive(Clone, Debug)]
pub struct OfFeed {
    /// Complete lists.
    pub relists: Counter,
    /// Lists and watches that failed.
    pub failures: Counter,
    /// Changes that watches told.
    pub events: Counter,
}

impl Metrics {
    /// For the driver of this kind.
    #[must_use]
    pub fn of_driver(&self, kind: &'static str) -> OfDriver {
        // From zero, so that the first one of a class is an increase.
        for class in Class::ALL {
            let class = class.as_str();
            drop(self.retries.get_or_create(&Retried { kind, class }));
        }
        let counter = |result| self.reconciles.get_or_create_owned(&Reconciled { kind, result });
        OfDriver {
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

    /// How long objects of this kind wait until they are looked at.
    #[must_use]
    pub fn queue_wait(&self, kind: &'static str) -> Histogram {
        self.waits.get_or_create_owned(&OfKind { kind })
    }

    /// For the watches of this resource.
    #[must_use]
    pub fn of_feed(&self, resource: &'static str) -> OfFeed {
        let labels = OfResource { resource };
        OfFeed {
            relists: self.relists.get_or_create_owned(&labels),
            failures: self.watch_failures.get_or_create_owned(&labels),
            events: self.watch_events.get_or_create_owned(&labels),
        }
    }

    /// All work is held back because the API server asks for patience.
    pub fn throttle(&self) {
        self.throttled.inc();
    }

    /// Takes note of what a status write has changed.
    pub fn status_written(&self, before: &ModelTraining, after: &ModelTraining) {
        let run = |training: &ModelTraining| training.status.as_ref().and_then(|status| status.run.clone());
        let Some(run_after) = run(after) else { return };
        let Some(finished) = &run_after.finished_at else { return };
        if run(before).is_some_and(|run| run.id == run_after.id && run.finished_at.is_some()) {
            return;
        }
        if let Some(reason) = run_after
            .reason
            .as_deref()
            .and_then(|reason| reason.parse::<Reason>().ok())
        {
            let reason = reason.as_str();
            self.runs.get_or_create(&WithReason { reason }).inc();
        }
        if let Some(started) = &run_after.started_at {
            self.run_durations
                .observe(finished.0.duration_since(started.0).as_secs_f64());
        }
    }

    /// Adds everything to a registry: also what is read off `shared` when it is asked for.
    pub fn register(&self, registry: &mut Registry, shared: Arc<Shared>, leadership: Leadership, watches: Vec<Watch>) {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        registry.register(
            "reconciles",
            "Objects that were looked at, by how that ended",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time that looking at one object took, requests included",
            UNIT_OF_TIME,
            self.durations.clone(),
        );
        registry.register_with_unit(
            "queue_wait",
            "Time between an object being due and being looked at",
            UNIT_OF_TIME,
            self.waits.clone(),
        );
        registry.register(
            "retries",
            "Objects that are looked at again with back-off, by the class of the error",
            self.retries.clone(),
        );
        registry.register(
            "failing_objects",
            "Objects that failed the last time they were looked at",
            self.failing.clone(),
        );
        registry.register(
            "throttles",
            "Times that all work was held back because the API server asked for patience",
            self.throttled.clone(),
        );
        registry.register("relists", "Complete lists that filled a cache", self.relists.clone());
        registry.register(
            "watch_failures",
            "Lists and watches that failed and are tried again",
            self.watch_failures.clone(),
        );
        registry.register("watch_events", "Changes that watches told", self.watch_events.clone());
        registry.register(
            "pods_created",
            "Pods of runs that were created",
            self.pods_created.clone(),
        );
        registry.register(
            "pods_deleted",
            "Pods of runs whose deletion was asked for",
            self.pods_deleted.clone(),
        );
        registry.register(
            "runs_finished",
            "Runs that ended, by the reason that stands in the condition Succeeded",
            self.runs.clone(),
        );
        registry.register_with_unit(
            "run_duration",
            "Time from a run's first pod to its end",
            UNIT_OF_TIME,
            self.run_durations.clone(),
        );
        registry.register_collector(Box::new(State {
            shared,
            leadership,
            watches,
        }));
    }
}

/// A watch that fills a cache.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Plural name of what it watches.
    pub resource: &'static str,
    /// Whether it still tries, and is answered.
    pub pulse: Arc<Pulse>,
}

/// Reads the state off the caches and queues.
struct State {
    shared: Arc<Shared>,
    leadership: Leadership,
    watches: Vec<Watch>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

type Told = Result<(), fmt::Error>;

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    unit: Option<&Unit>,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Told {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
fn number(count: usize) -> f64 {
    count as f64
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Told {
        let leader = encoder.encode_descriptor(
            "leader",
            "1 while this replica acts, 0 while it stands by.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(self.leadership.is_current())).encode(leader)?;
        self.queues(&mut encoder)?;
        self.caches(&mut encoder)
    }
}

impl State {
    fn queues(&self, encoder: &mut DescriptorEncoder<'_>) -> Told {
        let backlogs: Vec<_> = self
            .shared
            .queues
            .all()
            .map(|(kind, queue): (_, &Queue)| (OfKind { kind }, queue.backlog()))
            .into();
        let each = |value: fn(&crate::queue::Backlog) -> f64| {
            backlogs
                .iter()
                .map(move |(labels, backlog)| (*labels, value(backlog)))
                .collect::<Vec<_>>()
        };
        gauges(
            encoder,
            "queue_depth",
            None,
            "Objects that are due and wait to be looked at.",
            each(|backlog| number(backlog.due)),
        )?;
        gauges(
            encoder,
            "queue_oldest",
            Some(&Unit::Seconds),
            "For how long the object that waits longest has been due.",
            each(|backlog| backlog.oldest.as_secs_f64()),
        )?;
        gauges(
            encoder,
            "busy_workers",
            None,
            "Objects that are being looked at.",
            each(|backlog| number(backlog.running)),
        )
    }

    fn caches(&self, encoder: &mut DescriptorEncoder<'_>) -> Told {
        let shared = &*self.shared;
        let sizes = [
            ("modeltrainings", shared.trainings.len()),
            ("toolchainintegrations", shared.toolchains.len()),
            ("connections", shared.connections.len()),
            ("pods", shared.pods.len()),
            ("configmaps", shared.config_maps.len()),
        ];
        gauges(
            encoder,
            "cache_objects",
            None,
            "Objects in a cache.",
            sizes.map(|(resource, size)| (OfResource { resource }, number(size))),
        )?;
        // Of several namespaces, the worst.
        let mut silence = BTreeMap::<&'static str, Duration>::new();
        for watch in &self.watches {
            let longest = silence.entry(watch.resource).or_default();
            *longest = watch.pulse.silence().max(*longest);
        }
        gauges(
            encoder,
            "watch_silence",
            Some(&Unit::Seconds),
            "For how long the API server has answered no list or watch; a watch that is well is renewed every five minutes.",
            silence
                .into_iter()
                .map(|(resource, silence)| (OfResource { resource }, silence.as_secs_f64())),
        )?;
        let mut trainings: BTreeMap<&'static str, usize> =
            Reason::ALL.iter().map(|reason| (reason.as_str(), 0)).collect();
        shared.trainings.for_each(|training| {
            let conditions = training.status.as_ref().map_or(&[][..], |status| &status.conditions);
            let condition = condition::find(conditions, condition::SUCCEEDED);
            if let Some(count) = condition.and_then(|condition| trainings.get_mut(condition.reason.as_str())) {
                *count += 1;
            }
        });
        gauges(
            encoder,
            "trainings",
            None,
            "Trainings, by the reason that stands in the condition Succeeded.",
            trainings
                .into_iter()
                .map(|(reason, count)| (WithReason { reason }, number(count))),
        )
    }
}
