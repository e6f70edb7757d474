//! Watches on every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll, StreamExt};
use k8s_openapi::api::core::v1::Event as KubeEvent;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A change of an object.
pub(super) enum ObjectChange {
    Applied {
        resource: Arc<ApiResource>,
        object: Box<DynamicObject>,
        /// The last occurrence of an Event.
        seen: Option<jiff::Timestamp>,
    },
    Deleted {
        uid: String,
    },
}

type ResourceKey = (String, String, String);

struct ResourceWatch {
    resource: Arc<ApiResource>,
    namespaced: bool,
    /// Uids that its watch has reported.
    known: BTreeSet<String>,
    /// Uids of the list in progress.
    listing: Option<BTreeSet<String>>,
    listed: bool,
    _watch: DropGuard,
}

enum WatchSignal {
    Watch(ResourceKey, Box<Event<DynamicObject>>),
    /// The set of kinds may have changed.
    Kinds,
}

/// The watches, one for each kind.
pub(super) struct ResourceWatches {
    client: Client,
    watches: BTreeMap<ResourceKey, ResourceWatch>,
    streams: SelectAll<BoxStream<'static, WatchSignal>>,
    pending: std::collections::VecDeque<ObjectChange>,
    discovered: bool,
    retry: Option<Duration>,
}

impl ResourceWatches {
    pub(super) fn new(client: Client) -> Self {
        let mut streams = SelectAll::new();
        let definitions = ApiResource {
            group: "apiextensions.k8s.io".into(),
            version: "v1".into(),
            api_version: "apiextensions.k8s.io/v1".into(),
            kind: "CustomResourceDefinition".into(),
            plural: "customresourcedefinitions".into(),
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
        let kinds = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let kinds = kinds.filter_map(|event| async move {
            matches!(event, Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone)).then_some(WatchSignal::Kinds)
        });
        streams.push(kinds.boxed());
        let pending = std::collections::VecDeque::new();
        Self {
            client,
            watches: BTreeMap::new(),
            streams,
            pending,
            discovered: false,
            retry: None,
        }
    }

    /// Returns whether every kind has been listed once. Before that, an unknown owner may still be on its way.
    pub(super) fn settled(&self) -> bool {
        self.discovered && self.pending.is_empty() && self.watches.values().all(|watch| watch.listed)
    }

    /// Returns every namespaced kind.
    pub(super) fn namespaced(&self) -> Vec<Arc<ApiResource>> {
        self.watches
            .values()
            .filter(|s| s.namespaced)
            .map(|s| Arc::clone(&s.resource))
            .collect()
    }

    /// Returns the next change. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<ObjectChange> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            let signal = match self.retry {
                Some(delay) => tokio::select! {
                    signal = self.streams.next() => signal?,
                    () = tokio::time::sleep(delay) => WatchSignal::Kinds,
                },
                None => self.streams.next().await?,
            };
            match signal {
                WatchSignal::Kinds => {
                    // Set first, so that a cancelled discovery is started again.
                    self.retry = Some(Duration::from_millis(200));
                    if self.discover().await {
                        self.retry = None;
                        self.discovered = true;
                    }
                }
                WatchSignal::Watch(key, event) => self.take(&key, *event),
            }
        }
    }

    async fn discover(&mut self) -> bool {
        let discovery = match Discovery::new(self.client.clone()).run().await {
            Ok(discovery) => discovery,
            Err(error) => {
                tracing::debug!(%error, "discovery failed, trying again");
                return false;
            }
        };
        let mut found = BTreeSet::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let usable = [verbs::LIST, verbs::WATCH, verbs::DELETE]
                    .iter()
                    .all(|v| capabilities.supports_operation(v));
                // The core group serves the same events.
                if !usable || resource.group == "events.k8s.io" {
                    continue;
                }
                let key = (
                    resource.group.clone(),
                    resource.version.clone(),
                    resource.plural.clone(),
                );
                found.insert(key.clone());
                if !self.watches.contains_key(&key) {
                    self.watch(key, resource, capabilities.scope == Scope::Namespaced);
                }
            }
        }
        let gone: Vec<_> = self
            .watches
            .keys()
            .filter(|key| !found.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(watch) = self.watches.remove(&key) {
                self.pending
                    .extend(watch.known.into_iter().map(|uid| ObjectChange::Deleted { uid }));
            }
        }
        true
    }

    fn watch(&mut self, key: ResourceKey, resource: ApiResource, namespaced: bool) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let name = key.clone();
        let stream = watcher(api, watcher::Config::default())
            .default_backoff()
            .filter_map(move |event| {
                let name = name.clone();
                async move { event.ok().map(|event| WatchSignal::Watch(name, Box::new(event))) }
            })
            .take_until(async move { stopped.cancelled().await });
        self.streams.push(stream.boxed());
        let resource = Arc::new(resource);
        let watch = ResourceWatch {
            resource,
            namespaced,
            known: BTreeSet::new(),
            listing: None,
            listed: false,
            _watch: stop.drop_guard(),
        };
        self.watches.insert(key, watch);
    }

    fn take(&mut self, key: &ResourceKey, event: Event<DynamicObject>) {
        let Some(watch) = self.watches.get_mut(key) else {
            return;
        };
        let mut applied = |watch: &mut ResourceWatch, object: DynamicObject| {
            let Some(uid) = object.metadata.uid.clone() else { return };
            watch.known.insert(uid.clone());
            if let Some(listing) = &mut watch.listing {
                listing.insert(uid);
            }
            let seen = seen(&watch.resource, &object);
            // The graph needs only the metadata.
            let slim = DynamicObject {
                types: None,
                metadata: object.metadata,
                data: serde_json::Value::Null,
            };
            let resource = Arc::clone(&watch.resource);
            self.pending.push_back(ObjectChange::Applied {
                resource,
                object: Box::new(slim),
                seen,
            });
        };
        match event {
            Event::Init => watch.listing = Some(BTreeSet::new()),
            Event::InitApply(object) | Event::Apply(object) => applied(watch, object),
            Event::InitDone => {
                watch.listed = true;
                let listed = watch.listing.take().unwrap_or_default();
                let gone: Vec<_> = watch.known.difference(&listed).cloned().collect();
                for uid in gone {
                    watch.known.remove(&uid);
                    self.pending.push_back(ObjectChange::Deleted { uid });
                }
            }
            Event::Delete(object) => {
                if let Some(uid) = object.metadata.uid {
                    watch.known.remove(&uid);
                    self.pending.push_back(ObjectChange::Deleted { uid });
                }
            }
        }
    }
}

fn seen(resource: &ApiResource, object: &DynamicObject) -> Option<jiff::Timestamp> {
    if resource.kind != "Event" || !resource.group.is_empty() {
        return None;
    }
    let event: KubeEvent = object.clone().try_parse().ok()?;
    let series = event.series.and_then(|s| s.last_observed_time).map(|t| t.0);
    // An event may describe something long past. It is still kept for an hour.
    let times = [
        series,
        event.last_timestamp.map(|t| t.0),
        event.event_time.map(|t| t.0),
        event.metadata.creation_timestamp.map(|t| t.0),
    ];
    times.into_iter().flatten().max()
}
