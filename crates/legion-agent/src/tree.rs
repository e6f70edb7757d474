//! Trees of files: lists them in a stable order and within limits, and copies them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use legion_protocol::digest;
use legion_protocol::reason::{StepError, StepReason};
use sha2::{Digest as _, Sha256};

use crate::confined::{ConfinedDir, shown};
use crate::error::{Result, carried, node_fault};

/// Most levels of directories in a tree.
pub(crate) const MAX_DEPTH: usize = 64;

/// Limits on a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeLimits {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) entries: u64,
}

/// Type of an entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link,
    /// Anything else.
    Special,
}

/// An entry of a tree.
#[derive(Clone, Debug)]
pub(crate) struct TreeEntry {
    /// Its path below the root.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: EntryKind,
}

/// Lists the entries of a tree, sorted by the bytes of their paths. Links are not followed. Returns an error
/// immediately when the tree exceeds the limits.
pub(crate) fn list(root: &Path, limits: TreeLimits) -> Result<Vec<TreeEntry>> {
    let mut entries = Vec::new();
    let mut bytes = 0u64;
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((directory, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            let what = format!(
                "the directory {:?} is nested deeper than {MAX_DEPTH} levels",
                shown(&directory)
            );
            return Err(StepError::new(StepReason::TooLarge, what));
        }
        let at = root.join(&directory);
        let failed = |e: &std::io::Error| node_fault(format_args!("cannot list {:?}", shown(&directory)), e);
        for entry in std::fs::read_dir(&at).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let path = directory.join(entry.file_name());
            let meta = entry.metadata().map_err(|e| failed(&e))?;
            let kind = if meta.is_dir() {
                open.push((path.clone(), depth + 1));
                EntryKind::Directory
            } else if meta.is_file() {
                bytes = bytes.saturating_add(meta.len());
                EntryKind::File {
                    size: meta.len(),
                    executable: meta.permissions().mode() & 0o100 != 0,
                }
            } else if meta.is_symlink() {
                EntryKind::Link
            } else {
                EntryKind::Special
            };
            entries.push(TreeEntry { path, kind });
            if entries.len() as u64 > limits.entries {
                let what = format!("more than {} files and directories", limits.entries);
                return Err(StepError::new(StepReason::TooLarge, what));
            }
            if bytes > limits.bytes {
                return Err(StepError::new(
                    StepReason::TooLarge,
                    format!("more than {} bytes of files", limits.bytes),
                ));
            }
        }
    }
    entries.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(entries)
}

/// Digest and size of a fetched tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeSummary {
    /// Digest of the one file, or of the list of paths and file digests.
    pub(crate) digest: String,
    /// Number of files.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Collects the summary of a tree from its files.
#[derive(Debug, Default)]
pub(crate) struct TreeCollector {
    files: Vec<(String, String)>,
    bytes: u64,
}

impl TreeCollector {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: &Path, digest: String, bytes: u64) {
        self.files.push((path.to_string_lossy().into_owned(), digest));
        self.bytes += bytes;
    }

    /// Returns the summary. The digest is [`digest::of_files`] over the paths and the digests of the contents.
    pub(crate) fn finish(self) -> TreeSummary {
        let digest = digest::of_files(
            self.files
                .iter()
                .map(|(path, digest)| (path.as_str(), digest.as_bytes())),
        );
        TreeSummary {
            digest,
            files: self.files.len() as u64,
            bytes: self.bytes,
        }
    }
}

/// Copies at most `limit` bytes of content, and returns the digest and the size.
pub(crate) fn copy_file(
    from: &mut dyn std::io::Read,
    to: &Path,
    limit: u64,
    executable: bool,
) -> Result<(String, u64)> {
    let failed = |e: &std::io::Error| node_fault(format_args!("cannot copy to {}", to.display()), e);
    let mut file = File::create(to).map_err(|e| failed(&e))?;
    let mut hash = Sha256::new();
    let mut bytes = 0u64;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = from
            .read(&mut buffer)
            .map_err(|e| carried(&e).unwrap_or_else(|| failed(&e)))?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        if bytes > limit {
            return Err(StepError::new(
                StepReason::TooLarge,
                format!("more than {limit} bytes of files"),
            ));
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(|e| failed(&e))?;
    }
    if executable {
        file.set_permissions(std::fs::Permissions::from_mode(0o755))
            .map_err(|e| failed(&e))?;
    }
    Ok((digest::render(hash), bytes))
}

/// Copies a tree. Links inside of it stay links. Links out of it and special files are refused. `keep` selects the
/// entries to copy.
pub(crate) fn copy(from: &Path, to: &Path, limits: TreeLimits, keep: impl Fn(&Path) -> bool) -> Result<TreeSummary> {
    let root = ConfinedDir::open(from)
        .map_err(|e| StepError::new(StepReason::NodeFault, format!("{}: {e}", from.display())))?;
    let mut collector = TreeCollector::default();
    for entry in list(from, limits)?.into_iter().filter(|e| keep(&e.path)) {
        let target = to.join(&entry.path);
        let failed = |e: &std::io::Error| node_fault(format_args!("cannot copy {:?}", shown(&entry.path)), e);
        match entry.kind {
            EntryKind::Directory => crate::paths::create_dir(&target)?,
            EntryKind::File { size, executable } => {
                let (mut file, _) = root.file(&entry.path, size).map_err(|e| changed(&entry.path, e))?;
                let (digest, bytes) = copy_file(&mut file, &target, size, executable)?;
                collector.add(&entry.path, digest, bytes);
            }
            EntryKind::Link if root.points_outside(&entry.path, from) => return Err(points_outside(&entry.path)),
            EntryKind::Link => {
                let link = std::fs::read_link(from.join(&entry.path)).map_err(|e| failed(&e))?;
                std::os::unix::fs::symlink(link, &target).map_err(|e| failed(&e))?;
            }
            EntryKind::Special => return Err(special(&entry.path)),
        }
    }
    Ok(collector.finish())
}

/// Checks a tree of another program. Links out of it and special files are refused.
pub(crate) fn check(root: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    let opened = ConfinedDir::open(root)
        .map_err(|e| StepError::new(StepReason::NodeFault, format!("{}: {e}", root.display())))?;
    let mut summary = TreeSummary::default();
    for entry in list(root, limits)? {
        match entry.kind {
            EntryKind::Link if opened.points_outside(&entry.path, root) => return Err(points_outside(&entry.path)),
            EntryKind::Special => return Err(special(&entry.path)),
            EntryKind::File { size, .. } => {
                summary.files += 1;
                summary.bytes += size;
            }
            EntryKind::Link | EntryKind::Directory => {}
        }
    }
    Ok(summary)
}

fn changed(path: &Path, why: crate::confined::OpenRefusal) -> StepError {
    StepError::new(
        StepReason::NodeFault,
        format!("{:?} changed while it was copied: it {why}", shown(path)),
    )
}

fn points_outside(path: &Path) -> StepError {
    StepError::new(
        StepReason::PathEscapes,
        format!("the link {:?} points outside of its tree", shown(path)),
    )
    .remedy("replace the link with its target, or with a link inside the tree")
}

fn special(path: &Path) -> StepError {
    StepError::new(
        StepReason::ContentRefused,
        format!("{:?} is neither a file nor a directory", shown(path)),
    )
}
