//! Fills a cache from a watch, for ever.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    Api, Resource,
    core::Status,
    runtime::watcher::{self, Event, watcher},
};
use legion_runtime::retry::{Backoff, ErrorClass, classify, classify_status};
use tokio_util::sync::CancellationToken;

use crate::{
    crds::INSTALL,
    key::Key,
    metrics::WatchMetrics,
    watch::{
        cache::{Cache, Relist},
        guarded::Guarded,
        projection::Projection,
    },
};

/// Between two attempts of a watch that fails.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(400),
    limit: Duration::from_secs(30),
};
/// A list that makes no progress for so long is begun again. Without this a body that never ends would hold the cache
/// at an old state for ever, because only watches have an idle timeout of their own.
const LIST_STALL: Duration = Duration::from_secs(60);

/// One watch of one kind: of all namespaces, or of one.
pub(crate) struct CacheWatcher<K> {
    /// Where the objects are.
    pub(crate) api: Api<Guarded<K>>,
    /// The only namespace of the watch, if it has one.
    pub(crate) namespace: Option<String>,
    /// Which objects count, and how they are listed.
    pub(crate) config: watcher::Config,
    /// What is filled.
    pub(crate) cache: Arc<Cache<K>>,
    /// Cancelled once the first list is complete.
    pub(crate) synced: CancellationToken,
    /// Whether the API server does not know the kind.
    pub(crate) unserved: Arc<AtomicBool>,
    /// Counts what happens.
    pub(crate) metrics: WatchMetrics,
}

impl<K> CacheWatcher<K>
where
    K: Resource<DynamicType = ()> + Projection + Clone + Debug + Send + Sync + 'static,
{
    /// Watches without an end.
    pub(crate) async fn run(self) {
        let mut failures = 0;
        loop {
            self.watch(&mut failures).await;
            failures += 1;
            let name = format!("{}/{}", K::plural(&()), self.namespace.as_deref().unwrap_or_default());
            tokio::time::sleep(BACKOFF.delay(&name, failures)).await;
        }
    }

    /// Watches until a new list must start: because the list stalled, or because the server no longer knows the version
    /// from which the watch continues and answers with an HTTP status. kube's watcher would request that version
    /// forever.
    async fn watch(&self, failures: &mut u32) {
        let mut stream = std::pin::pin!(watcher(self.api.clone(), self.config.clone()));
        let mut relist = Relist::default();
        let mut listing = true;
        loop {
            let next = if listing {
                match tokio::time::timeout(LIST_STALL, stream.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        tracing::warn!(kind = %K::kind(&()), "the list makes no progress: starting it again");
                        return;
                    }
                }
            } else {
                stream.next().await
            };
            match next {
                Some(Ok(event)) => {
                    *failures = 0;
                    self.unserved.store(false, Ordering::Relaxed);
                    listing = match event {
                        Event::Init | Event::InitApply(_) => true,
                        Event::InitDone | Event::Apply(_) | Event::Delete(_) => false,
                    };
                    self.take(&mut relist, event);
                }
                Some(Err(error)) => {
                    *failures += 1;
                    self.metrics.failures.inc();
                    self.log(&error, *failures);
                    if is_expired(&error) && !listing {
                        return;
                    }
                    let backoff = BACKOFF.delay(&K::plural(&()), *failures);
                    tokio::time::sleep(backoff.max(retry_after(&error))).await;
                }
                None => return,
            }
        }
    }

    fn log(&self, error: &watcher::Error, failures: u32) {
        let (kind, resource) = (K::kind(&()), K::plural(&()));
        let unserved = status_of(error).is_some_and(|status| status.code == 404);
        if unserved {
            // Once, not every half minute.
            if !self.unserved.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    %kind,
                    "the API server does not serve {resource}: install the CRDs with `{INSTALL}`"
                );
            }
        } else if is_starting(error) {
            tracing::info!(%kind, "the API server is still preparing {resource}");
        } else {
            tracing::warn!(%kind, %error, failures, "the watch failed");
        }
    }

    fn take(&self, relist: &mut Relist, event: Event<Guarded<K>>) {
        match &event {
            Event::Apply(_) | Event::Delete(_) => {
                self.metrics.events.inc();
            }
            Event::Init | Event::InitApply(_) => {}
            Event::InitDone => {
                self.metrics.relists.inc();
                let ours = |key: &Key| {
                    self.namespace
                        .as_deref()
                        .is_none_or(|namespace| namespace == &*key.namespace)
                };
                self.cache.end_of_list(relist, ours);
                self.synced.cancel();
                return;
            }
        }
        self.cache.apply(relist, event);
    }
}

/// Returns the API server's own answer.
fn status_of(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// Returns whether the API server has just begun to serve the kind. For some seconds after a CRD is installed, it
/// answers so to every request.
fn is_starting(error: &watcher::Error) -> bool {
    status_of(error).is_some_and(|status| status.message.contains("storage is (re)initializing"))
}

/// Returns the `Retry-After` of a throttled request, at most the largest back-off. Zero for every other error.
fn retry_after(error: &watcher::Error) -> Duration {
    let class = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => classify(error),
        watcher::Error::WatchError(status) => classify_status(status),
        watcher::Error::NoResourceVersion => return Duration::ZERO,
    };
    match class {
        ErrorClass::Throttled(Some(asked)) => asked.min(BACKOFF.limit),
        _ => Duration::ZERO,
    }
}

/// Does the server no longer know the version that was asked for?
fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            status.code == 410 && classify_status(status) == ErrorClass::Gone
        }
        _ => false,
    }
}
