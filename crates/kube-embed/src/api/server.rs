//! The state of the API server: store, registry of resources and logs of pods.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch as watch_channel;
use tokio_util::sync::CancellationToken;

use super::registry::{CRDS, Registry, Resource};
use super::{crd, meta};
use crate::clock::{self, Clock};
use crate::ids::Ids;
use crate::logs::PodLogs;
use crate::status::ApiError;
use crate::store::{self, Change, CommitError, ListQuery, ObjectKey, Precondition, Store};

/// The initial namespaces.
pub(super) const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

pub(crate) struct ServerOptions {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Ids,
    pub(crate) stopping: CancellationToken,
}

/// The server behind an [`ApiService`](super::service::ApiService).
pub(crate) struct ApiServer {
    pub(super) store: Arc<Store>,
    pub(super) options: ServerOptions,
    pub(super) registry: watch_channel::Sender<Arc<Registry>>,
    /// Held while the registry is rebuilt, so that an older state of the CRDs never replaces a newer one.
    reloading: Mutex<()>,
    logs: Mutex<Option<Arc<dyn PodLogs>>>,
}

impl ApiServer {
    pub(crate) async fn start(store: Arc<Store>, options: ServerOptions) -> Result<Self, ApiError> {
        let registry = Registry::built_in();
        for resource in registry.all() {
            store.add_collection(&resource.collection);
        }
        let server = Self {
            store,
            options,
            registry: watch_channel::Sender::new(Arc::new(registry)),
            reloading: Mutex::new(()),
            logs: Mutex::new(None),
        };
        server.reload_crds();
        for namespace in NAMESPACES {
            server.create_namespace(namespace)?;
        }
        server.durable(server.store.version()).await?;
        Ok(server)
    }

    fn create_namespace(&self, name: &str) -> Result<(), ApiError> {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name,
                "uid": self.options.ids.uid(),
                "creationTimestamp": clock::seconds(self.options.clock.now()),
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        let key = ObjectKey::new("", name);
        match self
            .store
            .commit(store::NAMESPACES, &key, Precondition::Absent, Change::Put(namespace))
        {
            // A store on disk already contains them.
            Ok(_) | Err(CommitError::AlreadyExists) => Ok(()),
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.options.clock)
    }

    pub(crate) fn set_pod_logs(&self, logs: Arc<dyn PodLogs>) {
        *self.logs.lock().unwrap_or_else(PoisonError::into_inner) = Some(logs);
    }

    pub(super) fn pod_logs(&self) -> Option<Arc<dyn PodLogs>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn uid(&self) -> &str {
        self.store.uid()
    }

    pub(crate) async fn stopped(&self) {
        self.store.close().await;
    }

    pub(super) fn stopping(&self) -> CancellationToken {
        self.options.stopping.clone()
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.borrow())
    }

    /// Rebuilds the registry from the stored CRDs.
    pub(super) fn reload_crds(&self) {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Registry::with_crds(&self.registry(), &self.store);
        self.registry.send_replace(Arc::new(next));
    }

    /// Sets the status of a CRD before it is stored.
    pub(super) fn describe_crd(&self, crd: &mut Value) {
        let stored = self
            .store
            .list(CRDS, &ListQuery::default())
            .map(|l| l.items)
            .unwrap_or_default();
        let name = meta::name(crd).to_owned();
        let others = stored.iter().filter(|o| o.key().name != name).map(|o| &**o.value());
        crd::set_status(crd, others, self.options.clock.now());
    }

    /// Removes a CRD that is being deleted, after the removal of its last object.
    pub(super) fn after_removal(&self, resource: &Resource) {
        if resource.terminating {
            self.finish_crd(&ObjectKey::new("", resource.info.qualified()), &resource.collection);
        }
    }

    /// Waits until everything up to this version is durable.
    pub(super) async fn durable(&self, version: u64) -> Result<(), ApiError> {
        self.store
            .barrier(version)
            .await
            .map_err(|e| ApiError::internal(format!("the write may be lost: {e}")))
    }
}
