//! The async runtime. Only the first request to a network store creates it.

use std::future::Future;
use std::sync::OnceLock;

use legion_protocol::reason::{StepError, StepReason};
use tokio::runtime::{Builder, Runtime};

use crate::error::Result;

static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();

/// Runs a future to its end. Tasks that it spawned continue in the background between calls.
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output> {
    let runtime = RUNTIME.get_or_init(|| {
        // An error means that a provider is already installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| e.to_string())
    });
    match runtime {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(e) => Err(StepError::new(
            StepReason::NodeFault,
            format!("cannot start threads for network requests: {e}"),
        )),
    }
}
