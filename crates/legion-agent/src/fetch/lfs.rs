//! Pointers of Git LFS: small text files in the place of the content.
//!
//! A training that reads a pointer as its data succeeds with a wrong result. So a pointer never reaches the training:
//! in data it is an error, and in a source a link to nothing takes its place. Opening the link fails in every program,
//! and a source with pointers that the training does not read remains usable. The content itself is not fetched: a
//! repository would choose the server, and the credentials of the repository would be sent there.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::result::WireNotice;

use super::notices;
use crate::confined::shown;
use crate::error::{Result, node_fault};
use crate::fault::Side;
use crate::tree::{self, EntryKind, TreeLimits};

/// A pointer has fewer bytes than this (the specification of Git LFS).
const POINTER_BYTES: u64 = 1024;
/// First line of a pointer, and that of the versions before the first release.
const VERSIONS: [&[u8]; 3] = [
    b"version https://git-lfs.github.com/spec/v1\n",
    b"version http://git-media.io/v/2\n",
    b"version https://hawser.github.com/spec/v1\n",
];
/// Where a link in the place of a pointer leads. There is no such file.
const NOWHERE: &str = "git-lfs-content-was-not-fetched";

/// Replaces every pointer of a source with a link to nothing. Returns the notice about them, or `None` if there are
/// none.
pub(super) fn withhold(source: &Path, limits: TreeLimits) -> Result<Option<WireNotice>> {
    let pointers = pointers(source, limits)?;
    for pointer in &pointers {
        let at = source.join(pointer);
        std::fs::remove_file(&at)
            .and_then(|()| std::os::unix::fs::symlink(NOWHERE, &at))
            .map_err(|e| node_fault(format_args!("cannot replace {:?}", shown(pointer)), &e))?;
    }
    Ok((!pointers.is_empty()).then(|| notices::lfs(&names(&pointers))))
}

/// Returns an error if fetched data, a file or a directory, has a pointer.
pub(super) fn refuse(data: &Path, limits: TreeLimits) -> Result<()> {
    let message = if data.is_dir() {
        let pointers = pointers(data, limits)?;
        if pointers.is_empty() {
            return Ok(());
        }
        format!(
            "files of the data are Git LFS pointers: {}",
            notices::some_of(&names(&pointers))
        )
    } else if is_pointer(data)? {
        "the data is a Git LFS pointer".to_owned()
    } else {
        return Ok(());
    };
    Err(StepError::new(StepReason::ContentRefused, message)
        .remedy("store the content in the place of the pointer: `git lfs pull` fetches it"))
}

fn names(pointers: &[PathBuf]) -> Vec<String> {
    pointers.iter().map(|path| shown(path)).collect()
}

fn pointers(root: &Path, limits: TreeLimits) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in tree::list(root, limits, Side::Workspace)? {
        let is_small = matches!(entry.kind, EntryKind::File { size, .. } if size < POINTER_BYTES);
        if is_small && !entry.path.starts_with(".git") && is_pointer(&root.join(&entry.path))? {
            found.push(entry.path);
        }
    }
    Ok(found)
}

fn is_pointer(path: &Path) -> Result<bool> {
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(POINTER_BYTES).read_to_end(&mut text))
        .map_err(|e| node_fault(format_args!("cannot read {:?}", shown(path)), &e))?;
    let is_line = |line: &[u8]| line.starts_with(b"oid sha256:");
    Ok((text.len() as u64) < POINTER_BYTES
        && VERSIONS.iter().any(|version| text.starts_with(version))
        && text.split(|byte| *byte == b'\n').any(is_line))
}
