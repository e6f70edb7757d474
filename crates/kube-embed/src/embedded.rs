//! The public handle: builds a server, creates clients, listens, shuts down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::api::server::{ApiServer, ServerOptions};
use crate::api::service::ApiService;
use crate::clock::{Clock, SystemClock};
use crate::ids::Ids;
use crate::listener::{self, Endpoint};
use crate::logs::PodLogs;
use crate::status::ApiError;
use crate::store::{OpenError, Store};

/// The storage of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In memory: no thread and no file. The objects are dropped with the handle.
    #[default]
    Memory,
    /// In this directory: every write is durable before its response, and survives `kill -9`.
    Disk(PathBuf),
}

/// The reason why a server could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The initial objects of every cluster could not be written.
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
    /// Sets the storage of objects. The default is memory.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Sets the source of timestamps. The default is the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes uids and generated names a function of `seed`, so that a run is reproducible.
    pub fn seed(mut self, seed: u64) -> Self {
        self.ids = Ids::seeded(seed);
        self
    }

    /// Sets how many events each resource keeps for resumed watches, lists at an exact version, and paging.
    pub fn history(mut self, events: usize) -> Self {
        self.history = events.max(1);
        self
    }

    /// Opens the storage and creates the initial namespaces of every cluster.
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
    /// Creates a builder with the defaults: memory, the machine's clock, random identifiers.
    pub fn builder() -> Builder {
        Builder {
            storage: Storage::Memory,
            clock: Arc::new(SystemClock),
            ids: Ids::random(),
            history: 4096,
        }
    }

    /// Returns the API as a tower service. It requires no token, because its callers are in this process.
    pub fn service(&self) -> ApiService {
        ApiService::new(Arc::clone(&self.server))
    }

    /// Creates a client with this default namespace. Must be called within a tokio runtime.
    pub fn client(&self, namespace: &str) -> kube::Client {
        kube::Client::new(self.service(), namespace)
    }

    /// Returns the source of the server's timestamps.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.server.clock()
    }

    /// Returns a token that is cancelled when the server begins to shut down.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Returns the identity of this server's storage. On disk it survives restarts.
    pub fn uid(&self) -> &str {
        self.server.uid()
    }

    /// Sets the handler of `pods/log`.
    pub fn set_pod_logs(&self, logs: Arc<dyn PodLogs>) {
        self.server.set_pod_logs(logs);
    }

    /// Serves HTTP/1.1 and HTTP/2 over TLS on a loopback address. Port 0 picks a free port. Clients need `token`, or a
    /// random token if it is `None`. Fails if the address is not a loopback address.
    pub async fn listen(&self, address: SocketAddr, token: Option<String>) -> std::io::Result<Endpoint> {
        listener::listen(self.service(), address, token, self.stopping.clone()).await
    }

    /// Ends watches and connections, waits for pending writes, and closes the storage.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.server.stopped().await;
    }
}
