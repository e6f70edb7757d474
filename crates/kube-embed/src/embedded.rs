//! The handle: builds a server, hands out clients, listens, shuts down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::api::service::ApiService;
use crate::api::{ApiServer, ServerOptions};
use crate::clock::{Clock, SystemClock};
use crate::ids::Ids;
use crate::listener::{self, Endpoint};
use crate::logs::PodLogs;
use crate::status::ApiError;
use crate::store::{OpenError, Store};

/// Where objects are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In memory: no thread, no file, gone with the handle.
    #[default]
    Memory,
    /// In this directory: every write is durable before it is answered, and survives `kill -9`.
    Disk(PathBuf),
}

/// Why a server could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The objects that every cluster has could not be written.
    #[error("cannot create the initial objects: {0}")]
    Bootstrap(#[from] ApiError),
}

/// Settings of an [`Embedded`] server.
pub struct Builder {
    storage: Storage,
    clock: Arc<dyn Clock>,
    ids: Ids,
    history: usize,
}

impl Builder {
    /// Where objects are kept; in memory unless said otherwise.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Where timestamps come from; the machine's clock unless said otherwise.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes uids and generated names a function of `seed`, so that a run can be repeated exactly.
    pub fn seed(mut self, seed: u64) -> Self {
        self.ids = Ids::seeded(seed);
        self
    }

    /// How many events each resource remembers for watches that resume, lists at an exact version and paging.
    pub fn history(mut self, events: usize) -> Self {
        self.history = events.max(1);
        self
    }

    /// Opens the storage and creates the namespaces that every cluster has.
    pub async fn build(self) -> Result<Embedded, BuildError> {
        let store = match &self.storage {
            Storage::Memory => Store::memory(self.history),
            Storage::Disk(path) => Store::disk(path, self.history)?,
        };
        let stopping = CancellationToken::new();
        let server = ApiServer::start(
            store,
            ServerOptions {
                clock: self.clock,
                ids: self.ids,
                stopping: stopping.clone(),
            },
        )
        .await?;
        Ok(Embedded {
            server: Arc::new(server),
            stopping,
        })
    }
}

/// A running server. Cheap to clone; the server stops with [`Embedded::shutdown`].
#[derive(Clone)]
pub struct Embedded {
    server: Arc<ApiServer>,
    stopping: CancellationToken,
}

impl Embedded {
    /// Starts from the defaults: memory, the machine's clock, random identifiers.
    pub fn builder() -> Builder {
        Builder {
            storage: Storage::Memory,
            clock: Arc::new(SystemClock),
            ids: Ids::random(),
            history: 4096,
        }
    }

    /// The API as a tower service. No token is asked for: who holds the service is in the process.
    pub fn service(&self) -> ApiService {
        ApiService::new(Arc::clone(&self.server))
    }

    /// A client with this default namespace. Must be called within a tokio runtime.
    pub fn client(&self, namespace: &str) -> kube::Client {
        kube::Client::new(self.service(), namespace)
    }

    /// The clock that the server's timestamps come from.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.server.clock()
    }

    /// Cancelled when the server begins to shut down.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// The identity of this server's storage; on disk it survives restarts.
    pub fn uid(&self) -> &str {
        self.server.uid()
    }

    /// Who answers `pods/log` from now on.
    pub fn set_pod_logs(&self, logs: Arc<dyn PodLogs>) {
        self.server.set_pod_logs(logs);
    }

    /// Serves HTTP/1.1 and HTTP/2 over TLS on this address, which must be a loopback address (port 0 picks one), to whoever
    /// holds `token`; a random one when `None`.
    pub async fn listen(&self, address: SocketAddr, token: Option<String>) -> std::io::Result<Endpoint> {
        listener::listen(self.service(), address, token, self.stopping.clone()).await
    }

    /// Ends watches and connections, waits for the writes under way and closes the storage.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.server.stopped().await;
    }
}
