//! Fetches the source. Git has its own module. All other kinds of source are here.

use std::path::Path;

use legion_protocol::message::FetchedSource;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::{SourceTask, WireStore};
use legion_protocol::{digest, env};

use super::git::{self, Repository};
use crate::error::Result;
use crate::secrets::Secret;
use crate::store::s3::{Bucket, Purpose};
use crate::tree::{self, TreeLimits, TreeSummary};
use crate::{extract, paths, retry};

/// The slot of the source's Secret and volume.
pub(super) const SLOT: &str = "source";

/// Fetches the source into an empty directory.
pub(super) fn fetch(task: &SourceTask, to: &Path, limits: TreeLimits) -> Result<FetchedSource> {
    match task {
        SourceTask::Git {
            uri,
            reference,
            commit,
            submodules,
            secret,
            known_hosts,
        } => {
            let secret = Secret::of(secret, SLOT, git::SECRET_FIELD)?;
            let repository = Repository {
                uri,
                reference,
                commit,
                submodules: *submodules,
                known_hosts,
            };
            git::fetch(repository, secret.as_ref(), to, limits)
        }
        SourceTask::ConfigMap { name, digest } => config_map(name, digest, to).map(fetched),
        SourceTask::ObjectStore { store, path } => object_store(store, path, to, limits).map(fetched),
        SourceTask::Volume { path } => volume(path, to, limits).map(fetched),
    }
}

fn fetched(summary: TreeSummary) -> FetchedSource {
    FetchedSource {
        commit: String::new(),
        digest: summary.digest,
        files: summary.files,
        size_bytes: summary.bytes,
    }
}

/// Copies a mounted ConfigMap. The kubelet mounts it with symbolic links, and the files are copied as regular files.
fn config_map(name: &str, expected: &str, to: &Path) -> Result<TreeSummary> {
    const FIELD: &str = "spec.source.configMap";
    // The API server limits a ConfigMap to 1 MiB.
    const MAX: TreeLimits = TreeLimits {
        bytes: 8 << 20,
        entries: 10_000,
    };
    let mount = paths::directory(env::SOURCE_CONFIG)?;
    // `..data` holds one version of the ConfigMap, so a change in between cannot mix two versions.
    let data = mount.join("..data");
    let from = data.canonicalize().unwrap_or(mount);
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    if from.is_dir() {
        for entry in tree::list(&from, MAX)? {
            if let tree::EntryKind::File { .. } = entry.kind {
                let content = std::fs::read(from.join(&entry.path))
                    .map_err(|e| crate::error::node_fault(format_args!("cannot read {}", entry.path.display()), &e))?;
                files.push((entry.path.to_string_lossy().into_owned(), content));
            }
        }
    }
    if files.is_empty() {
        return Err(StepError::new(
            StepReason::SourceNotFound,
            format!("the ConfigMap {name:?} is missing or empty"),
        )
        .field(FIELD)
        .remedy(format!(
            "create the ConfigMap {name:?} with the project's files as keys"
        )));
    }
    let found = digest::of_files(files.iter().map(|(path, content)| (path.as_str(), content.as_slice())));
    if !expected.is_empty() && found != expected {
        let message =
            format!("the ConfigMap {name:?} has the digest {found}, but this run was planned with {expected}");
        return Err(StepError::new(StepReason::SourceChanged, message).field(FIELD));
    }
    let mut bytes = 0;
    for (path, content) in &files {
        let target = to.join(paths::relative(path, FIELD)?);
        if let Some(parent) = target.parent() {
            paths::create_dir(parent)?;
        }
        std::fs::write(&target, content)
            .map_err(|e| crate::error::node_fault(format_args!("cannot write {path:?}"), &e))?;
        bytes += content.len() as u64;
    }
    Ok(TreeSummary {
        digest: found,
        files: files.len() as u64,
        bytes,
    })
}

fn object_store(store: &WireStore, path: &str, to: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    const FIELD: &str = "spec.source.objectStore";
    let WireStore::S3 { secret, .. } = store else {
        return Err(StepError::new(
            StepReason::TaskInvalid,
            "an objectStore source needs a store of type s3",
        )
        .field(FIELD));
    };
    let secret = Secret::of(secret, SLOT, FIELD)?;
    let bucket = Bucket::open(store, secret.as_ref(), Purpose::Source)?;
    let gzip = path.ends_with(".tar.gz") || path.ends_with(".tgz");
    if gzip || path.ends_with(".tar") {
        return retry::transient(|| {
            paths::empty(to)?;
            let (_, reader) = bucket.get(path)?;
            if gzip {
                extract::tar(flate2::read::GzDecoder::new(reader), to, limits)
            } else {
                extract::tar(reader, to, limits)
            }
            .map_err(|e| e.field(FIELD))
        });
    }
    prefix(&bucket, path, to, limits)?.ok_or_else(|| {
        StepError::new(StepReason::SourceNotFound, format!("there is no object below {path:?}")).field(FIELD)
    })
}

/// Downloads one object. An interrupted download starts again from the beginning.
pub(super) fn object(bucket: &Bucket, key: &str, to: &Path, limit: u64) -> Result<(String, u64)> {
    retry::transient(|| {
        let (_, mut reader) = bucket.get(key)?;
        tree::copy_file(&mut reader, to, limit, false)
    })
}

/// Downloads every object below a prefix. Returns `None` if there is none.
pub(super) fn prefix(bucket: &Bucket, path: &str, to: &Path, limits: TreeLimits) -> Result<Option<TreeSummary>> {
    let objects = bucket.list(path, limits)?;
    if objects.is_empty() {
        return Ok(None);
    }
    let mut collector = tree::TreeCollector::default();
    let base = path.trim_end_matches('/');
    for (name, size) in objects {
        let relative = paths::relative(&name, "the name of an object")?;
        let target = to.join(relative);
        if let Some(parent) = target.parent() {
            paths::create_dir(parent)?;
        }
        let key = if base.is_empty() {
            name.clone()
        } else {
            format!("{base}/{name}")
        };
        let (digest, bytes) = object(bucket, &key, &target, size)?;
        collector.add(relative, digest, bytes);
    }
    Ok(Some(collector.finish()))
}

fn volume(path: &str, to: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    const FIELD: &str = "spec.source.volume";
    let from = paths::storage(SLOT)?.join(paths::relative(path, FIELD)?);
    if !from.is_dir() {
        let message = format!("the volume has no directory {path:?}");
        return Err(StepError::new(StepReason::SourceNotFound, message).field(FIELD));
    }
    // lost+found belongs to the file system and is not readable.
    tree::copy(&from, to, limits, |p| !p.starts_with("lost+found")).map_err(|e| e.field(FIELD))
}
