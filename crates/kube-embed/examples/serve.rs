//! Serves an embedded API for `kubectl`: `cargo run -p kube-embed --example serve -- DIRECTORY`.
//!
//! Objects are kept in the directory, and `DIRECTORY/kubeconfig` is written for clients. Ends on ctrl-c.

use std::error::Error;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use kube_embed::{Embedded, Storage};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("usage: serve DIRECTORY")?;
    let server = Embedded::builder()
        .storage(Storage::Disk(directory.clone()))
        .build()
        .await?;
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
    server.shutdown().await;
    endpoint.closed().await;
    Ok(())
}
