//! Where objects live: one map and one ring of events for each resource, one resource version for all.
//!
//! **What a write costs.** In memory: one map insertion, one ring entry and one wake-up for each watch of that resource,
//! under one short lock; objects are shared by reference, and an object is serialised once, whoever asks first. On disk
//! the same, plus the object's bytes in a redb transaction made by one writer thread. Writes that arrive while a
//! transaction is being synced share the next one, so that the price of `fsync` is divided among them.
//!
//! **What a reader sees.** Nothing that could still be lost: responses wait for the [barrier](Store::barrier) of the
//! newest version they show, and watches get events only once these are durable.
//!
//! **What a list costs.** One reference count per object in it. A list at an older version is computed by undoing the
//! ring's events, so pages are consistent without a snapshot being kept, and expire with the ring.

mod disk;
mod object;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

pub use disk::OpenError;
pub(crate) use object::{Object, ObjectKey, WatchEvent, WatchEventType, frame};

/// The collection that namespaces themselves live in; creations are checked against it.
pub(crate) const NAMESPACES: &str = "/namespaces";

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// No object of that key exists, and its namespace (if the key has one) accepts new objects.
    Absent,
    /// The object exists at exactly this version.
    Version(u64),
}

/// What a write does.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Stores this object; its `metadata.resourceVersion` is filled in.
    Put(Value),
    /// Removes the object; this is its last state, as the DELETED event shows it.
    Remove(Value),
}

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitError {
    /// The object exists.
    #[error("the object exists")]
    AlreadyExists,
    /// The object does not exist.
    #[error("the object does not exist")]
    NotFound,
    /// The object is at another version.
    #[error("the object was changed")]
    Conflict,
    /// The namespace does not exist.
    #[error("the namespace does not exist")]
    NamespaceNotFound,
    /// The namespace is being deleted.
    #[error("the namespace is being terminated")]
    NamespaceTerminating,
    /// The resource is gone (its CRD was deleted).
    #[error("the resource is gone")]
    CollectionNotFound,
    /// Earlier writes could not be made durable; nothing more is accepted.
    #[error("the storage failed: {0}")]
    Failed(String),
}

/// A version that the history does not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceExpired {
    /// The version asked for.
    pub asked: u64,
    /// The oldest version that can be served.
    pub oldest: u64,
}

/// Which objects to list.
pub(crate) struct ListQuery<'a> {
    /// Only this namespace.
    pub namespace: Option<&'a str>,
    /// Only objects after this key.
    pub after: Option<&'a ObjectKey>,
    /// As of this version; now when `None`.
    pub at: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only objects that this accepts.
    pub filter: Option<&'a (dyn Fn(&Object) -> bool + Sync)>,
}

/// A list, or a page of one.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The objects, in order of their keys.
    pub items: Vec<Arc<Object>>,
    /// The version that the list shows.
    pub version: u64,
    /// Whether more follow.
    pub more: bool,
    /// How many follow; only known without a filter.
    pub remaining: Option<usize>,
}

/// Events after a version.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The events in order.
    pub events: Vec<Arc<WatchEvent>>,
    /// Where the next batch starts; everything of this resource up to here has been given.
    pub cursor: u64,
}

/// How far the writes have become durable.
#[derive(Clone, Debug, Default)]
struct DurableState {
    version: u64,
    failed: Option<Arc<str>>,
}

/// The objects and events of a resource.
#[derive(Debug)]
pub(crate) struct Collection {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    events: VecDeque<Arc<WatchEvent>>,
    /// Events up to and including this version are not in the ring.
    floor: u64,
    changed: watch::Sender<CollectionNews>,
}

/// What watches wait for: nothing but the wake-up, until the resource goes away and leaves its last events.
pub(crate) type CollectionNews = Option<Arc<Collection>>;

impl Collection {
    fn new(floor: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            events: VecDeque::new(),
            floor,
            changed: watch::Sender::new(None),
        }
    }

    fn events_after(&self, version: u64) -> impl Iterator<Item = &Arc<WatchEvent>> {
        let start = self.events.partition_point(|e| e.version() <= version);
        self.events.range(start..)
    }

    /// The objects as they were at `version`.
    fn rewound(&self, version: u64) -> Option<BTreeMap<ObjectKey, Arc<Object>>> {
        let mut undone: BTreeMap<&ObjectKey, Option<&Arc<Object>>> = BTreeMap::new();
        for event in self.events_after(version) {
            undone.entry(event.object.key()).or_insert(event.previous.as_ref());
        }
        if undone.is_empty() {
            return None;
        }
        let mut objects = self.objects.clone();
        for (key, previous) in undone {
            match previous {
                Some(object) => objects.insert(key.clone(), Arc::clone(object)),
                None => objects.remove(key),
            };
        }
        Some(objects)
    }
}

#[derive(Debug)]
struct StoreState {
    version: u64,
    collections: HashMap<Arc<str>, Collection>,
}

/// The objects of a server.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<StoreState>,
    progress: watch::Sender<DurableState>,
    disk: Option<disk::Writer>,
    history: usize,
    uid: String,
}

impl Store {
    /// An empty store in memory that remembers `history` events for each resource.
    pub(crate) fn memory(history: usize) -> Arc<Self> {
        Arc::new(Self::new(
            StoreState {
                version: 1,
                collections: HashMap::new(),
            },
            None,
            history,
            None,
        ))
    }

    /// Opens or creates the store in this directory.
    pub(crate) fn disk(directory: &Path, history: usize) -> Result<Arc<Self>, OpenError> {
        let opened = disk::open(directory)?;
        let mut collections: HashMap<Arc<str>, Collection> = HashMap::new();
        for (collection, object) in opened.objects {
            collections
                .entry(collection)
                .or_insert_with(|| Collection::new(opened.version))
                .objects
                .insert(object.key().clone(), Arc::new(object));
        }
        let inner = StoreState {
            version: opened.version,
            collections,
        };
        let store = Arc::new_cyclic(|weak: &std::sync::Weak<Self>| {
            let weak = weak.clone();
            let writer = disk::Writer::start(opened.database, move |outcome| {
                if let Some(store) = weak.upgrade() {
                    store.written(outcome);
                }
            });
            Self::new(inner, Some(writer), history, Some(opened.uid))
        });
        Ok(store)
    }

    fn new(inner: StoreState, disk: Option<disk::Writer>, history: usize, uid: Option<String>) -> Self {
        let progress = watch::Sender::new(DurableState {
            version: inner.version,
            failed: None,
        });
        let uid = uid.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        Self {
            inner: Mutex::new(inner),
            progress,
            disk,
            history,
            uid,
        }
    }

    /// The identity of this store; on disk it survives restarts.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    fn lock(&self) -> MutexGuard<'_, StoreState> {
        // No code that can panic runs between two changes that belong together, so a poisoned lock guards whole data.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a resource known. Until then it has no objects and cannot be watched.
    pub(crate) fn add_collection(&self, collection: &str) {
        let mut inner = self.lock();
        let version = inner.version;
        inner
            .collections
            .entry(Arc::from(collection))
            .or_insert_with(|| Collection::new(version));
    }

    /// Forgets a resource that has no objects any more; its watches end.
    pub(crate) fn remove_collection(&self, collection: &str) {
        let mut inner = self.lock();
        if inner.collections.get(collection).is_some_and(|c| c.objects.is_empty())
            && let Some(mut removed) = inner.collections.remove(collection)
        {
            // Watches that are behind still see how the objects went.
            let changed = std::mem::replace(&mut removed.changed, watch::Sender::new(None));
            changed.send_replace(Some(Arc::new(removed)));
        }
    }

    /// The newest version that was given out (durable or not).
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Waits until everything up to `version` is durable.
    pub(crate) async fn barrier(&self, version: u64) -> Result<(), CommitError> {
        if self.disk.is_none() {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|p| p.version >= version || p.failed.is_some()).await;
        match reached {
            Ok(p) if p.version >= version => Ok(()),
            Ok(p) => Err(CommitError::Failed(p.failed.as_deref().unwrap_or_default().to_owned())),
            Err(_) => Err(CommitError::Failed("closed".into())),
        }
    }

    /// Reads an object, which may not be durable yet: wait for the [barrier](Self::barrier) of its version.
    pub(crate) fn get(&self, collection: &str, key: &ObjectKey) -> Option<Arc<Object>> {
        self.lock().collections.get(collection)?.objects.get(key).cloned()
    }

    /// How many objects a resource has.
    pub(crate) fn count(&self, collection: &str) -> usize {
        self.lock().collections.get(collection).map_or(0, |c| c.objects.len())
    }

    /// Lists objects; wait for the [barrier](Self::barrier) of the list's version before showing it.
    pub(crate) fn list(&self, collection: &str, query: &ListQuery<'_>) -> Result<Listed, ResourceExpired> {
        let inner = self.lock();
        let now = inner.version;
        let Some(found) = inner.collections.get(collection) else {
            return Ok(Listed {
                version: now,
                ..Listed::default()
            });
        };
        let version = query.at.unwrap_or(now);
        if version < found.floor {
            return Err(ResourceExpired {
                asked: version,
                oldest: found.floor,
            });
        }
        let rewound = if version < now { found.rewound(version) } else { None };
        let objects = rewound.as_ref().unwrap_or(&found.objects);
        let start = match (query.after, query.namespace) {
            (Some(key), _) => std::ops::Bound::Excluded(key.clone()),
            (None, Some(namespace)) => std::ops::Bound::Included(ObjectKey::new(namespace, "")),
            (None, None) => std::ops::Bound::Unbounded,
        };
        let mut rest = objects
            .range((start, std::ops::Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(|o| query.namespace.is_none_or(|n| o.key().namespace == n))
            .filter(|o| query.filter.is_none_or(|accepts| accepts(o)));
        let limit = query.limit.unwrap_or(usize::MAX);
        let items: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let (more, remaining) = match (items.len() < limit, query.filter) {
            (true, _) => (false, None),
            (false, Some(_)) => (rest.next().is_some(), None),
            (false, None) => {
                let count = rest.count();
                (count > 0, Some(count).filter(|c| *c > 0))
            }
        };
        Ok(Listed {
            items,
            version,
            more,
            remaining,
        })
    }

    /// Changes an object, at once and as a whole, and tells its new (for a removal: its last) state. The write becomes
    /// visible to watches when it is durable; wait for the [barrier](Self::barrier) before answering.
    pub(crate) fn commit(
        &self,
        collection: &str,
        key: &ObjectKey,
        expect: Precondition,
        change: Change,
    ) -> Result<Arc<Object>, CommitError> {
        if let Some(failed) = &self.progress.borrow().failed {
            return Err(CommitError::Failed(failed.to_string()));
        }
        let mut inner = self.lock();
        if expect == Precondition::Absent && !key.namespace.is_empty() {
            let namespaces = inner
                .collections
                .get(NAMESPACES)
                .ok_or(CommitError::NamespaceNotFound)?;
            let namespace = namespaces
                .objects
                .get(&ObjectKey::new("", &key.namespace))
                .ok_or(CommitError::NamespaceNotFound)?;
            if namespace.is_terminating() {
                return Err(CommitError::NamespaceTerminating);
            }
        }
        let version = inner.version + 1;
        let (name, found) = inner
            .collections
            .get_key_value(collection)
            .map(|(n, _)| Arc::clone(n))
            .and_then(|n| Some((n, inner.collections.get_mut(collection)?)))
            .ok_or(CommitError::CollectionNotFound)?;
        let previous = found.objects.get(key).cloned();
        match (expect, &previous) {
            (Precondition::Absent, Some(_)) => return Err(CommitError::AlreadyExists),
            (Precondition::Version(_), None) => return Err(CommitError::NotFound),
            (Precondition::Version(v), Some(p)) if p.version() != v => return Err(CommitError::Conflict),
            _ => {}
        }
        let (kind, value) = match change {
            Change::Put(value) if previous.is_some() => (WatchEventType::Modified, value),
            Change::Put(value) => (WatchEventType::Added, value),
            Change::Remove(value) => (WatchEventType::Deleted, value),
        };
        let object = Arc::new(Object::new(key.clone(), version, value));
        if kind == WatchEventType::Deleted {
            found.objects.remove(key);
        } else {
            found.objects.insert(key.clone(), Arc::clone(&object));
        }
        found
            .events
            .push_back(Arc::new(WatchEvent::new(kind, Arc::clone(&object), previous)));
        if found.events.len() > self.history
            && let Some(dropped) = found.events.pop_front()
        {
            found.floor = dropped.version();
        }
        inner.version = version;
        match &self.disk {
            // Sent under the lock, so that the writer sees the writes in the order of their versions.
            Some(writer) => writer.send(disk::Write {
                collection: name,
                kind,
                object: Arc::clone(&object),
            }),
            None => {
                self.progress.send_replace(DurableState { version, failed: None });
                if let Some(found) = inner.collections.get(collection) {
                    found.changed.send_replace(None);
                }
            }
        }
        Ok(object)
    }

    /// Called by the writer thread after each transaction.
    fn written(&self, outcome: Result<disk::Synced, String>) {
        match outcome {
            Ok(synced) => {
                self.progress.send_modify(|p| p.version = synced.version);
                let inner = self.lock();
                for name in synced.collections {
                    if let Some(found) = inner.collections.get(&name) {
                        found.changed.send_replace(None);
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the storage failed; no further writes are accepted");
                self.progress.send_modify(|p| p.failed = Some(error.into()));
            }
        }
    }

    /// A receiver that is woken by each change of a resource; its sender is dropped when the resource goes away.
    pub(crate) fn subscribe(&self, collection: &str) -> Option<watch::Receiver<CollectionNews>> {
        self.lock().collections.get(collection).map(|c| c.changed.subscribe())
    }

    /// At most `limit` durable events of a resource after `version`.
    pub(crate) fn events(
        &self,
        collection: &str,
        news: &watch::Receiver<CollectionNews>,
        version: u64,
        limit: usize,
    ) -> Result<Batch, ResourceExpired> {
        let last = news.borrow().clone();
        let inner = self.lock();
        let durable = self.progress.borrow().version;
        let Some(found) = last.as_deref().or_else(|| inner.collections.get(collection)) else {
            return Ok(Batch {
                events: Vec::new(),
                cursor: version,
            });
        };
        if version < found.floor {
            return Err(ResourceExpired {
                asked: version,
                oldest: found.floor,
            });
        }
        let events: Vec<_> = found
            .events_after(version)
            .take_while(|e| e.version() <= durable)
            .take(limit)
            .cloned()
            .collect();
        let cursor = if events.len() < limit {
            durable.max(version)
        } else {
            events.last().map_or(version, |e| e.version())
        };
        Ok(Batch { events, cursor })
    }

    /// Waits for the writes under way and closes the files. Later writes fail.
    pub(crate) async fn close(&self) {
        if let Some(writer) = &self.disk {
            let version = self.version();
            if let Err(error) = self.barrier(version).await {
                tracing::error!(%error, "the last writes are not durable");
            }
            self.progress
                .send_modify(|p| p.failed = Some("the server was shut down".into()));
            writer.stop().await;
        }
    }
}
