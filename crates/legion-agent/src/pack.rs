//! Deterministic archives of the trainer's output: equal files give equal bytes and so the same digest.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use legion_protocol::reason::{StepError, StepReason};
use rustix::fs::{Dir, FileType, Stat};

use crate::confined::{ConfinedDir, OpenRefusal, shown};
use crate::error::Result;
use crate::terminate;

/// Limits of an archive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackLimits {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) entries: u64,
}

/// The entries of an archive. The list is complete and checked before the first byte is written.
#[derive(Debug)]
pub(crate) struct Packing {
    root: ConfinedDir,
    entries: Vec<PackEntry>,
    bytes: u64,
}

#[derive(Debug)]
struct PackEntry {
    /// Path below the root.
    path: PathBuf,
    /// Path in the archive.
    name: PathBuf,
    /// Size of a file, or `None` for a directory.
    size: Option<u64>,
    /// Inode when the file was listed. It must be the same when the file is read.
    inode: u64,
    executable: bool,
}

/// Reads exactly the announced number of bytes, because the tar header with the size has already been written.
struct ExactSize<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for ExactSize<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        terminate::check().map_err(std::io::Error::other)?;
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..want])?;
        if read == 0 && want > 0 {
            return Err(std::io::Error::other("a file was truncated while it was packed"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Packing {
    /// Lists the files at `paths` below `root`, each with its name in the archive (empty for the archive's root).
    pub(crate) fn of(root: &Path, paths: &[(&Path, &Path)], limits: PackLimits) -> Result<Self> {
        // The trainer owns the parent directory, so `root` may be a link to the credentials.
        let opened = ConfinedDir::open_untrusted(root).map_err(|e| hostile(Path::new("."), e))?;
        let mut this = Self {
            root: opened,
            entries: Vec::new(),
            bytes: 0,
        };
        // The number of names of each hard-linked file that were not found yet. A name that is never found is outside.
        let mut linked: HashMap<u64, (u64, PathBuf)> = HashMap::new();
        let mut open: Vec<(PathBuf, PathBuf, usize)> = paths
            .iter()
            .map(|(path, name)| (path.to_path_buf(), name.to_path_buf(), 0))
            .collect();
        while let Some((path, name, depth)) = open.pop() {
            if depth > crate::tree::MAX_DEPTH {
                let what = format!(
                    "{:?} is nested deeper than {} levels",
                    shown(&path),
                    crate::tree::MAX_DEPTH
                );
                return Err(StepError::new(StepReason::TooLarge, what));
            }
            let (fd, stat) = this.root.entry(&path).map_err(|e| hostile(&path, e))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if !name.as_os_str().is_empty() {
                    this.push(
                        PackEntry {
                            path: path.clone(),
                            name: name.clone(),
                            size: None,
                            inode: stat.st_ino,
                            executable: true,
                        },
                        limits,
                    )?;
                }
                let mut dir = Dir::new(fd).map_err(|e| hostile(&path, e.into()))?;
                while let Some(entry) = dir.read() {
                    let entry = entry.map_err(|e| hostile(&path, e.into()))?;
                    let child = OsStr::from_bytes(entry.file_name().to_bytes());
                    if child != "." && child != ".." {
                        open.push((path.join(child), name.join(child), depth + 1));
                    }
                    if (open.len() + this.entries.len()) as u64 > limits.entries {
                        return Err(too_many(limits));
                    }
                }
            } else {
                if stat.st_nlink > 1 {
                    let seen = linked
                        .entry(stat.st_ino)
                        .or_insert_with(|| (link_count(&stat), path.clone()));
                    seen.0 = seen.0.saturating_sub(1);
                }
                this.push(file(path, name, &stat), limits)?;
            }
        }
        if let Some((_, path)) = linked.into_values().find(|(outside, _)| *outside > 0) {
            let what = format!("{:?} is a hard link to a file outside of the output", shown(&path));
            return Err(StepError::new(StepReason::OutputHostile, what).remedy("copy the file instead of linking it"));
        }
        this.entries
            .sort_unstable_by(|a, b| a.name.as_os_str().as_bytes().cmp(b.name.as_os_str().as_bytes()));
        Ok(this)
    }

    fn push(&mut self, entry: PackEntry, limits: PackLimits) -> Result<()> {
        self.bytes = self.bytes.saturating_add(entry.size.unwrap_or(0));
        if self.bytes > limits.bytes {
            let (size, most) = (entry.size.unwrap_or(0), limits.bytes);
            let what = format!(
                "{:?} ({size} bytes) exceeds the limit of {most} bytes of files",
                shown(&entry.path)
            );
            return Err(StepError::new(StepReason::TooLarge, what)
                .remedy("write less data. A sparse file counts with its full length"));
        }
        self.entries.push(entry);
        if self.entries.len() as u64 > limits.entries {
            return Err(too_many(limits));
        }
        Ok(())
    }

    pub(crate) fn files(&self) -> usize {
        self.entries.iter().filter(|e| e.size.is_some()).count()
    }

    /// Returns the approximate size of the archive. It decides on the size of an upload's parts.
    pub(crate) fn estimate(&self) -> u64 {
        // One header and padding for each entry. A long name takes two more blocks.
        self.bytes + self.entries.len() as u64 * 2560 + 1024
    }

    /// Writes the archive, file by file.
    pub(crate) fn write(&self, sink: &mut dyn Write) -> Result<()> {
        let mut tar = tar::Builder::new(sink);
        for entry in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mode(if entry.executable { 0o755 } else { 0o644 });
            let added = match entry.size {
                None => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, &entry.name, std::io::empty())
                }
                Some(size) => {
                    let (file, stat) = self.root.file(&entry.path, size).map_err(|e| hostile(&entry.path, e))?;
                    if stat.st_ino != entry.inode {
                        let what = format!("{:?} was replaced while the output was packed", shown(&entry.path));
                        return Err(StepError::new(StepReason::OutputHostile, what));
                    }
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(size);
                    tar.append_data(
                        &mut header,
                        &entry.name,
                        ExactSize {
                            inner: file,
                            left: size,
                        },
                    )
                }
            };
            added.map_err(|e| crate::error::sink_error(&e))?;
        }
        tar.finish().map_err(|e| crate::error::sink_error(&e))
    }
}

fn file(path: PathBuf, name: PathBuf, stat: &Stat) -> PackEntry {
    // The name is empty if the model is one file.
    let name = match (name.as_os_str().is_empty(), path.file_name()) {
        (true, Some(file)) => PathBuf::from(file),
        _ => name,
    };
    PackEntry {
        path,
        name,
        size: Some(u64::try_from(stat.st_size).unwrap_or(0)),
        inode: stat.st_ino,
        executable: stat.st_mode & 0o100 != 0,
    }
}

/// The type of the field differs between architectures.
#[allow(clippy::unnecessary_cast, reason = "no cast on x86-64, one on arm64")]
fn link_count(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

fn too_many(limits: PackLimits) -> StepError {
    StepError::new(
        StepReason::TooLarge,
        format!("more than {} files and directories", limits.entries),
    )
}

fn hostile(path: &Path, why: OpenRefusal) -> StepError {
    let reason = match why {
        OpenRefusal::Missing => StepReason::ModelMissing,
        OpenRefusal::TooLarge | OpenRefusal::TooLong => StepReason::TooLarge,
        OpenRefusal::Io(_) => StepReason::NodeFault,
        OpenRefusal::Link | OpenRefusal::Special | OpenRefusal::Outside | OpenRefusal::Denied => {
            StepReason::OutputHostile
        }
    };
    StepError::new(reason, format!("{:?} in the trainer's output {why}", shown(path)))
}
