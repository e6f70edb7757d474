//! The API server's audit log, from a certain moment on.

use std::path::PathBuf;

use anyhow::Context as _;
use legion_tests::audit::{self, Request};

/// The log, from a certain place on.
pub struct Log {
    path: PathBuf,
    from: u64,
}

impl Log {
    /// From now on.
    pub fn from_now(path: PathBuf) -> anyhow::Result<Self> {
        let from = path
            .metadata()
            .with_context(|| format!("{} cannot be read", path.display()))?
            .len();
        Ok(Self { path, from })
    }

    /// What was answered since, about objects of a namespace.
    pub fn requests(&self, namespace: &str) -> anyhow::Result<Vec<Request>> {
        let mut requests = audit::requests(&self.path, self.from, namespace)?;
        requests.retain(|request| request.is_complete() && request.namespace == namespace);
        Ok(requests)
    }
}
