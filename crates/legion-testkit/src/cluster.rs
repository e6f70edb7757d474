//! A whole cluster in the process of the test, on one paused clock: API server, node, garbage collector and the process
//! under test.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use kube_embed::{
    Clock, Embedded, TokioClock,
    gc::GarbageCollector,
    node::{
        Node, NodeOptions,
        images::{ImageEnvironment, StaticImages},
    },
};
use legion_api::{ModelTraining, condition};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    agent::Agents,
    disturbance::Disturber,
    fault::Chaos,
    history::History,
    manifests::{self, NAMESPACE, PLATFORM},
};

/// Starts the process under test with this client and clock.
pub type StartProcess = Arc<dyn Fn(Client, Arc<dyn Clock>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A namespaced kind for tests.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

/// The CRDs of the platform, generated once because that takes long.
static CRDS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(legion_api::crd::all);

/// A cluster for one test.
pub struct Cluster {
    /// The API server.
    pub embedded: Embedded,
    /// A client without faults.
    pub client: Client,
    /// Faults for the requests of the process under test.
    pub chaos: Chaos,
    /// The container runtime of the pods.
    pub agents: Agents,
    /// The node.
    pub node: Arc<Node>,
    /// Every version of every pod and training.
    pub history: History,
    collector: GarbageCollector,
    start: StartProcess,
    process: Option<JoinHandle<()>>,
}

/// Returns the start time of all tests.
fn start_of_time() -> Timestamp {
    Timestamp::from_second(1_795_453_200).expect("a time in 2026")
}

impl Cluster {
    /// Creates a cluster with the CRDs, the namespaces and a node, without starting the process. `start` gets a client
    /// with the faults of [`Cluster::chaos`].
    pub async fn new(start: StartProcess) -> Self {
        Self::with_crds(start, CRDS.clone()).await
    }

    /// Creates a cluster like [`Cluster::new`], with other CRDs.
    pub async fn with_crds(start: StartProcess, crds: Vec<CustomResourceDefinition>) -> Self {
        let clock = Arc::new(TokioClock::starting_at(start_of_time()));
        let embedded = Embedded::builder()
            .clock(clock.clone())
            .seed(7)
            .build()
            .await
            .expect("an API server in memory");
        let client = embedded.client(NAMESPACE);
        for crd in &crds {
            Api::<CustomResourceDefinition>::all(client.clone())
                .create(&PostParams::default(), crd)
                .await
                .expect("the CRD is accepted");
        }
        for name in [NAMESPACE, PLATFORM] {
            let namespace = Namespace {
                metadata: kube::core::ObjectMeta {
                    name: Some(name.into()),
                    ..Default::default()
                },
                ..Default::default()
            };
            Api::<Namespace>::all(client.clone())
                .create(&PostParams::default(), &namespace)
                .await
                .expect("the namespace is accepted");
        }
        let agents = Agents::new(clock.clone());
        let mut options = NodeOptions::new(clock.clone());
        // Enough for every test, because no test is about scheduling.
        (options.cpu_milli, options.memory, options.pods) = (1_000_000, 1 << 50, 10_000);
        let images = StaticImages::new().otherwise(ImageEnvironment::system());
        let node = Node::start(client.clone(), options, Arc::new(agents.clone()), Arc::new(images))
            .await
            .expect("the node registers");
        let node = Arc::new(node);
        let collector = GarbageCollector::start(client.clone(), clock.clone());
        let history = History::record(client.clone());
        let disturber = Disturber::new(client.clone(), Arc::downgrade(&node));
        let chaos = Chaos::new(embedded.service(), Some(disturber));
        Self {
            embedded,
            client,
            chaos,
            agents,
            node,
            history,
            collector,
            start,
            process: None,
        }
    }

    /// Returns an API without faults.
    pub fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Starts the process. If a plan kills it, it restarts after a second.
    pub fn start(&mut self) {
        let (chaos, start, clock) = (self.chaos.clone(), self.start.clone(), self.embedded.clock());
        self.process = Some(tokio::spawn(async move {
            for n in 0.. {
                // A set also aborts the process when this task is aborted.
                let mut process = JoinSet::new();
                process.spawn(start(chaos.client(NAMESPACE), clock.clone()));
                chaos.crashed(n).await;
                // Waits for the end, so that never two processes run at the same time.
                process.shutdown().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                chaos.next_process();
            }
        }));
    }

    /// Kills the process and starts another one.
    pub async fn restart(&mut self) {
        self.chaos.kill();
        self.settle(Duration::from_secs(3)).await;
    }

    /// Kills the process for good.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.abort();
            // The line above cancelled it.
            let _ = process.await;
        }
    }

    /// Lets virtual time pass.
    pub async fn settle(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Creates an object.
    #[track_caller]
    pub fn create<'a, K: Object + 'a>(&'a self, object: &'a K) -> impl Future<Output = K> + 'a {
        let namespace = object.namespace().unwrap_or_else(|| NAMESPACE.to_owned());
        let api = self.api::<K>(&namespace);
        async move {
            api.create(&PostParams::default(), object)
                .await
                .expect("the object is accepted")
        }
    }

    /// Merges a patch into an object.
    pub async fn patch<K: Object>(&self, name: &str, patch: serde_json::Value) -> K {
        self.api::<K>(NAMESPACE)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("the patch is accepted")
    }

    /// Deletes an object, if it exists.
    pub async fn delete<K: Object>(&self, name: &str) {
        let deleted = self.api::<K>(NAMESPACE).delete(name, &DeleteParams::background()).await;
        if let Err(error) = deleted {
            assert!(
                matches!(&error, kube::Error::Api(status) if status.is_not_found()),
                "{error}"
            );
        }
    }

    /// Creates the toolchain of the platform, the default output and the source.
    pub async fn furnish(&self) {
        self.create(&manifests::toolchain()).await;
        self.create(&manifests::default_output()).await;
        self.create(&manifests::source("print('wine')")).await;
    }

    /// Returns the training with this name.
    pub async fn training(&self, name: &str) -> ModelTraining {
        self.api::<ModelTraining>(NAMESPACE)
            .get(name)
            .await
            .expect("the training exists")
    }

    /// Returns the pods of the namespace.
    pub async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>(NAMESPACE)
            .list(&ListParams::default())
            .await
            .expect("pods are listed")
            .items
    }

    /// Waits until the condition `Succeeded` of the training has this status, for at most `limit` of virtual time.
    ///
    /// # Errors
    /// The training in its last version, when the time is over.
    pub async fn wait_for(
        &self,
        name: &str,
        succeeded: &str,
        limit: Duration,
    ) -> Result<ModelTraining, Box<ModelTraining>> {
        let end = tokio::time::Instant::now() + limit;
        loop {
            let training = self.training(name).await;
            if is_settled(&training, succeeded) {
                return Ok(training);
            }
            if tokio::time::Instant::now() >= end {
                return Err(Box::new(training));
            }
            self.settle(Duration::from_secs(1)).await;
        }
    }

    /// Stops all parts of the cluster.
    pub async fn shutdown(self) {
        if let Some(process) = self.process {
            process.abort();
        }
        self.history.stop();
        // Pending disturbances hold only a weak reference to the node.
        if let Some(node) = Arc::into_inner(self.node) {
            node.detach().await;
        }
        self.collector.shutdown().await;
        self.embedded.shutdown().await;
    }
}

/// Returns whether the status observed the current generation and has this status of `Succeeded`.
#[must_use]
pub fn is_settled(training: &ModelTraining, succeeded: &str) -> bool {
    let Some(status) = &training.status else { return false };
    status.observed_generation == training.metadata.generation
        && condition::find(&status.conditions, condition::SUCCEEDED).is_some_and(|condition| {
            condition.status == succeeded && condition.observed_generation == training.metadata.generation
        })
}
