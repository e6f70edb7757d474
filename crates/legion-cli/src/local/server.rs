//! The local process: the embedded API on disk, a node that runs processes, and the same operator as on a cluster.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::Client;
use kube_embed::{
    Embedded, Endpoint, Storage,
    gc::GarbageCollector,
    node::{
        Node, NodeOptions,
        runtime::process::{ProcessOptions, ProcessRuntime},
    },
};
use legion_operator::RunError;
use legion_runtime::{Shutdown, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::{
    binaries, bootstrap,
    cache::CacheLock,
    images::{AGENT_IMAGE, LocalImages},
    python, toolchains,
};
use crate::{
    data_dir::{DataDir, Lock},
    exit::{CliError, Result},
};

/// Maximum grace period of pods when the local mode stops. The grace period of a pod may be shorter.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// A running local mode.
pub(crate) struct Server {
    embedded: Embedded,
    endpoint: Endpoint,
    node: Node,
    collector: GarbageCollector,
    operator: JoinHandle<std::result::Result<(), RunError>>,
    outputs: JoinHandle<()>,
    shutdown: Shutdown,
    data_dir: DataDir,
    /// Released last, when nothing writes to the directory anymore.
    _lock: Lock,
    /// Pods may use every environment of the cache.
    _cache: CacheLock,
}

/// The part of the kubeconfig that must survive a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedEndpoint {
    port: u16,
    token: String,
}

impl Server {
    /// Starts everything. Returns when the API answers and the operator is running.
    pub(crate) async fn start(
        data_dir: DataDir,
        lock: Lock,
        port: Option<u16>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let cache = python::cache();
        let cache_lock = CacheLock::shared(&cache)?;
        let programs = binaries::directory(say)?;
        let toolchains = toolchains::all()?;
        let outputs = data_dir.outputs();
        std::fs::create_dir_all(&outputs).map_err(|error| CliError::io(outputs.display(), error))?;

        let embedded = Embedded::builder()
            .storage(Storage::Disk(data_dir.state()))
            .build()
            .await
            .map_err(|error| CliError::io(data_dir.state().display(), error))?;
        let endpoint = listen(&embedded, &data_dir, port).await?;
        let client = embedded.client("default");
        bootstrap::install(&client, &toolchains).await?;
        bootstrap::default_outputs(&client, &outputs).await?;

        let runtime = ProcessRuntime::open(ProcessOptions::new(data_dir.node()))
            .map_err(|error| CliError::io(data_dir.node().display(), error))?;
        let images = LocalImages::new(&programs, &toolchains, &cache);
        let node = Node::start(
            client.clone(),
            NodeOptions::new(embedded.clock()),
            Arc::new(runtime),
            Arc::new(images),
        )
        .await
        .map_err(|error| CliError::io("the node", error))?;
        embedded.set_pod_logs(node.logs());

        let collector = GarbageCollector::start(client.clone(), embedded.clock());

        let mut plan = legion_plan::Settings::new(bootstrap::PLATFORM_NAMESPACE, AGENT_IMAGE);
        plan.allow_local_connections = true;
        let shutdown = Shutdown::new();
        let operator = tokio::spawn(legion_operator::run(
            client.clone(),
            legion_operator::Settings::new(plan),
            Arc::new(SystemClock),
            shutdown.clone(),
        ));
        let outputs = tokio::spawn(async move { bootstrap::keep_default_outputs(client, &outputs).await });
        data_dir.write_secret(&data_dir.kubeconfig(), &endpoint.kubeconfig("legion-local", "default"))?;
        Ok(Self {
            embedded,
            endpoint,
            node,
            collector,
            operator,
            outputs,
            shutdown,
            data_dir,
            _lock: lock,
            _cache: cache_lock,
        })
    }

    /// Returns a client of the API in this process.
    #[must_use]
    pub(crate) fn client(&self, namespace: &str) -> Client {
        self.embedded.client(namespace)
    }

    #[must_use]
    pub(crate) fn url(&self) -> String {
        self.endpoint.url()
    }

    #[must_use]
    pub(crate) fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Resolves when the operator has ended on its own. That is always an error.
    pub(crate) async fn failed(&mut self) -> CliError {
        match (&mut self.operator).await {
            Ok(Ok(())) => CliError::io("the operator", "ended without a request to stop"),
            Ok(Err(error)) => CliError::io("the operator", error),
            Err(error) => CliError::io("the operator", error),
        }
    }

    /// Stops everything in an order that loses nothing: first the operator, so that it does not create new pods for the
    /// ones that end, then the pods, then the API.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.outputs.abort();
        // Its result does not matter anymore.
        let _ = self.operator.await;
        self.collector.shutdown().await;
        self.node.shutdown(STOP_GRACE).await;
        self.embedded.shutdown().await;
        self.endpoint.closed().await;
    }
}

async fn listen(embedded: &Embedded, data_dir: &DataDir, port: Option<u16>) -> Result<Endpoint> {
    let before: Option<SavedEndpoint> = data_dir
        .read(&data_dir.endpoint())
        .and_then(|text| serde_json::from_str(&text).ok());
    let token = before.as_ref().map(|saved| saved.token.clone());
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let wanted = port.or(before.as_ref().map(|saved| saved.port)).unwrap_or(0);
    let endpoint = match embedded.listen(address(wanted), token.clone()).await {
        Ok(endpoint) => endpoint,
        Err(error) if port.is_some() => {
            return Err(CliError::io(address(wanted), error).remedy("set --port to another port, or omit it"));
        }
        // Another process uses the port of the last start. The new kubeconfig has the new port.
        Err(_) => embedded
            .listen(address(0), token)
            .await
            .map_err(|error| CliError::io("no loopback port is available", error))?,
    };
    let saved = SavedEndpoint {
        port: endpoint.address().port(),
        token: endpoint.token().to_owned(),
    };
    if before.as_ref() != Some(&saved) {
        let text = serde_json::to_string(&saved).map_err(|error| CliError::io("JSON", error))?;
        data_dir.write_secret(&data_dir.endpoint(), &text)?;
    }
    Ok(endpoint)
}
