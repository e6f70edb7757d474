//! Data bindings: downloaded into `$LEGION_DATA`, and moved into the project if the binding has a `localPath`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use legion_protocol::message::FetchedData;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::{DataTask, WireStore};
use legion_protocol::training::WireData;

use super::{http, lfs, source};
use crate::confined::{ConfinedDir, shown};
use crate::error::{Result, node_fault};
use crate::fault::{self, Fault, Side};
use crate::paths;
use crate::secrets::Secret;
use crate::store::s3::Bucket;
use crate::tree::{self, TreeLimits, TreeSummary};

/// Fetches one binding.
pub(super) fn fetch(
    task: &DataTask,
    data: &Path,
    project: &Path,
    limits: TreeLimits,
) -> Result<(FetchedData, WireData)> {
    let field = format!("spec.data[{}]", task.name);
    let name = paths::relative(&task.name, &field)?;
    if name.components().count() != 1 {
        return Err(StepError::new(
            StepReason::PathEscapes,
            format!("{:?} is not a valid name for a binding", task.name),
        )
        .field(field));
    }
    let entry = data.join(name);
    let summary = download(task, &entry, limits).map_err(|e| e.field(field.clone()))?;
    if !task.digest.is_empty() && task.digest != summary.digest {
        let message = format!(
            "{} has the digest {}, but the manifest requires {}",
            task.uri, summary.digest, task.digest
        );
        return Err(StepError::new(StepReason::DigestMismatch, message).field(format!("{field}.digest")));
    }
    lfs::refuse(&entry, limits).map_err(|e| e.field(field.clone()))?;
    let path = if task.local_path.is_empty() {
        entry
    } else {
        let at = place(task, &entry, project).map_err(|e| e.field(format!("{field}.localPath")))?;
        std::os::unix::fs::symlink(&at, &entry)
            .map_err(|e| node_fault(format_args!("cannot create {}", entry.display()), &e))?;
        at
    };
    let seen = WireData {
        name: task.name.clone(),
        uri: task.uri.clone(),
        local_path: task.local_path.clone(),
        path: path.to_string_lossy().into_owned(),
        digest: summary.digest.clone(),
    };
    Ok((
        FetchedData {
            name: task.name.clone(),
            digest: summary.digest,
            files: summary.files,
            size_bytes: summary.bytes,
        },
        seen,
    ))
}

fn download(task: &DataTask, to: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    let nothing = || {
        let message = format!("there is no data at {:?} ({})", task.remote_path, task.uri);
        StepError::new(StepReason::DataNotFound, message)
    };
    match &task.store {
        WireStore::Http { uri, secret } => {
            let secret = Secret::of(secret, &task.slot, "spec.data")?;
            http::download(&http::address(uri, &task.remote_path)?, secret.as_ref(), to, limits)
        }
        WireStore::S3 { secret, .. } => {
            let secret = Secret::of(secret, &task.slot, "spec.data")?;
            let bucket = Bucket::open(&task.store, secret.as_ref(), Side::Data)?;
            let path = task.remote_path.trim_end_matches('/');
            // The path is either one object or a prefix.
            if !path.is_empty() && !task.remote_path.ends_with('/') && bucket.head(path)?.is_some() {
                let (digest, bytes) = source::object(&bucket, path, to, limits.bytes)?;
                return Ok(TreeSummary {
                    digest,
                    files: 1,
                    bytes,
                });
            }
            paths::create_dir(to)?;
            source::prefix(&bucket, path, to, limits)?.ok_or_else(nothing)
        }
        WireStore::Volume { path } => {
            let mount = paths::storage(&task.slot)?;
            let below = paths::relative(path, "spec.data")?.join(paths::relative(&task.remote_path, "spec.data")?);
            let from = mount.join(&below);
            let meta = match std::fs::metadata(&from) {
                Ok(meta) => meta,
                Err(e) if fault::of_io(&e) == Fault::Missing => return Err(nothing()),
                Err(e) => return Err(tree::unreadable(Side::Data, "open", Path::new(&task.remote_path), &e)),
            };
            let root = ConfinedDir::open(&mount)
                .map_err(|e| StepError::new(StepReason::NodeFault, format!("the volume {e}")))?;
            if !below.as_os_str().is_empty() {
                tree::link_inside(&root, &below, &mount)?;
            }
            if meta.is_dir() {
                paths::create_dir(to)?;
                return tree::copy(&from, to, limits, Side::Data, tree::is_of_user);
            }
            if !meta.is_file() {
                return Err(StepError::new(
                    StepReason::ContentRefused,
                    format!("{:?} is not a file", task.remote_path),
                ));
            }
            let unreadable = |e: &std::io::Error| tree::unreadable(Side::Data, "read", Path::new(&task.remote_path), e);
            let mut file = std::fs::File::open(&from).map_err(|e| unreadable(&e))?;
            let (digest, bytes) = tree::copy_file(&mut file, to, limits.bytes, false, &unreadable)?;
            Ok(TreeSummary {
                digest,
                files: 1,
                bytes,
            })
        }
    }
}

/// Moves the data to its path in the project. A symbolic link of the source on that path is refused.
fn place(task: &DataTask, from: &Path, project: &Path) -> Result<PathBuf> {
    let wanted = paths::relative(&task.local_path, "spec.data")?;
    let into = task.local_path.ends_with('/') && from.is_file();
    let wanted = if into {
        wanted.join(base_name(task))
    } else {
        wanted.to_owned()
    };
    let mut at = project.to_owned();
    let mut parts = wanted.components().peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        match Found::at(&at) {
            Some(Found::Link) => {
                let message = format!(
                    "localPath {:?} goes through a symbolic link of the source",
                    task.local_path
                );
                return Err(StepError::new(StepReason::PathEscapes, message));
            }
            Some(Found::File) if parts.peek().is_some() => {
                return Err(occupied(task, &at, project, "the data needs a directory there"));
            }
            None if parts.peek().is_some() => paths::create_dir(&at)?,
            Some(Found::File | Found::Directory) | None => {}
        }
    }
    merge(task, from, &at, project)?;
    Ok(at)
}

/// What is at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A file, or anything else that is neither a directory nor a link.
    File,
    Directory,
    Link,
}

impl Found {
    fn at(path: &Path) -> Option<Self> {
        let meta = std::fs::symlink_metadata(path).ok()?;
        Some(if meta.is_dir() {
            Self::Directory
        } else if meta.is_symlink() {
            Self::Link
        } else {
            Self::File
        })
    }
}

/// Moves a file or a tree. Merges two directories. A file of the data replaces a file of the source. (The operator
/// refuses bindings with the same path.)
fn merge(task: &DataTask, from: &Path, to: &Path, project: &Path) -> Result<()> {
    let failed = |e: std::io::Error| node_fault(format_args!("cannot place the data at {:?}", task.local_path), &e);
    let why = match (Found::at(from), Found::at(to)) {
        (Some(Found::Directory), Some(Found::File | Found::Link)) => "the data is a directory",
        (Some(Found::File | Found::Link), Some(Found::Directory)) => "the data is a file",
        (Some(Found::Directory), Some(Found::Directory)) => {
            for entry in std::fs::read_dir(from).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                merge(task, &from.join(&name), &to.join(&name), project)?;
            }
            return std::fs::remove_dir(from).map_err(failed);
        }
        _ => return std::fs::rename(from, to).map_err(failed),
    };
    Err(occupied(task, to, project, why))
}

/// Returns the error for a path of the project that the data cannot take.
fn occupied(task: &DataTask, at: &Path, project: &Path, why: &str) -> StepError {
    let path = shown(at.strip_prefix(project).unwrap_or(at));
    let what = match Found::at(at) {
        Some(Found::Directory) => "directory",
        Some(Found::Link) => "symbolic link",
        Some(Found::File) | None => "file",
    };
    let message = format!(
        "localPath {:?} meets {path:?}, which is a {what} of the source: {why}",
        task.local_path
    );
    let error = StepError::new(StepReason::LocalPathOccupied, message);
    if what == "directory" && at == project.join(task.local_path.trim_end_matches('/')) {
        return error.remedy(format!(
            "set localPath to \"{path}/\" to put the file into the directory, or choose another localPath"
        ));
    }
    error
}

/// Returns the last part of the remote path, or of the address if the remote path is empty.
fn base_name(task: &DataTask) -> &OsStr {
    let text = if task.remote_path.is_empty() {
        &task.uri
    } else {
        &task.remote_path
    };
    let name = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    OsStr::new(if name.is_empty() || name == ".." {
        task.name.as_str()
    } else {
        name
    })
}
