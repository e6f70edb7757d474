//! Finds the success record of a run.

use legion_protocol::env::objects;
use legion_protocol::success::{self, SuccessRecord};
use legion_protocol::task::OutputTask;

use crate::error::Result;
use crate::store::Output;

/// Result of the search for a success record.
#[derive(Debug)]
pub(crate) enum RecordLookup {
    /// The run has no record.
    Nothing,
    /// The record is invalid, or its artifact does not exist or has another size. Such a record proves nothing.
    Stale,
    /// The run has published.
    Published(Box<SuccessRecord>),
}

/// Reads the record of a run, and checks it against its artifact.
pub(crate) fn find(store: &Output, task: &OutputTask, uid: &str, run_id: &str) -> Result<RecordLookup> {
    let Some(bytes) = store.read(&task.record, success::MAX_BYTES as u64)? else {
        return Ok(RecordLookup::Nothing);
    };
    let record = match serde_json::from_slice::<SuccessRecord>(&bytes) {
        Ok(record) if record.is_about(uid, run_id) => record,
        _ => return Ok(RecordLookup::Stale),
    };
    if let Some(artifact) = &record.head.artifact {
        let size = store.size(&format!("{}/{}", record.path, objects::MODEL))?;
        if size != Some(artifact.size_bytes) {
            return Ok(RecordLookup::Stale);
        }
    }
    Ok(RecordLookup::Published(Box::new(record)))
}
