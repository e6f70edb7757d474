//! The result of fetching a source.

use legion_protocol::message::FetchedSource;
use legion_protocol::result::WireNotice;

/// A source in its directory.
pub(super) struct Fetched {
    pub(super) source: FetchedSource,
    /// What the user should know about it.
    pub(super) notice: Option<WireNotice>,
}
