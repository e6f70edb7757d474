//! The control files of a run: the lock, the start mark and the exit record.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use legion_protocol::WIRE_VERSION;
use legion_protocol::env::files;
use legion_protocol::exit::ExitRecord;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{now, report};

/// The directory of the control files. This process holds the lock in it.
#[derive(Debug)]
pub(crate) struct ControlDir {
    directory: PathBuf,
    /// Stays open until the process ends. Rust opens files close-on-exec, so the command does not inherit the lock.
    _lock: File,
}

impl ControlDir {
    /// Takes the lock. Normally `fetch` has created the file. It is created here if something else set up the pod.
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

    /// Returns whether `fetch` found a published result of this run.
    pub(crate) fn is_skipped(&self) -> bool {
        self.directory.join(files::SKIP).exists()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes the start mark: the lock is held, and the command starts next.
    pub(crate) fn write_start_mark(&self) -> std::io::Result<()> {
        let pid = std::process::id();
        self.write(
            files::STARTED,
            &serde_json::json!({"version": WIRE_VERSION, "time": now(), "pid": pid}).to_string(),
        )
    }

    /// Writes the exit record. If the disk is full, the exit code still reports how the command ended.
    pub(crate) fn write_exit_record(&self, record: &ExitRecord) {
        let written = serde_json::to_string(record)
            .map_err(Into::into)
            .and_then(|text| self.write(files::EXIT, &text));
        if let Err(e) = written {
            report(&format!("cannot write the exit record: {e}"));
        }
    }

    /// Writes a file by rename, so a reader never sees a part of it.
    fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        let partial = self.directory.join(format!("{name}.partial"));
        std::fs::write(&partial, text)?;
        std::fs::rename(partial, self.directory.join(name))
    }
}
