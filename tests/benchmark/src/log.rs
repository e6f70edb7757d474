//! The API server's audit log since a moment.

use std::path::PathBuf;

use anyhow::Context as _;
use legion_tests::audit::{self, Request};

/// The log since an offset.
pub(crate) struct Log {
    path: PathBuf,
    from: u64,
}

impl Log {
    /// Returns the log since now.
    pub(crate) fn from_now(path: PathBuf) -> anyhow::Result<Self> {
        let from = path
            .metadata()
            .with_context(|| format!("{} cannot be read", path.display()))?
            .len();
        Ok(Self { path, from })
    }

    /// Returns the requests for objects of a namespace that were answered since.
    pub(crate) fn requests(&self, namespace: &str) -> anyhow::Result<Vec<Request>> {
        let mut requests = audit::requests(&self.path, self.from, namespace)?;
        requests.retain(|request| request.is_complete() && request.namespace == namespace);
        Ok(requests)
    }
}
