//! Starts the watches that fill the caches.

use std::{
    fmt::Debug,
    sync::{Arc, atomic::AtomicBool},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Resource, core::NamespaceResourceScope, runtime::watcher};
use legion_plan::training::labels;
use legion_runtime::requests::WatchActivity;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    names::plural_of,
    watch::{cache::Cache, guarded::Guarded, projection::Projection, watcher::CacheWatcher},
};

/// A watch that fills a cache.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Plural name of what it watches.
    pub(crate) resource: &'static str,
    pub(crate) activity: Arc<WatchActivity>,
    /// Cancelled once the first list is complete.
    pub(crate) synced: CancellationToken,
    /// Whether the API server does not know the resource.
    pub(crate) unserved: Arc<AtomicBool>,
}

/// The watches of one process.
pub(crate) struct Watches<'a> {
    tasks: &'a mut JoinSet<()>,
    client: &'a Client,
    metrics: &'a Metrics,
    /// `None` is all namespaces.
    served: Vec<Option<String>>,
    /// Those that are served, and the platform's.
    with_platform: Vec<Option<String>>,
    started: Vec<Watch>,
}

impl<'a> Watches<'a> {
    /// `namespaces` are those that are served; an empty list means all.
    pub(crate) fn new(
        tasks: &'a mut JoinSet<()>,
        client: &'a Client,
        metrics: &'a Metrics,
        namespaces: &[String],
        platform_namespace: &str,
    ) -> Self {
        let mut served: Vec<Option<String>> = namespaces.iter().cloned().map(Some).collect();
        if served.is_empty() {
            served.push(None);
        }
        let mut with_platform = served.clone();
        let platform = Some(platform_namespace.to_owned());
        if !served.contains(&None) && !served.contains(&platform) {
            with_platform.push(platform);
        }
        Self {
            tasks,
            client,
            metrics,
            served,
            with_platform,
            started: Vec::new(),
        }
    }

    /// Watches a resource and lists it in one piece, as other controllers do. The API server answers such a list from
    /// its memory. Of a list in pages it takes all but the first from etcd when nothing was written for a while, and
    /// 10,000 trainings then take six times as long.
    pub(crate) fn start_whole<K>(&mut self, cache: &Arc<Cache<K>>, in_platform_namespace: bool)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Projection
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let whole = watcher::Config {
            page_size: None,
            ..watcher::Config::default()
        };
        self.start(cache, in_platform_namespace, &whole);
    }

    /// Watches the pods of runs and lists them in pages. Pods are large. There are many only when they were written
    /// minutes ago, because `ttlAfterFinished` deletes them.
    pub(crate) fn start_pods(&mut self, cache: &Arc<Cache<Pod>>) {
        self.start(cache, false, &watcher::Config::default().labels(labels::RUN));
    }

    fn start<K>(&mut self, cache: &Arc<Cache<K>>, in_platform_namespace: bool, config: &watcher::Config)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Projection
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let resource = plural_of::<K>();
        let namespaces = if in_platform_namespace {
            &self.with_platform
        } else {
            &self.served
        };
        for namespace in namespaces {
            let synced = CancellationToken::new();
            let unserved = Arc::<AtomicBool>::default();
            let api = match namespace {
                Some(namespace) => Api::<Guarded<K>>::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            self.started.push(Watch {
                resource,
                activity: self.metrics.requests.track(api.resource_url()),
                synced: synced.clone(),
                unserved: unserved.clone(),
            });
            let watcher = CacheWatcher {
                api,
                namespace: namespace.clone(),
                config: config.clone(),
                cache: cache.clone(),
                synced,
                unserved,
                metrics: self.metrics.for_watch(resource),
            };
            self.tasks.spawn(watcher.run());
        }
    }

    /// Returns every watch that was started.
    pub(crate) fn started(self) -> Vec<Watch> {
        self.started
    }
}
