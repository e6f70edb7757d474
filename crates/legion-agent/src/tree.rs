//! Trees of files: lists them in a stable order and within limits, and copies them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use legion_protocol::digest;
use legion_protocol::reason::{StepError, StepReason};
use sha2::{Digest as _, Sha256};

use crate::confined::{ConfinedDir, LinkTarget, OpenRefusal, shown};
use crate::error::{Result, carried, node_fault, user_and_group};
use crate::fault::{self, Side};

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
/// immediately when the tree exceeds the limits. `side` says to whom the tree belongs.
pub(crate) fn list(root: &Path, limits: TreeLimits, side: Side) -> Result<Vec<TreeEntry>> {
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
        let failed = |e: &std::io::Error| unreadable(side, "list", &directory, e);
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

/// Copies at most `limit` bytes of content, and returns the digest and the size. `unreadable` is the error for content
/// that cannot be read, unless the reader carries an error of its own.
pub(crate) fn copy_file(
    from: &mut dyn std::io::Read,
    to: &Path,
    limit: u64,
    executable: bool,
    unreadable: &dyn Fn(&std::io::Error) -> StepError,
) -> Result<(String, u64)> {
    let failed = |e: &std::io::Error| node_fault(format_args!("cannot write {}", to.display()), e);
    let mut file = File::create(to).map_err(|e| failed(&e))?;
    let mut hash = Sha256::new();
    let mut bytes = 0u64;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = from
            .read(&mut buffer)
            .map_err(|e| carried(&e).unwrap_or_else(|| unreadable(&e)))?;
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

/// Returns whether an entry of a volume belongs to the user. `lost+found` belongs to the file system and is not
/// readable.
pub(crate) fn is_of_user(entry: &TreeEntry) -> bool {
    !entry.path.starts_with("lost+found")
}

/// Copies a tree. Links inside of it stay links. Links out of it and special files are refused, unless `keep` leaves
/// them out. `side` says to whom the tree belongs.
pub(crate) fn copy(
    from: &Path,
    to: &Path,
    limits: TreeLimits,
    side: Side,
    keep: impl FnMut(&TreeEntry) -> bool,
) -> Result<TreeSummary> {
    let root = ConfinedDir::open(from).map_err(|e| refused(side, Path::new("."), e))?;
    let mut collector = TreeCollector::default();
    for entry in list(from, limits, side)?.into_iter().filter(keep) {
        let target = to.join(&entry.path);
        match entry.kind {
            EntryKind::Directory => crate::paths::create_dir(&target)?,
            EntryKind::File { size, executable } => {
                let (mut file, _) = root
                    .file(&entry.path, size)
                    .map_err(|e| refused(side, &entry.path, e))?;
                let unreadable = |e: &std::io::Error| unreadable(side, "read", &entry.path, e);
                let (digest, bytes) = copy_file(&mut file, &target, size, executable, &unreadable)?;
                collector.add(&entry.path, digest, bytes);
            }
            EntryKind::Link => {
                link_inside(&root, &entry.path, from)?;
                let link = std::fs::read_link(from.join(&entry.path))
                    .map_err(|e| unreadable(side, "read", &entry.path, &e))?;
                std::os::unix::fs::symlink(link, &target)
                    .map_err(|e| node_fault(format_args!("cannot create the link {:?}", shown(&entry.path)), &e))?;
            }
            EntryKind::Special => return Err(special(&entry.path)),
        }
    }
    Ok(collector.finish())
}

/// Checks a tree in the workspace that another program wrote. Links out of it and special files are refused.
pub(crate) fn check(root: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    let opened = ConfinedDir::open(root).map_err(|e| refused(Side::Workspace, Path::new("."), e))?;
    let mut summary = TreeSummary::default();
    for entry in list(root, limits, Side::Workspace)? {
        match entry.kind {
            EntryKind::Link => link_inside(&opened, &entry.path, root)?,
            EntryKind::Special => return Err(special(&entry.path)),
            EntryKind::File { size, .. } => {
                summary.files += 1;
                summary.bytes += size;
            }
            EntryKind::Directory => {}
        }
    }
    Ok(summary)
}

/// Checks that a link leads to a path inside its tree.
pub(crate) fn link_inside(tree: &ConfinedDir, link: &Path, root: &Path) -> Result<()> {
    match tree.target_of(link, root) {
        LinkTarget::Inside => Ok(()),
        LinkTarget::Outside => Err(StepError::new(
            StepReason::PathEscapes,
            format!("the link {:?} points outside of its tree", shown(link)),
        )
        .remedy("replace the link with its target, or with a link inside the tree")),
        LinkTarget::Loop => Err(StepError::new(
            StepReason::ContentRefused,
            format!(
                "the link {:?} is part of a loop of links: it leads back to itself",
                shown(link)
            ),
        )
        .remedy("remove the link, or let it point to a file or a directory")),
    }
}

/// Returns the error for an entry that a listing has found and that cannot be read. `what` is the failed action.
pub(crate) fn unreadable(side: Side, what: &str, path: &Path, error: &std::io::Error) -> StepError {
    readable(fault::of_volume(error).error(side, format!("cannot {what} {:?}: {error}", shown(path))))
}

/// Returns the error for an entry that a listing has found and that was not opened.
fn refused(side: Side, path: &Path, why: OpenRefusal) -> StepError {
    let fault = fault::of_refusal(why);
    let message = match fault {
        fault::Fault::Node => format!("{:?} changed while it was copied: it {why}", shown(path)),
        _ => format!("{:?} {why}", shown(path)),
    };
    readable(fault.error(side, message))
}

/// Adds the remedy for file modes to an error about them.
fn readable(error: StepError) -> StepError {
    if !matches!(
        error.reason,
        StepReason::SourceAccessDenied | StepReason::DataAccessDenied
    ) {
        return error;
    }
    error.remedy(format!("give {} permission to read it", user_and_group()))
}

fn special(path: &Path) -> StepError {
    StepError::new(
        StepReason::ContentRefused,
        format!("{:?} is neither a file nor a directory", shown(path)),
    )
}
