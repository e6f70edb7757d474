//! The garbage collector: owner references, namespaces and old events.
//!
//! A client of the API, like the [node](crate::node). It watches the metadata of every kind that supports list, watch
//! and delete, including the kinds of CustomResourceDefinitions. From this it keeps a graph of owners and dependents:
//!
//! * **Background**: when an owner no longer exists, dependents without another owner are deleted. An owner is
//!   identified by its uid. An object with the same name but another uid is not the owner. A dependent whose owner
//!   never existed is also deleted.
//! * **Foreground**: an owner with the finalizer `foregroundDeletion` stays until its blocking dependents
//!   (`blockOwnerDeletion`) are deleted.
//! * **Orphan**: an owner with the finalizer `orphan` first removes its references from its dependents.
//! * **Namespaces** that are being deleted are emptied, then finalized.
//! * **Events** are deleted an hour after their last occurrence.
//!
//! One task does all work in order of arrival, so that a run under tokio's paused time is reproducible. Failed steps
//! are retried with a back-off.

mod graph;
mod namespaces;
mod owners;
mod watches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Preconditions};
use tokio::time::Instant;

use self::graph::{Graph, ObjectReference};
use self::watches::{ObjectChange, ResourceWatches};
use crate::clock::Clock;

/// How long Kubernetes keeps events.
pub const EVENT_TTL: Duration = Duration::from_secs(3600);

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A running garbage collector. It stops when dropped.
pub struct GarbageCollector {
    task: tokio::task::JoinHandle<()>,
}

impl GarbageCollector {
    /// Starts the watches and the collection.
    pub fn start(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            task: tokio::spawn(Collector::new(client, clock).run()),
        }
    }

    /// Stops immediately. Nothing is lost: a collector that starts later sees the same objects.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // An error means that the task was cancelled, as intended.
        let _ = (&mut self.task).await;
    }
}

impl Drop for GarbageCollector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An item of the work queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WorkItem {
    /// An object, by uid.
    Object(String),
    /// A namespace, by name.
    Namespace(String),
}

struct Collector {
    client: Client,
    clock: Arc<dyn Clock>,
    graph: Graph,
    queue: VecDeque<WorkItem>,
    queued: BTreeSet<WorkItem>,
    failures: BTreeMap<WorkItem, Duration>,
    later: BTreeSet<(Instant, WorkItem)>,
    /// Namespaces that are being deleted.
    terminating: BTreeSet<String>,
    events: BTreeMap<String, (Instant, ObjectReference)>,
    expiry: BTreeSet<(Instant, String)>,
}

impl Collector {
    fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            clock,
            graph: Graph::default(),
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            failures: BTreeMap::new(),
            later: BTreeSet::new(),
            terminating: BTreeSet::new(),
            events: BTreeMap::new(),
            expiry: BTreeSet::new(),
        }
    }

    async fn run(mut self) {
        let mut watches = ResourceWatches::new(self.client.clone());
        loop {
            // Changes come first, so that each decision uses everything that is known.
            let next_later = self.later.first().map(|(at, _)| *at);
            let next_expiry = self.expiry.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                Some(change) = watches.next() => self.change(change),
                () = until(next_later), if next_later.is_some() => {
                    if let Some((_, work)) = self.later.pop_first() {
                        self.enqueue(work);
                    }
                }
                () = until(next_expiry), if next_expiry.is_some() => self.expire().await,
                () = std::future::ready(()), if watches.settled() && !self.queue.is_empty() => self.step(watches.namespaced()).await,
            }
        }
    }

    fn enqueue(&mut self, work: WorkItem) {
        if self.queued.insert(work.clone()) {
            self.queue.push_back(work);
        }
    }

    /// Processes one item. `kinds` are the namespaced kinds.
    async fn step(&mut self, kinds: Vec<Arc<ApiResource>>) {
        let Some(work) = self.queue.pop_front() else { return };
        self.queued.remove(&work);
        let result = match &work {
            WorkItem::Object(uid) => self.process_object(uid).await,
            WorkItem::Namespace(name) => namespaces::empty(&self.client, &kinds, name).await,
        };
        match result {
            Ok(()) => {
                self.failures.remove(&work);
            }
            Err(error) => {
                let delay = self
                    .failures
                    .get(&work)
                    .map_or(RETRY_FIRST, |delay| (*delay * 2).min(RETRY_MAX));
                tracing::debug!(%error, ?work, "trying again");
                self.failures.insert(work.clone(), delay);
                self.later.insert((Instant::now() + delay, work));
            }
        }
    }

    fn change(&mut self, change: ObjectChange) {
        match change {
            ObjectChange::Applied { resource, object, seen } => {
                let reference = ObjectReference::of(&resource, &object);
                if resource.kind == "Namespace" && resource.group.is_empty() {
                    self.namespace(&object);
                }
                if resource.kind == "Event" && resource.group.is_empty() {
                    self.remember_event(&reference, seen);
                }
                let namespace = object.metadata.namespace.clone().unwrap_or_default();
                if self.terminating.contains(&namespace) {
                    self.enqueue(WorkItem::Namespace(namespace));
                }
                let uid = reference.uid.clone();
                for work in self.graph.apply(reference, &object.metadata) {
                    self.enqueue(WorkItem::Object(work));
                }
                if self.graph.needs_attention(&uid) {
                    self.enqueue(WorkItem::Object(uid));
                }
            }
            ObjectChange::Deleted { uid } => {
                if let Some(at) = self.events.remove(&uid).map(|(at, _)| at) {
                    self.expiry.remove(&(at, uid.clone()));
                }
                self.failures.remove(&WorkItem::Object(uid.clone()));
                let Some(gone) = self.graph.remove(&uid) else { return };
                for work in gone.affected {
                    self.enqueue(WorkItem::Object(work));
                }
                if gone.reference.kind == "Namespace" && gone.reference.group().is_empty() {
                    self.terminating.remove(&gone.reference.name);
                } else if let Some(namespace) = gone.reference.namespace.filter(|ns| self.terminating.contains(ns)) {
                    self.enqueue(WorkItem::Namespace(namespace));
                }
            }
        }
    }

    fn namespace(&mut self, object: &DynamicObject) {
        let name = object.metadata.name.clone().unwrap_or_default();
        if object.metadata.deletion_timestamp.is_some() {
            self.terminating.insert(name.clone());
            self.enqueue(WorkItem::Namespace(name));
        } else {
            self.terminating.remove(&name);
        }
    }

    fn remember_event(&mut self, reference: &ObjectReference, seen: Option<jiff::Timestamp>) {
        let age = seen.map_or(Duration::ZERO, |seen| {
            Duration::try_from(self.clock.now().duration_since(seen)).unwrap_or(Duration::ZERO)
        });
        let at = Instant::now() + EVENT_TTL.saturating_sub(age);
        let uid = reference.uid.clone();
        if let Some((before, _)) = self.events.insert(uid.clone(), (at, reference.clone())) {
            self.expiry.remove(&(before, uid.clone()));
        }
        self.expiry.insert((at, uid));
    }

    async fn expire(&mut self) {
        let Some((_, uid)) = self.expiry.pop_first() else {
            return;
        };
        let Some((_, reference)) = self.events.get(&uid).cloned() else {
            return;
        };
        if let Err(error) = reference.delete(&self.client, None).await {
            tracing::debug!(%error, name = reference.name, "cannot delete an event, retrying");
            let at = Instant::now() + RETRY_MAX;
            self.events.insert(uid.clone(), (at, reference));
            self.expiry.insert((at, uid));
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl ObjectReference {
    fn api(&self, client: &Client) -> Api<DynamicObject> {
        let resource: &ApiResource = &self.resource;
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        }
    }

    /// Deletes exactly this object. It is no error if the object no longer exists.
    async fn delete(&self, client: &Client, policy: Option<kube::api::PropagationPolicy>) -> Result<(), kube::Error> {
        let params = DeleteParams {
            propagation_policy: policy,
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.api(client).delete(&self.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
