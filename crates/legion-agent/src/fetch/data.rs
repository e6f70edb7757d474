//! Data bindings: downloaded into `$LEGION_DATA`, and moved into the project if the binding has a `localPath`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use legion_protocol::message::FetchedData;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::{DataTask, WireStore};
use legion_protocol::training::WireData;

use super::{http, source};
use crate::confined::ConfinedDir;
use crate::error::{Result, node_fault};
use crate::paths;
use crate::secrets::Secret;
use crate::store::s3::{Bucket, Purpose};
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
    let path = if task.local_path.is_empty() {
        entry
    } else {
        let placed = place(task, &entry, project, &format!("{field}.localPath"))?;
        std::os::unix::fs::symlink(&placed, &entry)
            .map_err(|e| node_fault(format_args!("cannot create {}", entry.display()), &e))?;
        placed
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
            let bucket = Bucket::open(&task.store, secret.as_ref(), Purpose::Data)?;
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
            let Ok(meta) = std::fs::metadata(&from) else {
                return Err(nothing());
            };
            let root = ConfinedDir::open(&mount)
                .map_err(|e| StepError::new(StepReason::NodeFault, format!("the volume {e}")))?;
            if !below.as_os_str().is_empty() && root.points_outside(&below, &mount) {
                let message = format!("{:?} points outside of its volume", task.remote_path);
                return Err(StepError::new(StepReason::PathEscapes, message));
            }
            if meta.is_dir() {
                paths::create_dir(to)?;
                return tree::copy(&from, to, limits, |p| !p.starts_with("lost+found"));
            }
            if !meta.is_file() {
                return Err(StepError::new(
                    StepReason::ContentRefused,
                    format!("{:?} is not a file", task.remote_path),
                ));
            }
            let mut file = std::fs::File::open(&from).map_err(|e| node_fault("cannot open the data", &e))?;
            let (digest, bytes) = tree::copy_file(&mut file, to, limits.bytes, false)?;
            Ok(TreeSummary {
                digest,
                files: 1,
                bytes,
            })
        }
    }
}

/// Moves the data to its path in the project. A symbolic link of the source on that path is refused.
fn place(task: &DataTask, from: &Path, project: &Path, field: &str) -> Result<PathBuf> {
    let wanted = paths::relative(&task.local_path, field)?;
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
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => {
                let message = format!(
                    "localPath {:?} goes through a symbolic link of the source",
                    task.local_path
                );
                return Err(StepError::new(StepReason::PathEscapes, message).field(field));
            }
            Ok(_) => {}
            Err(_) if parts.peek().is_some() => paths::create_dir(&at)?,
            Err(_) => {}
        }
    }
    merge(from, &at).map_err(|e| node_fault(format_args!("cannot place the data at {:?}", task.local_path), &e))?;
    Ok(at)
}

/// Moves a file or a tree. Merges two directories.
fn merge(from: &Path, to: &Path) -> std::io::Result<()> {
    let is_directory = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    if !(is_directory(from) && is_directory(to)) {
        return std::fs::rename(from, to);
    }
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        merge(&from.join(&name), &to.join(&name))?;
    }
    std::fs::remove_dir(from)
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
