//! The local process: the embedded API on disk, a node that runs processes, and the operator, as on a cluster.

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
    DataDir, binaries, bootstrap,
    data_dir::Lock,
    images::{AGENT_IMAGE, LocalImages},
    python, toolchains,
};
use crate::exit::{CliError, Result};

/// How long pods may take to end when the local mode stops. A grace period of a pod that is shorter counts.
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
    /// Released last, when nothing writes into the directory any more.
    _lock: Lock,
}

/// What a kubeconfig promises, kept so that it stays true over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Promise {
    port: u16,
    token: String,
}

impl Server {
    /// Starts everything; returns when the API answers and the operator runs.
    pub(crate) async fn start(
        data_dir: DataDir,
        lock: Lock,
        port: Option<u16>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
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
        let images = LocalImages::new(&programs, &toolchains, &python::cache());
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
        })
    }

    /// A client of the API in this process.
    #[must_use]
    pub(crate) fn client(&self, namespace: &str) -> Client {
        self.embedded.client(namespace)
    }

    /// The URL of the API.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        self.endpoint.url()
    }

    /// Where it keeps everything.
    #[must_use]
    pub(crate) fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Resolves when the operator has ended by itself, which it never should.
    pub(crate) async fn failed(&mut self) -> CliError {
        match (&mut self.operator).await {
            Ok(Ok(())) => CliError::io("the operator", "ended by itself"),
            Ok(Err(error)) => CliError::io("the operator", error),
            Err(error) => CliError::io("the operator", error),
        }
    }

    /// Stops in the order in which nothing is lost: the operator first, so that it does not answer the end of pods with
    /// new ones, then the pods, then the API.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.outputs.abort();
        // What it ended with matters no more.
        let _ = self.operator.await;
        self.collector.shutdown().await;
        self.node.shutdown(STOP_GRACE).await;
        self.embedded.shutdown().await;
        self.endpoint.closed().await;
    }
}

async fn listen(embedded: &Embedded, data_dir: &DataDir, port: Option<u16>) -> Result<Endpoint> {
    let before: Option<Promise> = data_dir
        .read(&data_dir.endpoint())
        .and_then(|text| serde_json::from_str(&text).ok());
    let token = before.as_ref().map(|promise| promise.token.clone());
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let wanted = port.or(before.as_ref().map(|promise| promise.port)).unwrap_or(0);
    let endpoint = match embedded.listen(address(wanted), token.clone()).await {
        Ok(endpoint) => endpoint,
        Err(error) if port.is_some() => {
            return Err(CliError::io(address(wanted), error).remedy("name another port with --port, or none"));
        }
        // The port of last time is somebody else's now; a new kubeconfig says the new one.
        Err(_) => embedded
            .listen(address(0), token)
            .await
            .map_err(|error| CliError::io("no loopback port can be used", error))?,
    };
    let promise = Promise {
        port: endpoint.address().port(),
        token: endpoint.token().to_owned(),
    };
    if before.as_ref() != Some(&promise) {
        let text = serde_json::to_string(&promise).map_err(|error| CliError::io("JSON", error))?;
        data_dir.write_secret(&data_dir.endpoint(), &text)?;
    }
    Ok(endpoint)
}
