//! From watches to caches: what the API server reports, and who depends on it.

pub(crate) mod cache;
pub(crate) mod guarded;
pub(crate) mod projection;
pub(crate) mod references;
pub(crate) mod watcher;
pub(crate) mod watches;
