//! Results in a directory. A file gets its name when it is complete and on disk.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use legion_protocol::reason::StepError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::create::{Created, FIELD};
use crate::error::{Result, user_and_group};
use crate::fault::{self, Fault, Side};

/// A directory for results.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    /// The address from the connection. Messages use it because users do not know the path of the mount.
    uri: String,
}

/// A file that still has its temporary name.
#[derive(Debug)]
pub(crate) struct PendingFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    address: String,
    done: bool,
}

impl Directory {
    /// Returns the directory at a path. The directory may not exist yet.
    pub(crate) fn new(root: PathBuf, uri: &str) -> Self {
        let uri = uri.trim_end_matches('/').to_owned();
        Self { root, uri }
    }

    fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.uri)
    }

    pub(super) fn probe(&self, path: &str) -> Result<()> {
        let mut pending = self.start(path)?;
        // One byte detects a full disk or an exhausted quota.
        pending.write(b"?")
    }

    pub(super) fn start(&self, path: &str) -> Result<PendingFile> {
        let address = self.address(path);
        let path = self.root.join(path);
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        std::fs::create_dir_all(&parent).map_err(|e| failed("cannot create the directory of", &address, &e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = parent.join(format!(".{name}.{}.partial", std::process::id()));
        let file = File::create(&partial).map_err(|e| failed("cannot write", &address, &e))?;
        Ok(PendingFile {
            file,
            partial,
            path,
            address,
            done: false,
        })
    }

    /// Syncs the directory of `path`, so that the names of complete files in it survive a crash. Called once for all
    /// files, because a sync may take longer than writing them.
    pub(super) fn sync(&self, path: &str) -> Result<()> {
        sync_parent(&self.root.join(path), &self.address(path))
    }

    pub(super) fn create(&self, path: &str, bytes: &[u8]) -> Result<Created> {
        let mut pending = self.start(path)?;
        pending.write(bytes)?;
        pending.finish_new()
    }

    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let cannot = |e: &std::io::Error| failed("cannot read", &self.address(path), e);
        let file = match File::open(self.root.join(path)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(cannot(&e)),
        };
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|e| cannot(&e))?;
        Ok(Some(bytes))
    }

    pub(super) fn size(&self, path: &str) -> Result<Option<u64>> {
        match std::fs::metadata(self.root.join(path)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("cannot read", &self.address(path), &e)),
        }
    }
}

impl PendingFile {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|e| failed("cannot write", &self.address, &e))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.sync()?;
        std::fs::rename(&self.partial, &self.path).map_err(|e| failed("cannot write", &self.address, &e))?;
        self.done = true;
        Ok(())
    }

    fn finish_new(mut self) -> Result<Created> {
        self.sync()?;
        match renameat_with(CWD, &self.partial, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(Created::Exists),
            // Some network file systems do not support this flag. A hard link fails on an existing name, too.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match std::fs::hard_link(&self.partial, &self.path) {
                    Ok(()) => {}
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Created::Exists),
                    Err(e) => return Err(failed("cannot write", &self.address, &e)),
                }
                return sync_parent(&self.path, &self.address).map(|()| Created::New);
            }
            Err(e) => return Err(failed("cannot write", &self.address, &e.into())),
        }
        self.done = true;
        sync_parent(&self.path, &self.address).map(|()| Created::New)
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|e| failed("cannot write", &self.address, &e))
    }
}

/// Syncs the parent directory, so that the names in it survive a crash of the machine.
fn sync_parent(path: &Path, address: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|d| d.sync_all())
        .map_err(|e| failed("cannot write", address, &e))
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.done {
            // If the removal fails, a hidden file stays. Its name says what it is.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn failed(what: &str, address: &str, error: &std::io::Error) -> StepError {
    let elsewhere = "or set spec.output to another connection";
    let fault = fault::of_volume(error);
    let failed = fault
        .error(Side::Output, format!("{what} {address}: {error}"))
        .field(FIELD);
    match fault {
        Fault::Denied if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            failed.remedy(format!("make the volume of the connection writable, {elsewhere}"))
        }
        Fault::Denied => failed.remedy(format!("give write permission to {}, {elsewhere}", user_and_group())),
        Fault::Content => failed.remedy(format!(
            "remove the conflicting file, change spec.output.pathTemplate, {elsewhere}"
        )),
        Fault::Full => failed.remedy("free space on the volume of the output connection"),
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use legion_protocol::reason::StepReason;

    use super::*;

    #[test]
    fn a_record_is_created_once() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().join("made"), "file:///models");
        assert_eq!(directory.create("a/b.json", b"first").unwrap(), Created::New);
        assert_eq!(directory.create("a/b.json", b"second").unwrap(), Created::Exists);
        assert_eq!(directory.read("a/b.json", 100).unwrap().unwrap(), b"first");
        assert_eq!(directory.read("a/c.json", 100).unwrap(), None);
        assert_eq!(directory.size("a/b.json").unwrap(), Some(5));
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().to_owned(), "file:///models");
        let mut pending = directory.start("model.tar").unwrap();
        pending.write(b"half").unwrap();
        drop(pending);
        directory.probe("x").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_conflicting_file_is_reported_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = Directory::new(dir.path().join("file"), "file:///models/")
            .probe("run/model.tar")
            .unwrap_err();
        assert_eq!(
            (error.reason, error.field.as_str()),
            (StepReason::OutputNotWritable, FIELD)
        );
        assert!(error.message.contains("file:///models/run/model.tar"), "{error}");
    }
}
