//! The objects of one kind, from its watches and from the answers of own writes.
//!
//! The answer of an own write enters the cache like an event of the watch. The cache ignores events that are older than
//! its content. So a controller never decides on a state that its own last write has changed, even if the watch lags
//! behind or is rewound, and without an extra read. KEP-5647 has the same purpose, but waits for the own write.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::error_boundary::InvalidObject, runtime::watcher::Event};

use crate::{key::Key, watch::guarded::Guarded};

/// One object of the cache: an object of its type, or the metadata of one that does not fit the type.
#[derive(Debug)]
pub(crate) enum Entry<K> {
    /// It is of its type.
    Valid(Arc<K>),
    /// It cannot be read. Holds its metadata and the reason.
    Invalid(Arc<InvalidObject>),
}

impl<K> Clone for Entry<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Valid(object) => Self::Valid(object.clone()),
            Self::Invalid(invalid) => Self::Invalid(invalid.clone()),
        }
    }
}

impl<K> From<Guarded<K>> for Entry<K> {
    fn from(guarded: Guarded<K>) -> Self {
        match guarded.0 {
            Ok(object) => Self::Valid(Arc::new(object)),
            Err(invalid) => Self::Invalid(Arc::new(invalid)),
        }
    }
}

impl<K: Resource> Entry<K> {
    /// Its metadata.
    #[must_use]
    pub(crate) fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Valid(object) => object.meta(),
            Self::Invalid(invalid) => &invalid.metadata,
        }
    }

    /// The object, when it is of its type.
    #[must_use]
    pub(crate) fn valid(&self) -> Option<&Arc<K>> {
        match self {
            Self::Valid(object) => Some(object),
            Self::Invalid(_) => None,
        }
    }
}

/// The change of one object.
#[derive(Debug)]
pub(crate) struct Change<K> {
    /// Which object.
    pub(crate) key: Key,
    /// The object before the change, if it existed.
    pub(crate) old: Option<Entry<K>>,
    /// The object after the change, if it exists.
    pub(crate) new: Option<Entry<K>>,
}

/// Called for every change, from a watch or from our own writes, in the order of the changes. The cache is locked
/// meanwhile, so the function must not access the same cache.
pub(crate) type OnChange<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// All objects of a kind that the operator may read.
pub(crate) struct Cache<K> {
    objects: RwLock<HashMap<Key, Entry<K>>>,
    /// The uids of the last deleted objects. The answer of an own write may arrive after the deletion event. It must
    /// not restore the object.
    ended: Mutex<VecDeque<String>>,
    on_change: OnChange<K>,
}

/// Number of remembered uids: far more than deletions during one request.
const ENDED: usize = 1024;

/// The source of a new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Watch,
    Call,
}

/// The state of one watch of a cache. The watches of several namespaces may fill the same cache.
#[derive(Debug, Default)]
pub(crate) struct Relist {
    /// The keys of the list in progress.
    listed: Option<HashSet<Key>>,
}

/// Returns `metadata.resourceVersion` as a number (KEP-5504), or 0 if it is none.
fn version(metadata: &ObjectMeta) -> u64 {
    metadata
        .resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Returns whether `new` is at least as recent as `old`. Of two objects with different uids the last one counts: after
/// a restore, versions of a reused name cannot be compared.
fn is_news(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid != new.uid || version(new) >= version(old)
}

impl<K: Resource> Cache<K> {
    /// Creates an empty cache.
    #[must_use]
    pub(crate) fn new(on_change: OnChange<K>) -> Self {
        Self {
            objects: RwLock::default(),
            ended: Mutex::default(),
            on_change,
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Key, Entry<K>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Key, Entry<K>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of that key, when it is there and of its type.
    #[must_use]
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().get(key).and_then(|entry| entry.valid().cloned())
    }

    /// What is there under that key.
    #[must_use]
    pub(crate) fn entry(&self, key: &Key) -> Option<Entry<K>> {
        self.read().get(key).cloned()
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.read().len()
    }

    /// Looks at every object that is of its type. The cache is locked meanwhile.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&K)) {
        for entry in self.read().values() {
            if let Some(object) = entry.valid() {
                look(object);
            }
        }
    }

    /// Those objects of a namespace that pass, in the order of their names.
    #[must_use]
    pub(crate) fn select(&self, namespace: &str, mut pass: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        let objects = self.read();
        let mut found: Vec<(&Key, &Arc<K>)> = objects
            .iter()
            .filter(|(key, _)| &*key.namespace == namespace)
            .filter_map(|(key, entry)| entry.valid().map(|object| (key, object)))
            .filter(|(_, object)| pass(object))
            .collect();
        found.sort_by(|a, b| a.0.cmp(b.0));
        found.into_iter().map(|(_, object)| object.clone()).collect()
    }

    /// Takes in what a watch brings. A list ends with [`Cache::end_of_list`].
    pub(crate) fn apply(&self, relist: &mut Relist, event: Event<Guarded<K>>) {
        match event {
            Event::Init => relist.listed = Some(HashSet::new()),
            Event::InitApply(object) => {
                if let Some(listed) = &mut relist.listed {
                    listed.insert(Key::of(object.meta()));
                }
                self.put(object.into(), Origin::Watch);
            }
            Event::InitDone => {}
            Event::Apply(object) => self.put(object.into(), Origin::Watch),
            Event::Delete(object) => self.remove(object.meta()),
        }
    }

    /// Ends a list: what belongs to the watch (`is_ours`) and was not listed is gone.
    pub(crate) fn end_of_list(&self, relist: &mut Relist, is_ours: impl Fn(&Key) -> bool) {
        let Some(listed) = relist.listed.take() else { return };
        let mut gone = Vec::new();
        let mut objects = self.write();
        objects.retain(|key, entry| {
            let stays = !is_ours(key) || listed.contains(key);
            if !stays {
                self.note_end(entry.meta());
                gone.push(Change {
                    key: key.clone(),
                    old: Some(entry.clone()),
                    new: None,
                });
            }
            stays
        });
        gone.sort_by(|a, b| a.key.cmp(&b.key));
        gone.iter().for_each(&self.on_change);
    }

    /// Applies the answer of an own write, or of a read that checks the cache.
    pub(crate) fn apply_response(&self, object: K) {
        self.put(Entry::Valid(Arc::new(object)), Origin::Call);
    }

    /// Applies the answer of a read after the server contradicted the cache, independent of the versions. Versions go
    /// backwards when a cluster is restored from a backup.
    pub(crate) fn overwrite(&self, object: K) {
        self.replace(Entry::Valid(Arc::new(object)), Origin::Call, |old, new| {
            !is_same(old, new)
        });
    }

    /// Removes the object with this uid, after a read did not find it.
    pub(crate) fn remove_uid(&self, key: &Key, uid: Option<&str>) {
        self.drop_if(key, |held| held.uid.as_deref() == uid);
    }

    fn put(&self, new: Entry<K>, origin: Origin) {
        self.replace(new, origin, |old, new| is_news(old, new) && !is_same(old, new));
    }

    fn replace(&self, new: Entry<K>, origin: Origin, wanted: impl FnOnce(&ObjectMeta, &ObjectMeta) -> bool) {
        let key = Key::of(new.meta());
        let mut objects = self.write();
        match objects.get(&key) {
            Some(old) if !wanted(old.meta(), new.meta()) => return,
            // An object without the watch's label looks deleted, and returns with the label. So only answers of own
            // requests are ignored here.
            None if origin == Origin::Call && self.has_ended(new.meta()) => return,
            _ => {}
        }
        let old = objects.insert(key.clone(), new.clone());
        (self.on_change)(&Change {
            key,
            old,
            new: Some(new),
        });
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self, metadata: &ObjectMeta) -> bool {
        metadata.uid.as_ref().is_some_and(|uid| self.ended().contains(uid))
    }

    fn note_end(&self, metadata: &ObjectMeta) {
        let mut ended = self.ended();
        ended.truncate(ENDED - 1);
        if let Some(uid) = metadata.uid.clone() {
            ended.push_front(uid);
        }
    }

    fn remove(&self, deleted: &ObjectMeta) {
        // Ignore a late deletion of an earlier object of this name, and of an earlier state: the object had lost the
        // watch's label and has it again.
        self.drop_if(&Key::of(deleted), |held| {
            held.uid == deleted.uid && version(deleted) >= version(held)
        });
    }

    fn drop_if(&self, key: &Key, wanted: impl FnOnce(&ObjectMeta) -> bool) {
        let mut objects = self.write();
        let old = match objects.get(key) {
            Some(held) if wanted(held.meta()) => {
                self.note_end(held.meta());
                objects.remove(key)
            }
            _ => return,
        };
        (self.on_change)(&Change {
            key: key.clone(),
            old,
            new: None,
        });
    }
}

/// Returns whether both are the same object at the same version: a repeated event, or the event of an own write.
fn is_same(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid == new.uid && old.resource_version.is_some() && old.resource_version == new.resource_version
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn watched(name: &str, uid: &str, version: u64) -> Guarded<ConfigMap> {
        Guarded(Ok(object(name, uid, version)))
    }

    /// A cache, and the names of the changes that it reported since the last check.
    struct Probe {
        cache: Cache<ConfigMap>,
        reported: Arc<Mutex<Vec<String>>>,
        relist: Relist,
    }

    impl Probe {
        fn new() -> Self {
            let reported = Arc::new(Mutex::new(Vec::new()));
            let report = reported.clone();
            let cache = Cache::new(Box::new(move |change: &Change<ConfigMap>| {
                report.lock().unwrap().push(change.key.name.to_string());
            }));
            Self {
                cache,
                reported,
                relist: Relist::default(),
            }
        }

        #[track_caller]
        fn assert_reported(&self, expected: &[&str]) {
            assert_eq!(std::mem::take(&mut *self.reported.lock().unwrap()), expected);
        }

        fn event(&mut self, event: Event<Guarded<ConfigMap>>) {
            self.cache.apply(&mut self.relist, event);
        }

        fn held(&self, name: &str) -> Option<u64> {
            self.cache
                .get(&Key::new("ns", name))
                .map(|object| version(&object.metadata))
        }
    }

    #[test]
    fn an_own_write_is_seen_immediately_and_a_lagging_watch_does_not_undo_it() {
        let mut probe = Probe::new();
        probe.event(Event::Apply(watched("a", "u1", 5)));
        probe.cache.apply_response(object("a", "u1", 8));
        probe.assert_reported(&["a", "a"]);
        for late in [6, 7, 8] {
            probe.event(Event::Apply(watched("a", "u1", late)));
            probe.assert_reported(&[]);
            assert_eq!(probe.held("a"), Some(8));
        }
        // As a number, 10 is more than 8.
        probe.event(Event::Apply(watched("a", "u1", 10)));
        probe.assert_reported(&["a"]);
        assert_eq!(probe.held("a"), Some(10));
    }

    #[test]
    fn a_deletion_of_an_earlier_object_or_of_an_earlier_state_is_ignored() {
        let mut probe = Probe::new();
        probe.cache.apply_response(object("a", "u2", 8));
        probe.assert_reported(&["a"]);
        probe.event(Event::Delete(watched("a", "u1", 9)));
        probe.event(Event::Delete(watched("a", "u2", 7)));
        probe.assert_reported(&[]);
        assert_eq!(probe.held("a"), Some(8));
        probe.event(Event::Delete(watched("a", "u2", 9)));
        probe.assert_reported(&["a"]);
        assert_eq!(probe.held("a"), None);
    }

    #[test]
    fn a_list_drops_missing_objects_and_reports_them() {
        let mut probe = Probe::new();
        probe.event(Event::Apply(watched("gone", "u1", 1)));
        probe.event(Event::Apply(watched("stays", "u2", 2)));
        probe.assert_reported(&["gone", "stays"]);
        probe.event(Event::Init);
        probe.event(Event::InitApply(watched("stays", "u2", 2)));
        probe.cache.end_of_list(&mut probe.relist, |_| true);
        probe.assert_reported(&["gone"]);
        assert_eq!((probe.held("gone"), probe.held("stays")), (None, Some(2)));
    }

    #[test]
    fn a_list_leaves_the_namespaces_of_other_watches_alone() {
        let mut probe = Probe::new();
        probe.event(Event::Apply(watched("a", "u1", 1)));
        probe.event(Event::Init);
        probe
            .cache
            .end_of_list(&mut probe.relist, |key| &*key.namespace == "other");
        assert_eq!(probe.held("a"), Some(1));
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_has_ended() {
        let mut probe = Probe::new();
        probe.event(Event::Apply(watched("a", "u1", 5)));
        probe.event(Event::Delete(watched("a", "u1", 6)));
        probe.cache.apply_response(object("a", "u1", 5));
        assert_eq!(probe.held("a"), None);
        // Unless the watch shows it again: it had only lost the label for a while.
        probe.event(Event::Apply(watched("a", "u1", 8)));
        assert_eq!(probe.held("a"), Some(8));
        probe.cache.apply_response(object("a", "u2", 9));
        assert_eq!(probe.held("a"), Some(9));
    }

    #[test]
    fn a_correction_counts_even_when_versions_went_backwards() {
        let probe = Probe::new();
        probe.cache.apply_response(object("a", "u1", 80));
        probe.cache.overwrite(object("a", "u1", 7));
        assert_eq!(probe.held("a"), Some(7));
    }
}
