//! The two servers that run the cases.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube_embed::gc::GarbageCollector;
use kube_embed::node::images::{ImageEnvironment, StaticImages};
use kube_embed::node::runtime::process::{ProcessOptions, ProcessRuntime};
use kube_embed::node::{Node, NodeOptions};
use kube_embed::{Embedded, SystemClock};

/// On the node of the real cluster, an image with static programs. On kube-embed, the programs of this machine.
pub(crate) const IMAGE: &str = "legion.internal/busybox:1";

/// kube-embed with the garbage collector and a node that runs processes.
pub(crate) struct Embed {
    pub(crate) embedded: Embedded,
    node: Node,
    collector: GarbageCollector,
    _directory: tempfile::TempDir,
}

impl Embed {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // One case produces more events than this history holds. A watch from an earlier version receives 410.
        let embedded = Embedded::builder().history(500).build().await.unwrap();
        let collector = GarbageCollector::start(embedded.client("default"), embedded.clock());
        let mut options = ProcessOptions::new(directory.path());
        options.supervisor = env!("CARGO_BIN_EXE_kube-embed").into();
        options.die_with_host = true;
        let runtime = ProcessRuntime::open(options).unwrap();
        let environment = ImageEnvironment {
            entrypoint: vec!["/bin/sh".into()],
            ..ImageEnvironment::system()
        };
        let images = StaticImages::new().with(IMAGE, environment);
        let mut options = NodeOptions::new(Arc::new(SystemClock));
        (options.cpu_milli, options.memory) = (4000, 8 << 30);
        let node = Node::start(embedded.client("default"), options, Arc::new(runtime), Arc::new(images))
            .await
            .unwrap();
        embedded.set_pod_logs(node.logs());
        Self {
            embedded,
            node,
            collector,
            _directory: directory,
        }
    }

    pub(crate) async fn stop(self) {
        self.node.shutdown(Duration::ZERO).await;
        self.collector.shutdown().await;
        self.embedded.shutdown().await;
    }
}

/// Returns a client for the Kubernetes of `KUBECONFIG`.
pub(crate) async fn real() -> kube::Client {
    assert!(
        std::env::var_os("KUBECONFIG").is_some_and(|path| Path::new(&path).exists()),
        "KUBECONFIG names no file. Run `cargo xtask cluster run -- cargo test -p kube-embed --test conformance -- --ignored`"
    );
    let mut config = kube::Config::infer().await.unwrap();
    config.read_timeout = None;
    kube::Client::try_from(config).unwrap()
}
