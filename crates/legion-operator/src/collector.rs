//! Metrics of the caches, queues and watches. They are read at each scrape.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use legion_runtime::lease::Leadership;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    context::Context,
    metrics::{OfKind, OfResource, PREFIX, WithReason},
    names::plural_of,
    reconcile::queue::Backlog,
    registry::RegisteredKind,
    watch::watches::Watch,
};

/// Adds what is read at each scrape to a registry.
pub(crate) fn register(
    registry: &mut Registry,
    kinds: Vec<Arc<dyn RegisteredKind>>,
    context: Arc<Context>,
    leadership: Leadership,
    watches: Vec<Watch>,
) {
    registry
        .sub_registry_with_prefix(PREFIX)
        .register_collector(Box::new(Collected {
            kinds,
            context,
            leadership,
            watches,
        }));
}

/// Reads the state off the caches and queues.
struct Collected {
    kinds: Vec<Arc<dyn RegisteredKind>>,
    context: Arc<Context>,
    leadership: Leadership,
    watches: Vec<Watch>,
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected").finish_non_exhaustive()
    }
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    unit: Option<&Unit>,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> fmt::Result {
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

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let leader = encoder.encode_descriptor(
            "leader",
            "1 while this replica is the leader, else 0.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(self.leadership.is_current())).encode(leader)?;
        self.queues(&mut encoder)?;
        self.caches(&mut encoder)
    }
}

impl Collected {
    fn queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let backlogs: Vec<_> = self
            .kinds
            .iter()
            .map(|kind| {
                (
                    OfKind {
                        kind: kind.queue().kind(),
                    },
                    kind.queue().backlog(),
                )
            })
            .collect();
        let each = |value: fn(&Backlog) -> f64| {
            backlogs
                .iter()
                .map(move |(labels, backlog)| (*labels, value(backlog)))
                .collect::<Vec<_>>()
        };
        gauges(
            encoder,
            "queue_depth",
            None,
            "Objects that are due and wait for their reconciliation.",
            each(|backlog| number(backlog.due)),
        )?;
        gauges(
            encoder,
            "queue_oldest",
            Some(&Unit::Seconds),
            "How long the first waiting object has been due.",
            each(|backlog| backlog.oldest.as_secs_f64()),
        )?;
        gauges(
            encoder,
            "busy_workers",
            None,
            "Objects that are being reconciled.",
            each(|backlog| number(backlog.running)),
        )
    }

    fn caches(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of_kinds = self.kinds.iter().map(|kind| (kind.resource(), kind.len()));
        let others = [
            (plural_of::<Pod>(), self.context.pods.cache.len()),
            (plural_of::<ConfigMap>(), self.context.config_maps.len()),
        ];
        gauges(
            encoder,
            "cache_objects",
            None,
            "Objects in a cache.",
            of_kinds
                .chain(others)
                .map(|(resource, size)| (OfResource { resource }, number(size))),
        )?;
        // Of several namespaces, the worst.
        let mut silence = BTreeMap::<&'static str, Duration>::new();
        for watch in &self.watches {
            let longest = silence.entry(watch.resource).or_default();
            *longest = watch.activity.time_since_answer().max(*longest);
        }
        gauges(
            encoder,
            "watch_silence",
            Some(&Unit::Seconds),
            "Time since the API server last answered a list or watch. A healthy watch is renewed every five minutes.",
            silence
                .into_iter()
                .map(|(resource, silence)| (OfResource { resource }, silence.as_secs_f64())),
        )?;
        self.runs(encoder)
    }

    fn runs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for kind in &self.kinds {
            if let Some((run, counts)) = kind.count_by_reason() {
                let (name, help) = run.gauge;
                let counts = counts.into_iter();
                let values = counts.map(|(reason, count)| (WithReason { reason }, number(count)));
                gauges(encoder, name, None, help, values)?;
            }
        }
        Ok(())
    }
}
