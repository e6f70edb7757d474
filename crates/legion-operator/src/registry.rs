//! The kinds of one process: what the wiring, the health checks and the metrics need to know of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use legion_api::{Reason, condition};
use legion_runtime::{SharedClock, Shutdown};

use crate::{
    context::{Context, config_maps},
    metrics::Metrics,
    names::{kind_of, plural_of},
    pods::{Owner, Pods},
    quota::QuotaLines,
    reconcile::{
        controller::{Managed, RunHooks, RunMetadata},
        driver::Driver,
        queue::Queue,
    },
    releases::OtherReleases,
    requests::ApiRequests,
    store::{Dependents, Store},
    watch::{
        cache::{Cache, Change, Entry},
        references::Reference,
        watches::Watches,
    },
};

/// The kinds that were added.
pub(crate) struct Registry {
    metrics: Metrics,
    dependents: Arc<Dependents>,
    quotas: Arc<QuotaLines>,
    owners: Vec<Owner>,
    kinds: Vec<Arc<dyn RegisteredKind>>,
}

/// One kind, whatever its type is.
pub(crate) trait RegisteredKind: Send + Sync {
    /// The plural.
    fn resource(&self) -> &'static str;

    fn in_platform_namespace(&self) -> bool;

    fn queue(&self) -> &Queue;

    /// How many objects the cache holds.
    fn len(&self) -> usize;

    /// Counts the objects of a kind of run by the reason of their condition `Succeeded`. Every reason is in it.
    fn count_by_reason(&self) -> Option<(RunMetadata, BTreeMap<&'static str, usize>)>;

    /// Starts the watches of the kind.
    fn watch(&self, watches: &mut Watches<'_>);

    /// Reconciles due objects until `shutdown`.
    fn drive(self: Arc<Self>, context: Arc<Context>, workers: usize, shutdown: Shutdown) -> BoxFuture<'static, ()>;
}

impl Registry {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            dependents: Arc::default(),
            quotas: Arc::default(),
            owners: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Adds a kind. Returns its objects, for kinds that refer to them.
    ///
    /// A change of an object requeues the object and everything that refers to it.
    pub(crate) fn add<C: RunHooks>(&mut self, controller: C) -> Arc<Cache<C::Object>> {
        let kind = kind_of::<C::Object>();
        let controller = Arc::new(controller);
        let queue = Arc::new(Queue::new(kind, self.metrics.queue_wait(kind)));
        let on_change = {
            let (controller, queue) = (controller.clone(), queue.clone());
            let (dependents, quotas) = (self.dependents.clone(), self.quotas.clone());
            move |change: &Change<C::Object>| {
                changed(&*controller, &queue, &dependents, change);
                let wait = |entry: &Option<Entry<C::Object>>| C::quota_wait(entry.as_ref().and_then(Entry::valid)?);
                let (before, after) = (wait(&change.old), wait(&change.new));
                if before != after {
                    quotas.place(&queue, &change.key, after);
                }
            }
        };
        let cache = Arc::new(Cache::new(Box::new(on_change)));
        if let Some(run) = C::RUN {
            self.owners.push(Owner {
                label: run.owner_label,
                queue: queue.clone(),
            });
        }
        self.kinds.push(Arc::new(Managed {
            controller,
            store: Store {
                cache: cache.clone(),
                queue,
            },
        }));
        cache
    }

    /// Every kind, in the order in which they were added.
    pub(crate) fn kinds(&self) -> &[Arc<dyn RegisteredKind>] {
        &self.kinds
    }

    /// Creates what all controllers share, once every kind is added.
    pub(crate) fn into_context(
        self,
        requests: ApiRequests,
        settings: legion_plan::Settings,
        clock: SharedClock,
    ) -> Arc<Context> {
        let releases = OtherReleases::new(
            &settings.platform_namespace,
            clock.now(),
            self.metrics.pods_of_others.clone(),
        );
        Arc::new(Context {
            requests,
            settings,
            clock,
            metrics: self.metrics,
            pods: Pods::new(self.owners, self.quotas.clone(), releases),
            quotas: self.quotas,
            config_maps: config_maps(self.dependents),
        })
    }
}

fn changed<C: RunHooks>(controller: &C, queue: &Arc<Queue>, dependents: &Dependents, change: &Change<C::Object>) {
    let key = &change.key;
    let old = change.old.as_ref().and_then(Entry::valid);
    let new = change.new.as_ref().and_then(Entry::valid);
    let references = |object: Option<&Arc<C::Object>>| -> BTreeSet<Reference> {
        object
            .map(|object| controller.references(key, object))
            .unwrap_or_default()
    };
    let (before, after) = (references(old), references(new));
    if before != after {
        dependents.update(queue, key, &before, &after);
    }
    if change.old.is_none() {
        queue.add_new(key.clone());
    } else {
        queue.add(key.clone());
    }
    dependents.requeue(&Reference::object::<C::Object>(key.clone()));
    let provided: BTreeSet<Reference> = old
        .into_iter()
        .chain(new)
        .filter_map(|object| controller.provides(key, object))
        .collect();
    for reference in &provided {
        dependents.requeue(reference);
    }
}

impl<C: RunHooks> RegisteredKind for Managed<C> {
    fn resource(&self) -> &'static str {
        plural_of::<C::Object>()
    }

    fn in_platform_namespace(&self) -> bool {
        self.controller.in_platform_namespace()
    }

    fn queue(&self) -> &Queue {
        &self.store.queue
    }

    fn len(&self) -> usize {
        self.store.cache.len()
    }

    fn count_by_reason(&self) -> Option<(RunMetadata, BTreeMap<&'static str, usize>)> {
        let run = C::RUN?;
        let mut counts: BTreeMap<_, _> = Reason::ALL.iter().map(|reason| (reason.as_str(), 0)).collect();
        self.store.cache.for_each(|object| {
            let condition = condition::find(C::conditions(object), condition::SUCCEEDED);
            if let Some(count) = condition.and_then(|condition| counts.get_mut(condition.reason.as_str())) {
                *count += 1;
            }
        });
        Some((run, counts))
    }

    fn watch(&self, watches: &mut Watches<'_>) {
        watches.start_whole(&self.store.cache, self.controller.in_platform_namespace());
    }

    fn drive(self: Arc<Self>, context: Arc<Context>, workers: usize, shutdown: Shutdown) -> BoxFuture<'static, ()> {
        Box::pin(Driver::new(self, context).run(workers, shutdown))
    }
}
