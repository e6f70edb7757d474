//! What the watches of one kind have brought, and what our own writes have answered.
//!
//! The answer of an own write enters the cache as if the watch had brought it, and an event that is older than what the
//! cache holds is ignored. So a controller never decides on a state that its own last write has already changed, however
//! far a watch lags behind or is rewound, without one extra read. (The same purpose as KEP-5647's "skip until the own
//! write was seen", without the waiting.)

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::error_boundary::InvalidObject, runtime::watcher::Event};

use crate::{key::Key, watch::guarded::Guarded};

/// One object of the cache: of its type, or what can be said about one that does not fit it.
#[derive(Debug)]
pub(crate) enum Entry<K> {
    /// It is of its type.
    Valid(Arc<K>),
    /// It cannot be read; its metadata and the reason.
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
    fn from(told: Guarded<K>) -> Self {
        match told.0 {
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

/// What became of one object.
#[derive(Debug)]
pub(crate) struct Change<K> {
    /// Which object.
    pub(crate) key: Key,
    /// What it was, if it was there.
    pub(crate) old: Option<Entry<K>>,
    /// What it is, if it is there.
    pub(crate) new: Option<Entry<K>>,
}

/// Who is told about each change, whoever made it; in the order of the changes, while the cache is locked. So it must not
/// look into the same cache.
pub(crate) type OnChange<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// All objects of a kind that the operator may look at.
pub(crate) struct Cache<K> {
    objects: RwLock<HashMap<Key, Entry<K>>>,
    /// The uids of the last objects that went away. The answer of an own write may be taken in after the watch has
    /// brought the end of the object: it must not come back to life.
    ended: Mutex<VecDeque<String>>,
    on_change: OnChange<K>,
}

/// How many ends are remembered: far more than can happen while a request is answered.
const ENDED: usize = 1024;

/// Where the news of an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Watch,
    Call,
}

/// The state of one watch that fills a cache: several namespaces may fill the same one.
#[derive(Debug, Default)]
pub(crate) struct Relist {
    /// The keys of the list that is under way.
    listed: Option<HashSet<Key>>,
}

/// `metadata.resourceVersion` as the number that it is by KEP-5504; 0 when it is none.
fn version(metadata: &ObjectMeta) -> u64 {
    metadata
        .resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Is `new` at least as recent as `old`? Of two objects with different uids, the one that comes last counts: a name that
/// is used again says nothing about versions after a restore.
fn is_news(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid != new.uid || version(new) >= version(old)
}

impl<K: Resource> Cache<K> {
    /// An empty cache.
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

    /// Takes in the answer of an own write, or of a read that was made because the cache was in doubt.
    pub(crate) fn apply_response(&self, object: K) {
        self.put(Entry::Valid(Arc::new(object)), Origin::Call);
    }

    /// Takes in what a read of ours has found out after the server contradicted the cache, whatever the versions say: they
    /// go backwards when a cluster is restored from a backup.
    pub(crate) fn overwrite(&self, object: K) {
        self.replace(Entry::Valid(Arc::new(object)), Origin::Call, |old, new| {
            !is_same(old, new)
        });
    }

    /// Takes in that the object with that uid is gone, as a read of ours has found out.
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
            // An object that lost the watch's label seemed to end, and is back when it has the label again. So only
            // answers of own calls are held against it.
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
        // Not a late deletion of an earlier object of that name, nor of a state that is history: the object lost the
        // watch's label once and has it again.
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

/// The same object at the same version: a repeated event, or the watch's echo of an own write.
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

    /// A cache, and the names that it told changes of since the last look.
    struct Probe {
        cache: Cache<ConfigMap>,
        told: Arc<Mutex<Vec<String>>>,
        relist: Relist,
    }

    impl Probe {
        fn new() -> Self {
            let told = Arc::new(Mutex::new(Vec::new()));
            let tell = told.clone();
            let cache = Cache::new(Box::new(move |change: &Change<ConfigMap>| {
                tell.lock().unwrap().push(change.key.name.to_string());
            }));
            Self {
                cache,
                told,
                relist: Relist::default(),
            }
        }

        #[track_caller]
        fn told(&self, expected: &[&str]) {
            assert_eq!(std::mem::take(&mut *self.told.lock().unwrap()), expected);
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
    fn an_own_write_is_seen_at_once_and_a_lagging_watch_does_not_undo_it() {
        let mut probe = Probe::new();
        probe.event(Event::Apply(watched("a", "u1", 5)));
        probe.cache.apply_response(object("a", "u1", 8));
        probe.told(&["a", "a"]);
        for late in [6, 7, 8] {
            probe.event(Event::Apply(watched("a", "u1", late)));
            probe.told(&[]);
            assert_eq!(probe.held("a"), Some(8));
        }
        // As a number, 10 is more than 8.
        probe.event(Event::Apply(watched("a", "u1", 10)));
        probe.told(&["a"]);
        assert_eq!(probe.held("a"), Some(10));
    }

    #[test]
    fn a_deletion_of_an_earlier_object_or_of_an_earlier_state_is_ignored() {
        let mut probe = Probe::new();
        probe.cache.apply_response(object("a", "u2", 8));
        probe.told(&["a"]);
        probe.event(Event::Delete(watched("a", "u1", 9)));
        probe.event(Event::Delete(watched("a", "u2", 7)));
        probe.told(&[]);
        assert_eq!(probe.held("a"), Some(8));
        probe.event(Event::Delete(watched("a", "u2", 9)));
        probe.told(&["a"]);
        assert_eq!(probe.held("a"), None);
    }

    #[test]
    fn a_list_drops_what_it_does_not_hold_and_tells_so() {
        let mut probe = Probe::new();
        probe.event(Event::Apply(watched("gone", "u1", 1)));
        probe.event(Event::Apply(watched("stays", "u2", 2)));
        probe.told(&["gone", "stays"]);
        probe.event(Event::Init);
        probe.event(Event::InitApply(watched("stays", "u2", 2)));
        probe.cache.end_of_list(&mut probe.relist, |_| true);
        probe.told(&["gone"]);
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
        // Unless the watch says that it is there: it had only lost the label for a while.
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
