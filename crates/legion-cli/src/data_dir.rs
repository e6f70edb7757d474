//! The data directory of the local mode, and the lock of the process that uses it.

use std::{
    env, fs,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::exit::{CliError, Code, Result};

/// Data directory of one local API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// The process that serves a data directory, as recorded in the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LockHolder {
    pub(crate) pid: i32,
    /// Version of Legion.
    pub(crate) version: String,
    /// Whether it is a `local up`, which serves until it is stopped, and not one `local run`.
    pub(crate) stays: bool,
}

/// Lock of the data directory. It ends when it is dropped, and at every kind of end of the process.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Locked with `flock`: the kernel releases the lock when the process ends.
    _file: File,
}

impl DataDir {
    /// Returns the directory of the command line, or else the default directory of the user.
    pub(crate) fn choose(named: Option<&Path>) -> Result<Self> {
        let root = match named {
            Some(path) => path.to_owned(),
            None => default_root(
                env::var_os("XDG_DATA_HOME").map(PathBuf::from),
                env::var_os("HOME").map(PathBuf::from),
            )
            .ok_or_else(|| {
                CliError::new(
                    Code::Invalid,
                    "no data directory: neither HOME nor XDG_DATA_HOME is set",
                )
                .remedy("set --data-dir")
            })?,
        };
        // Absolute, because other processes with other working directories use its paths.
        let root = std::path::absolute(&root).map_err(|error| CliError::io(root.display(), error))?;
        Ok(Self { root })
    }

    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of the kubeconfig for kubectl and other clients.
    #[must_use]
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Returns the directory for the objects of the API.
    #[must_use]
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Returns the directory for the node's pods and claims.
    #[must_use]
    pub(crate) fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Returns the directory for the results of trainings without an output of their own.
    #[must_use]
    pub(crate) fn outputs(&self) -> PathBuf {
        self.root.join("outputs")
    }

    /// Returns the git repository of the directories that `local run --source` has read.
    #[must_use]
    pub(crate) fn sources(&self) -> PathBuf {
        self.root.join("sources.git")
    }

    /// Returns the log file of the background process.
    #[must_use]
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("legion.log")
    }

    /// Returns the file for port and token of the API. With it, a kubeconfig stays valid after a restart.
    #[must_use]
    pub(crate) fn endpoint(&self) -> PathBuf {
        self.root.join("endpoint.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Creates the directory. Only its owner may read it, because it contains a token and all results.
    pub(crate) fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|error| {
                CliError::io(self.root.display(), error).remedy("set --data-dir to a directory that you may write")
            })
    }

    /// Locks the directory, or returns the process that holds the lock, if it is known.
    pub(crate) fn lock(&self, stays: bool) -> Result<std::result::Result<Lock, Option<LockHolder>>> {
        self.create()?;
        let path = self.lock_file();
        let failed = |error: io::Error| CliError::io(path.display(), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if self.is_up() => return Ok(Err(self.holder())),
                // Another process checks whether the directory is in use. That takes microseconds.
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::yield_now(),
                Err(error) => return Err(failed(error.into())),
            }
        }
        let holder = LockHolder {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stays,
        };
        let text = serde_json::to_string(&holder).map_err(|error| CliError::io(path.display(), error))?;
        file.set_len(0)
            .and_then(|()| writeln!(file, "{text}"))
            .map_err(failed)?;
        Ok(Ok(Lock { _file: file }))
    }

    /// Returns whether a process serves this directory now.
    #[must_use]
    pub(crate) fn is_up(&self) -> bool {
        let Ok(file) = File::open(self.lock_file()) else {
            return false;
        };
        // While a process holds the exclusive lock, a shared one is refused. This shared lock ends with the file.
        matches!(
            flock(&file, FlockOperation::NonBlockingLockShared),
            Err(rustix::io::Errno::WOULDBLOCK)
        )
    }

    /// Waits until no process serves this directory.
    pub(crate) fn wait_until_down(&self) -> Result<()> {
        let path = self.lock_file();
        let file = File::open(&path).map_err(|error| CliError::io(path.display(), error))?;
        flock(&file, FlockOperation::LockShared).map_err(|error| CliError::io(path.display(), error))
    }

    /// Returns the process that serves this directory.
    #[must_use]
    pub(crate) fn holder(&self) -> Option<LockHolder> {
        if !self.is_up() {
            return None;
        }
        let mut text = String::new();
        File::open(self.lock_file()).ok()?.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes a file that only its owner may read. It is renamed into place, so a reader sees the old or the new
    /// content.
    pub(crate) fn write_secret(&self, path: &Path, content: &str) -> Result<()> {
        let failed = |error: io::Error| CliError::io(path.display(), error);
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .tempfile_in(&self.root)
            .map_err(failed)?;
        file.write_all(content.as_bytes()).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Reads a small file of this directory, if it exists.
    #[must_use]
    pub(crate) fn read(&self, path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }
}

fn default_root(data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let usable = |path: &PathBuf| path.is_absolute();
    // The XDG specification: relative paths must be ignored.
    data_home
        .filter(usable)
        .or_else(|| home.filter(usable).map(|home| home.join(".local/share")))
        .map(|base| base.join("legion"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_directory_and_others_see_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::choose(Some(&directory.path().join("data"))).unwrap();
        assert!(!data_dir.is_up(), "there is no directory yet");
        let lock = data_dir.lock(true).unwrap().unwrap();
        assert!(data_dir.is_up());
        let holder = data_dir.lock(true).unwrap().unwrap_err().unwrap();
        assert_eq!(u32::try_from(holder.pid).unwrap(), std::process::id());
        assert!(holder.stays);
        drop(lock);
        assert!(!data_dir.is_up());
        assert!(data_dir.lock(false).unwrap().is_ok());
    }

    #[test]
    fn only_the_owner_may_read_secrets() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::choose(Some(&directory.path().join("data"))).unwrap();
        data_dir.create().unwrap();
        data_dir.write_secret(&data_dir.kubeconfig(), "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir.kubeconfig()), 0o600);
        assert_eq!(mode(data_dir.root()), 0o700);
    }

    #[test]
    fn the_default_follows_the_xdg_specification() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(default_root(path("/data"), path("/home/a")), path("/data/legion"));
        assert_eq!(
            default_root(path("relative"), path("/home/a")),
            path("/home/a/.local/share/legion")
        );
        assert_eq!(default_root(None, None), None);
    }
}
