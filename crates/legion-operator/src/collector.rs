//! What can be read off the caches, queues and watches: it is read when the metrics are scraped.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use legion_api::{Reason, condition};
use legion_runtime::{lease::Leadership, requests::WatchActivity};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    context::Context,
    metrics::{OfKind, OfResource, PREFIX, WithReason},
    reconcile::queue::{Backlog, Queue},
};

/// Adds what is read off `context` to a registry.
pub(crate) fn register(registry: &mut Registry, context: Arc<Context>, leadership: Leadership, watches: Vec<Watch>) {
    registry
        .sub_registry_with_prefix(PREFIX)
        .register_collector(Box::new(Collected {
            context,
            leadership,
            watches,
        }));
}

/// A watch that fills a cache.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Plural name of what it watches.
    pub(crate) resource: &'static str,
    /// Whether it still tries, and is answered.
    pub(crate) activity: Arc<WatchActivity>,
}

/// Reads the state off the caches and queues.
struct Collected {
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
            "1 while this replica acts, 0 while it stands by.",
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
            .context
            .queues
            .all()
            .map(|(kind, queue): (_, &Queue)| (OfKind { kind }, queue.backlog()))
            .into();
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

    fn caches(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let context = &*self.context;
        let sizes = [
            ("modeltrainings", context.trainings.len()),
            ("toolchainintegrations", context.toolchains.len()),
            ("connections", context.connections.len()),
            ("pods", context.pods.len()),
            ("configmaps", context.config_maps.len()),
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
            *longest = watch.activity.time_since_answer().max(*longest);
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
        context.trainings.for_each(|training| {
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
