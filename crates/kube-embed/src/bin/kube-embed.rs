//! A Kubernetes API with one node on this machine: `kube-embed DIRECTORY [ADDRESS]`.
//!
//! Objects and pods are stored in DIRECTORY and survive restarts and `kill -9`. kubectl and other clients use
//! DIRECTORY/kubeconfig. Every image reference means the machine's own programs. SIGINT or SIGTERM stops the server but
//! not its containers. The next start adopts them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use kube_embed::gc::GarbageCollector;
use kube_embed::node::images::{ImageEnvironment, StaticImages};
use kube_embed::node::runtime::process::{ProcessOptions, ProcessRuntime, supervisor};
use kube_embed::node::{Node, NodeOptions};
use kube_embed::{Embedded, Storage};
use tokio::signal::unix::{SignalKind, signal};

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    supervisor::run_if_requested();
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), address) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return fail("usage: kube-embed DIRECTORY [ADDRESS]");
    };
    let address = address.unwrap_or_else(|| "127.0.0.1:0".into());
    let address: SocketAddr = match address.to_string_lossy().parse() {
        Ok(address) => address,
        Err(error) => {
            return fail(format!(
                "{}: {error}; use HOST:PORT, as in 127.0.0.1:6443",
                address.display()
            ));
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(serve(directory, address)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

#[allow(clippy::print_stderr)] // This is a command-line program's main.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("kube-embed: {error}");
    ExitCode::FAILURE
}

async fn serve(directory: PathBuf, address: SocketAddr) -> Result<(), Error> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    std::fs::create_dir_all(&directory)?;
    let embedded = Embedded::builder()
        .storage(Storage::Disk(directory.join("api")))
        .build()
        .await?;
    let collector = GarbageCollector::start(embedded.client("default"), embedded.clock());
    let runtime = ProcessRuntime::open(ProcessOptions::new(directory.join("node")))?;
    let images = StaticImages::new().otherwise(ImageEnvironment::system());
    let options = NodeOptions::new(embedded.clock());
    let node = Node::start(embedded.client("default"), options, Arc::new(runtime), Arc::new(images)).await?;
    embedded.set_pod_logs(node.logs());
    let endpoint = embedded.listen(address, None).await?;
    write_private(
        &directory.join("kubeconfig"),
        &endpoint.kubeconfig("kube-embed", "default"),
    )?;
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    node.detach().await;
    collector.shutdown().await;
    embedded.shutdown().await;
    Ok(())
}

/// Writes atomically, readable by the owner only. The kubeconfig contains a token.
fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(temporary, path)
}
