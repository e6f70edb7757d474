//! Where the local mode keeps everything, and who uses it.

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

/// The directory of one local API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// What the process that serves a data directory says about itself, in the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    /// Its process id.
    pub(crate) pid: i32,
    /// Its version.
    pub(crate) version: String,
    /// Whether it serves until it is told to stop, or for one `local run` only.
    pub(crate) stays: bool,
}

/// Holds the data directory until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Locked with `flock`: the kernel releases it with the process.
    _file: File,
}

impl DataDir {
    /// The directory that the command line names, else the user's own.
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
                .remedy("name one with --data-dir")
            })?,
        };
        // Paths of this directory reach other processes, whose working directories differ.
        let root = std::path::absolute(&root).map_err(|error| CliError::io(root.display(), error))?;
        Ok(Self { root })
    }

    /// The directory itself.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The kubeconfig for kubectl and any other client.
    #[must_use]
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The objects of the API.
    #[must_use]
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// What the node keeps of its pods.
    #[must_use]
    pub(crate) fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Where trainings without an output of their own leave their results.
    #[must_use]
    pub(crate) fn outputs(&self) -> PathBuf {
        self.root.join("outputs")
    }

    /// The log of a process in the background.
    #[must_use]
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("legion.log")
    }

    /// Port and token of the API, kept so that a kubeconfig stays valid over restarts.
    #[must_use]
    pub(crate) fn endpoint(&self) -> PathBuf {
        self.root.join("endpoint.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Makes the directory, readable by its owner only: it holds a token and everything that was trained.
    pub(crate) fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|error| {
                CliError::io(self.root.display(), error).remedy("name a directory that you may write with --data-dir")
            })
    }

    /// Takes the directory, or says who holds it.
    pub(crate) fn lock(&self, stays: bool) -> Result<std::result::Result<Lock, Option<Holder>>> {
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
                // Somebody is only asking whether the directory is in use, which takes microseconds.
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::yield_now(),
                Err(error) => return Err(failed(error.into())),
            }
        }
        let holder = Holder {
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

    /// Whether a process serves this directory now.
    #[must_use]
    pub(crate) fn is_up(&self) -> bool {
        let Ok(file) = File::open(self.lock_file()) else {
            return false;
        };
        // A shared lock is refused while somebody holds the exclusive one; ours is gone with the file.
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

    /// Who serves this directory.
    #[must_use]
    pub(crate) fn holder(&self) -> Option<Holder> {
        if !self.is_up() {
            return None;
        }
        let mut text = String::new();
        File::open(self.lock_file()).ok()?.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes a file that only its owner may read, by rename: a reader sees the old one or the new one.
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

    /// Reads a small file of this directory, if it is there.
    #[must_use]
    pub(crate) fn read(&self, path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }
}

fn default_root(data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let usable = |path: &PathBuf| path.is_absolute();
    // The XDG specification: a relative path is to be ignored.
    data_home
        .filter(usable)
        .or_else(|| home.filter(usable).map(|home| home.join(".local/share")))
        .map(|base| base.join("legion"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_directory_and_others_see_who() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::choose(Some(&directory.path().join("data"))).unwrap();
        assert!(!data_dir.is_up(), "there is not even a directory");
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
    fn secrets_are_for_their_owner_only() {
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
