//! The control files: lock, start mark and exit record.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use legion_protocol::WIRE_VERSION;
use legion_protocol::env::files;
use legion_protocol::exit::ExitRecord;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{now, say};

/// The directory of the control files, with the lock held.
#[derive(Debug)]
pub(crate) struct Control {
    directory: PathBuf,
    /// Open for as long as the process lives. Rust opens files close-on-exec, so the command does not inherit the lock.
    _lock: File,
}

impl Control {
    /// Takes the lock. `fetch` made the file; it is made here only when something else set the pod up.
    pub(crate) fn lock(directory: &Path) -> Result<Self, String> {
        let path = directory.join(files::LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| format!("cannot open the lock file {}: {e}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                directory: directory.to_owned(),
                _lock: file,
            }),
            Err(Errno::WOULDBLOCK) => Err(format!("another legion-entry holds the lock file {}", path.display())),
            Err(e) => Err(format!("cannot lock {}: {e}", path.display())),
        }
    }

    /// Whether `fetch` found that this run has already published its result.
    pub(crate) fn is_skipped(&self) -> bool {
        self.directory.join(files::SKIP).exists()
    }

    /// The directory of the control files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Says that the lock is held and the command is about to start.
    pub(crate) fn started(&self) -> std::io::Result<()> {
        let pid = std::process::id();
        self.write(
            files::STARTED,
            &serde_json::json!({"version": WIRE_VERSION, "time": now(), "pid": pid}).to_string(),
        )
    }

    /// Leaves the exit record. A full disk must not change the exit code, which says the same in fewer words.
    pub(crate) fn record(&self, record: &ExitRecord) {
        let written = serde_json::to_string(record)
            .map_err(Into::into)
            .and_then(|text| self.write(files::EXIT, &text));
        if let Err(e) = written {
            say(&format!("cannot write the exit record: {e}"));
        }
    }

    /// Writes by rename: a reader sees all of it or nothing.
    fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        let partial = self.directory.join(format!("{name}.partial"));
        std::fs::write(&partial, text)?;
        std::fs::rename(partial, self.directory.join(name))
    }
}
