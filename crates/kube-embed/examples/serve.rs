//! A Kubernetes for `kubectl` in one process: `cargo run -p kube-embed --example serve -- DIRECTORY`.
//!
//! Objects are kept in the directory, pods run as processes of this machine (whatever their image says, with this
//! machine's programs), and `DIRECTORY/kubeconfig` is written for clients. Ends on ctrl-c.
#![allow(clippy::print_stderr, reason = "it says where it listens")]

use std::error::Error;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube_embed::gc::GarbageCollector;
use kube_embed::node::images::{ImageEnvironment, StaticImages};
use kube_embed::node::runtime::process::{ProcessOptions, ProcessRuntime, supervisor};
use kube_embed::node::{Node, NodeOptions};
use kube_embed::{Embedded, Storage};

fn main() -> Result<(), Box<dyn Error>> {
    // Containers are started by this program in another role.
    supervisor::run_if_requested();
    tokio::runtime::Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("usage: serve DIRECTORY")?;
    let server = Embedded::builder()
        .storage(Storage::Disk(directory.clone()))
        .build()
        .await?;
    let runtime = ProcessRuntime::open(ProcessOptions::new(directory.join("node")))?;
    let images = StaticImages::new().otherwise(ImageEnvironment::system());
    let options = NodeOptions::new(server.clock());
    let node = Node::start(server.client("default"), options, Arc::new(runtime), Arc::new(images)).await?;
    server.set_pod_logs(node.logs());
    let collector = GarbageCollector::start(server.client("default"), server.clock());

    let endpoint = server.listen("127.0.0.1:0".parse()?, None).await?;
    let path = directory.join("kubeconfig");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(endpoint.kubeconfig("embedded", "default").as_bytes())?;
    eprintln!("serving {}; export KUBECONFIG={}", endpoint.url(), path.display());

    tokio::signal::ctrl_c().await?;
    node.shutdown(Duration::from_secs(30)).await;
    collector.shutdown().await;
    server.shutdown().await;
    endpoint.closed().await;
    Ok(())
}
