//! What all controllers of one process share: caches, queues, settings, the clock and the way to the API server.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::core::PartialObjectMeta;
use legion_api::{Connection, ModelTraining, ToolchainIntegration, training::ConfigMapSource};
use legion_plan::training::{ConfigMapContent, is_default_output};
use legion_runtime::SharedClock;

use crate::{
    key::Key,
    kinds::{connection::Connections, toolchain::Toolchains, training::Trainings},
    metrics::Metrics,
    reconcile::{controller::Controller, queue::Queue},
    requests::ApiRequests,
    watch::{
        cache::{Cache, Change, Entry},
        references::{Reference, ReverseIndex, references, training_of},
    },
};

/// What all controllers share.
pub(crate) struct Context {
    /// The way to the API server.
    pub(crate) requests: ApiRequests,
    /// What decisions depend on besides the objects.
    pub(crate) settings: legion_plan::Settings,
    /// Wall time.
    pub(crate) clock: SharedClock,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// All trainings.
    pub(crate) trainings: Arc<Cache<ModelTraining>>,
    /// All toolchains.
    pub(crate) toolchains: Arc<Cache<ToolchainIntegration>>,
    /// All connections.
    pub(crate) connections: Arc<Cache<Connection>>,
    /// The pods of trainings.
    pub(crate) pods: Arc<Cache<Pod>>,
    /// The metadata of all ConfigMaps: they say when a source has changed.
    pub(crate) config_maps: Arc<Cache<PartialObjectMeta<ConfigMap>>>,
    /// The work of each kind.
    pub(crate) queues: Arc<Queues>,
    /// Which pods a training has.
    pub(crate) pods_of: Arc<ReverseIndex<Key, Key>>,
    /// What was read of ConfigMap sources, by training.
    contents: Mutex<HashMap<Key, (ConfigMapSource, ConfigMapContent)>>,
}

/// The work of each kind.
#[derive(Debug)]
pub(crate) struct Queues {
    /// Trainings.
    pub(crate) trainings: Queue,
    /// Toolchains.
    pub(crate) toolchains: Queue,
    /// Connections.
    pub(crate) connections: Queue,
}

impl Queues {
    fn new(metrics: &Metrics) -> Self {
        let queue = |kind| Queue::new(metrics.queue_wait(kind));
        Self {
            trainings: queue(Trainings::NAME),
            toolchains: queue(Toolchains::NAME),
            connections: queue(Connections::NAME),
        }
    }

    /// Every queue, with the name of its kind.
    #[must_use]
    pub(crate) fn all(&self) -> [(&'static str, &Queue); 3] {
        [
            (Toolchains::NAME, &self.toolchains),
            (Connections::NAME, &self.connections),
            (Trainings::NAME, &self.trainings),
        ]
    }
}

impl Context {
    /// Empty caches, wired so that every change wakes whom it concerns.
    #[must_use]
    pub(crate) fn new(
        requests: ApiRequests,
        settings: legion_plan::Settings,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Arc<Self> {
        let queues = Arc::new(Queues::new(&metrics));
        let referrers = Arc::new(ReverseIndex::<Reference, Key>::default());
        let pods_of = Arc::new(ReverseIndex::<Key, Key>::default());
        let wake = {
            let (queues, referrers) = (queues.clone(), referrers.clone());
            move |referent: &Reference| {
                for training in referrers.dependents(referent) {
                    queues.trainings.add(training);
                }
            }
        };

        let trainings = {
            let (queues, platform) = (queues.clone(), settings.platform_namespace.clone());
            Arc::new(Cache::new(Box::new(move |change: &Change<ModelTraining>| {
                let of = |entry: &Option<Entry<ModelTraining>>| -> BTreeSet<Reference> {
                    let training = entry.as_ref().and_then(Entry::valid);
                    training
                        .map(|training| references(&change.key, training, &platform))
                        .unwrap_or_default()
                };
                let (old, new) = (of(&change.old), of(&change.new));
                if old != new {
                    referrers.update(&change.key, &old, &new);
                }
                if change.old.is_none() {
                    queues.trainings.add_new(change.key.clone());
                } else {
                    queues.trainings.add(change.key.clone());
                }
            })))
        };
        let toolchains = {
            let (queues, wake) = (queues.clone(), wake.clone());
            Arc::new(Cache::new(Box::new(move |change: &Change<ToolchainIntegration>| {
                queues.toolchains.add(change.key.clone());
                wake(&Reference::Toolchain(change.key.clone()));
            })))
        };
        let connections = {
            let (queues, wake) = (queues.clone(), wake.clone());
            Arc::new(Cache::new(Box::new(move |change: &Change<Connection>| {
                queues.connections.add(change.key.clone());
                wake(&Reference::Connection(change.key.clone()));
                let is_default = |entry: &Option<Entry<Connection>>| {
                    entry
                        .as_ref()
                        .and_then(Entry::valid)
                        .is_some_and(|connection| is_default_output(connection))
                };
                if is_default(&change.old) || is_default(&change.new) {
                    wake(&Reference::default_output_of(&change.key));
                }
            })))
        };
        let config_maps = {
            let wake = wake.clone();
            Arc::new(Cache::new(Box::new(
                move |change: &Change<PartialObjectMeta<ConfigMap>>| {
                    wake(&Reference::ConfigMap(change.key.clone()));
                },
            )))
        };
        let pods = {
            let (queues, pods_of) = (queues.clone(), pods_of.clone());
            Arc::new(Cache::new(Box::new(move |change: &Change<Pod>| {
                let of = |entry: &Option<Entry<Pod>>| entry.as_ref().and_then(Entry::valid).cloned();
                let (old, new) = (of(&change.old), of(&change.new));
                let (was, is) = (
                    old.as_deref().and_then(training_of),
                    new.as_deref().and_then(training_of),
                );
                if was != is {
                    pods_of.update(&change.key, &was, &is);
                }
                for training in was.into_iter().chain(is) {
                    queues.trainings.add(training);
                }
                let holds_quota = |pod: &Option<Arc<Pod>>| pod.as_deref().is_some_and(|pod| !has_ended(pod));
                if holds_quota(&old) && !holds_quota(&new) {
                    wake(&Reference::quota_of(&change.key));
                }
            })))
        };
        Arc::new(Self {
            requests,
            settings,
            clock,
            metrics,
            trainings,
            toolchains,
            connections,
            pods,
            config_maps,
            queues,
            pods_of,
            contents: Mutex::default(),
        })
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (ConfigMapSource, ConfigMapContent)>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read of that version of a training's source, if it was read already.
    #[must_use]
    pub(crate) fn content(&self, training: &Key, source: &ConfigMapSource, version: &str) -> Option<ConfigMapContent> {
        let contents = self.contents();
        let (read, content) = contents.get(training)?;
        (read == source && content.resource_version == version).then(|| content.clone())
    }

    /// Keeps what was read of a training's source.
    pub(crate) fn keep_content(&self, training: Key, source: ConfigMapSource, content: ConfigMapContent) {
        self.contents().insert(training, (source, content));
    }

    /// Forgets what was read for a training that is gone.
    pub(crate) fn drop_content(&self, training: &Key) {
        self.contents().remove(training);
    }
}

/// Does the pod no longer count against a quota?
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
