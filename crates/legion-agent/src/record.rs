//! Finding the success record of a run.

use legion_protocol::env::objects;
use legion_protocol::success::{self, SuccessRecord};
use legion_protocol::task::OutputTask;

use crate::error::Result;
use crate::store::Output;

/// What the store says about a run.
#[derive(Debug)]
pub(crate) enum Found {
    /// No record of this run.
    Nothing,
    /// A record whose artifact is not there any more, or has another size: it proves nothing.
    Stale,
    /// The run has published.
    Published(Box<SuccessRecord>),
}

/// Looks for the record of a run, and checks it against its artifact.
pub(crate) fn find(store: &Output, task: &OutputTask, uid: &str, run_id: &str) -> Result<Found> {
    let Some(bytes) = store.read(&task.record, success::MAX_BYTES as u64)? else {
        return Ok(Found::Nothing);
    };
    let record = match serde_json::from_slice::<SuccessRecord>(&bytes) {
        Ok(record) if record.is_about(uid, run_id) => record,
        _ => return Ok(Found::Stale),
    };
    if let Some(artifact) = &record.head.artifact {
        let size = store.size(&format!("{}/{}", record.path, objects::MODEL))?;
        if size != Some(artifact.size_bytes) {
            return Ok(Found::Stale);
        }
    }
    Ok(Found::Published(Box::new(record)))
}
