//! The object store: one map and one ring of watch events for each resource, and one resource version for all.
//!
//! **Cost of a write.** In memory: one map insertion, one ring entry, and one notification for each watch of that
//! resource, under one short lock. Objects are shared by reference. The first reader serializes an object, and all
//! others use its bytes. On disk, a single writer thread also writes the object's bytes in a redb transaction. Writes
//! that arrive during the sync of a transaction share the next one, which divides the cost of `fsync` among them.
//!
//! **Visibility.** A reader never sees data that could still be lost. Responses wait for the [barrier](Store::barrier)
//! of their newest version, and watches get only durable events.
//!
//! **Cost of a list.** One reference count per object in it. A list at an older version undoes the events in the ring.
//! Pages are therefore consistent without a stored snapshot, and expire with the ring.

mod disk;
mod object;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

pub use self::disk::OpenError;
pub(crate) use self::object::{Object, ObjectKey, WatchEvent, WatchEventType, frame};

/// The collection of the namespaces themselves. Creations check that their namespace exists in it.
pub(crate) const NAMESPACES: &str = "/namespaces";

/// The precondition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// No object with this key exists, and its namespace (if the key has one) accepts new objects.
    Absent,
    /// The object exists at exactly this version.
    Version(u64),
}

/// The effect of a write.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Stores this object and sets its `metadata.resourceVersion`.
    Put(Value),
    /// Removes the object. This is its last state, for the DELETED event.
    Remove(Value),
}

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitError {
    /// The object already exists.
    #[error("the object exists")]
    AlreadyExists,
    /// The object does not exist.
    #[error("the object does not exist")]
    NotFound,
    /// The object has another version.
    #[error("the object was changed")]
    Conflict,
    /// The namespace does not exist.
    #[error("the namespace does not exist")]
    NamespaceNotFound,
    /// The namespace is being deleted.
    #[error("the namespace is being terminated")]
    NamespaceTerminating,
    /// The resource no longer exists, because its CRD was deleted.
    #[error("the resource no longer exists")]
    CollectionNotFound,
    /// Earlier writes could not be made durable. The store accepts no more writes.
    #[error("the storage failed: {0}")]
    Failed(String),
}

/// The history does not reach back to this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceExpired {
    /// The requested version.
    pub asked: u64,
    /// The oldest available version.
    pub oldest: u64,
}

/// The selection of objects for a list. The default selects all of them.
#[derive(Default)]
pub(crate) struct ListQuery<'a> {
    /// Only this namespace.
    pub namespace: Option<&'a str>,
    /// Only objects after this key.
    pub after: Option<&'a ObjectKey>,
    /// At this version. `None` is the current version.
    pub at: Option<u64>,
    /// The maximum number of objects.
    pub limit: Option<usize>,
    /// Only objects for which this returns true.
    pub filter: Option<&'a (dyn Fn(&Object) -> bool + Sync)>,
}

/// A list, or a page of one.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The objects, in order of their keys.
    pub items: Vec<Arc<Object>>,
    /// The version of the list.
    pub version: u64,
    /// Whether more objects follow.
    pub more: bool,
    /// The number of objects that follow. It is unknown if there is a filter.
    pub remaining: Option<usize>,
}

/// Events after a version.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The events in order.
    pub events: Vec<Arc<WatchEvent>>,
    /// The start of the next batch. All events of this resource up to here have been returned.
    pub cursor: u64,
}

/// The durable version of the store, and its failure.
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

/// The notification for watches. It is empty, except after the removal of a resource: then it contains the last events.
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

    /// Returns the objects at `version`.
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
    /// Creates an empty store in memory that keeps `history` events for each resource.
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

    /// Returns the identity of this store. On disk it survives restarts.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    fn lock(&self) -> MutexGuard<'_, StoreState> {
        // No code between two related changes can panic, so the data behind a poisoned lock is consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a resource. Before that it has no objects and cannot be watched.
    pub(crate) fn add_collection(&self, collection: &str) {
        let mut inner = self.lock();
        let version = inner.version;
        inner
            .collections
            .entry(Arc::from(collection))
            .or_insert_with(|| Collection::new(version));
    }

    /// Removes a resource that has no objects. Its watches end.
    pub(crate) fn remove_collection(&self, collection: &str) {
        let mut inner = self.lock();
        if inner.collections.get(collection).is_some_and(|c| c.objects.is_empty())
            && let Some(mut removed) = inner.collections.remove(collection)
        {
            // Watches that are behind still receive the DELETED events.
            let changed = std::mem::replace(&mut removed.changed, watch::Sender::new(None));
            changed.send_replace(Some(Arc::new(removed)));
        }
    }

    /// Returns the newest assigned version, durable or not.
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

    /// Returns an object. It may not be durable yet: wait for the [barrier](Self::barrier) of its version.
    pub(crate) fn get(&self, collection: &str, key: &ObjectKey) -> Option<Arc<Object>> {
        self.lock().collections.get(collection)?.objects.get(key).cloned()
    }

    /// Returns the number of objects of a resource.
    pub(crate) fn count(&self, collection: &str) -> usize {
        self.lock().collections.get(collection).map_or(0, |c| c.objects.len())
    }

    /// Lists objects. Wait for the [barrier](Self::barrier) of the list's version before you show it.
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

    /// Changes an object atomically and returns its new state. For a removal, this is its last state. Watches see the
    /// write when it is durable. Wait for the [barrier](Self::barrier) before you answer.
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
            // Sent under the lock, so that the writer receives writes in the order of their versions.
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

    /// Handles the result of each transaction. The writer thread calls it.
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
                tracing::error!(%error, "the storage failed, and the server accepts no more writes");
                self.progress.send_modify(|p| p.failed = Some(error.into()));
            }
        }
    }

    /// Returns a receiver that is notified of each change of a resource. Its sender is dropped when the resource is
    /// removed.
    pub(crate) fn subscribe(&self, collection: &str) -> Option<watch::Receiver<CollectionNews>> {
        self.lock().collections.get(collection).map(|c| c.changed.subscribe())
    }

    /// Returns at most `limit` durable events of a resource after `version`.
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

    /// Waits for pending writes and closes the files. Later writes fail.
    pub(crate) async fn close(&self) {
        if let Some(writer) = &self.disk {
            let version = self.version();
            if let Err(error) = self.barrier(version).await {
                tracing::error!(%error, "the last writes may be lost");
            }
            self.progress
                .send_modify(|p| p.failed = Some("the server was shut down".into()));
            writer.stop().await;
        }
    }
}
