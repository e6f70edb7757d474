//! What objects refer to, indexed in reverse: a change requeues its dependents.
//!
//! The index makes a change cost what depends on it, not what exists. A cluster's ConfigMaps change all the time.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use kube::Resource;

use crate::{key::Key, names::kind_of};

/// Something that an object can refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reference {
    /// An object, whether it exists or not.
    Object {
        /// Its kind.
        kind: &'static str,
        /// Its namespace and name.
        key: Key,
    },
    /// Something that a namespace has as a whole, such as its default output.
    Namespace {
        /// What it is.
        what: &'static str,
        /// The namespace.
        namespace: Arc<str>,
    },
}

impl Reference {
    /// Refers to an object of kind `K`.
    pub(crate) fn object<K: Resource<DynamicType = ()>>(key: Key) -> Self {
        Self::Object {
            kind: kind_of::<K>(),
            key,
        }
    }

    /// Refers to something of the namespace in which the object with this key is.
    pub(crate) fn namespace(what: &'static str, key: &Key) -> Self {
        Self::Namespace {
            what,
            namespace: key.namespace.clone(),
        }
    }
}

/// Who refers to what. Dependents change what they refer to; a change of what is referred to asks for its dependents.
#[derive(Debug)]
pub(crate) struct ReverseIndex<To, Dependent>(Mutex<HashMap<To, BTreeSet<Dependent>>>);

impl<To, Dependent> Default for ReverseIndex<To, Dependent> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<To: Hash + Eq + Clone, Dependent: Ord + Clone> ReverseIndex<To, Dependent> {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<To, BTreeSet<Dependent>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what `dependent` refers to.
    pub(crate) fn update<'a>(
        &self,
        dependent: &Dependent,
        old: impl IntoIterator<Item = &'a To>,
        new: impl IntoIterator<Item = &'a To>,
    ) where
        To: 'a,
    {
        let mut index = self.lock();
        for to in old {
            if let Some(dependents) = index.get_mut(to) {
                dependents.remove(dependent);
                if dependents.is_empty() {
                    index.remove(to);
                }
            }
        }
        for to in new {
            index.entry(to.clone()).or_default().insert(dependent.clone());
        }
    }

    /// Returns everything that refers to `to`, in order.
    pub(crate) fn dependents(&self, to: &To) -> Vec<Dependent> {
        self.lock()
            .get(to)
            .map(|dependents| dependents.iter().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_follows_changes_and_drops_what_nothing_refers_to() {
        let index = ReverseIndex::<&str, &str>::default();
        index.update(&"t1", [], [&"a", &"b"]);
        index.update(&"t2", [], [&"b"]);
        assert_eq!(index.dependents(&"b"), ["t1", "t2"]);
        index.update(&"t1", [&"a", &"b"], [&"c"]);
        assert_eq!(
            (index.dependents(&"a"), index.dependents(&"b"), index.dependents(&"c")),
            (vec![], vec!["t2"], vec!["t1"])
        );
        index.update(&"t2", [&"b"], []);
        assert_eq!(index.lock().len(), 1);
    }
}
