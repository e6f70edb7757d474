//! Fetches the source. Git has its own module. All other kinds of source are here.

use std::path::Path;

use legion_protocol::message::FetchedSource;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::{SourceTask, WireStore};
use legion_protocol::{digest, env};

use super::fetched::Fetched;
use super::git::{self, Repository};
use super::notices;
use crate::confined::{ConfinedDir, shown};
use crate::error::{Result, node_fault};
use crate::fault::Side;
use crate::secrets::Secret;
use crate::store::s3::Bucket;
use crate::tree::{self, EntryKind, TreeEntry, TreeLimits, TreeSummary};
use crate::{extract, paths, retry};

/// The slot of the source's Secret and volume.
pub(super) const SLOT: &str = "source";

/// Fetches the source into an empty directory.
pub(super) fn fetch(task: &SourceTask, to: &Path, limits: TreeLimits) -> Result<Fetched> {
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
        SourceTask::Volume { path } => volume(path, to, limits),
    }
}

fn fetched(summary: TreeSummary) -> Fetched {
    Fetched {
        source: FetchedSource {
            commit: String::new(),
            digest: summary.digest,
            files: summary.files,
            size_bytes: summary.bytes,
        },
        notice: None,
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
        for entry in tree::list(&from, MAX, Side::Source)? {
            if let tree::EntryKind::File { .. } = entry.kind {
                let content = std::fs::read(from.join(&entry.path))
                    .map_err(|e| node_fault(format_args!("cannot read {}", entry.path.display()), &e))?;
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
        std::fs::write(&target, content).map_err(|e| node_fault(format_args!("cannot write {path:?}"), &e))?;
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
    let bucket = Bucket::open(store, secret.as_ref(), Side::Source)?;
    let gzip = path.ends_with(".tar.gz") || path.ends_with(".tgz");
    let fetched = if gzip || path.ends_with(".tar") {
        retry::transient(|| {
            paths::empty(to)?;
            let (_, reader) = bucket.get(path)?;
            if gzip {
                extract::tar_gz(reader, to, limits)
            } else {
                extract::tar(reader, to, limits)
            }
        })
        .map_err(|e| match e.reason {
            StepReason::SourceNotFound => e.remedy(what_is_there(&bucket, path)),
            _ => e,
        })
    } else {
        prefix(&bucket, path, to, limits).and_then(|found| match found {
            Some(summary) => Ok(summary),
            None => Err(no_project(&bucket, path)?),
        })
    };
    fetched.map_err(|e| e.field(FIELD))
}

/// What a path of an object store may name.
const FORMS: &str = "name a prefix with the project's files, or a tar archive whose name ends in .tar, .tar.gz or .tgz";

/// Returns the error for a path below which there is no object.
fn no_project(bucket: &Bucket, path: &str) -> Result<StepError> {
    let path = path.trim_end_matches('/');
    if path.is_empty() || bucket.head(path)?.is_none() {
        let message = format!("there is no object below {path:?}");
        return Ok(StepError::new(StepReason::SourceNotFound, message).remedy(what_is_there(bucket, path)));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let what = match archive_type(name) {
        Some(archive) => format!("{path:?} is {archive}, which Legion does not unpack"),
        None => format!("{path:?} is one object and not a prefix"),
    };
    Ok(StepError::new(StepReason::SourceNotFound, what).remedy(FORMS))
}

/// Returns the name of an archive type that is not a source, by the end of the file's name.
fn archive_type(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    [
        ([".zip", ".whl"], "a zip archive"),
        ([".tar.xz", ".txz"], "a tar archive that is compressed with xz"),
        ([".tar.bz2", ".tbz2"], "a tar archive that is compressed with bzip2"),
        ([".tar.zst", ".tzst"], "a tar archive that is compressed with zstd"),
        ([".7z", ".rar"], "an archive that is no tar archive"),
        (
            [".tar.gz", ".tgz"],
            "an archive whose name does not end in lower-case letters",
        ),
    ]
    .into_iter()
    .find(|(ends, _)| ends.iter().any(|end| name.ends_with(end)))
    .map(|(_, what)| what)
}

/// Returns a remedy that names what the bucket has beside a path that does not exist.
fn what_is_there(bucket: &Bucket, path: &str) -> String {
    let path = path.trim_end_matches('/');
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let names = bucket.names(parent);
    let place = if parent.is_empty() {
        "the connection's address".to_owned()
    } else {
        format!("{parent:?}")
    };
    if names.is_empty() {
        return format!("check the path in spec.source: {place} has no objects");
    }
    format!(
        "check the path in spec.source: {place} has {}",
        notices::some_of(&names)
    )
}

/// Downloads one object. An interrupted download starts again from the beginning.
pub(super) fn object(bucket: &Bucket, key: &str, to: &Path, limit: u64) -> Result<(String, u64)> {
    retry::transient(|| {
        let (_, mut reader) = bucket.get(key)?;
        let unreadable = |e: &std::io::Error| node_fault(format_args!("cannot read {key:?}"), e);
        tree::copy_file(&mut reader, to, limit, false, &unreadable)
    })
}

/// Downloads every object below a prefix. Returns `None` if there is none.
pub(super) fn prefix(bucket: &Bucket, path: &str, to: &Path, limits: TreeLimits) -> Result<Option<TreeSummary>> {
    let mut collector = tree::TreeCollector::default();
    let base = path.trim_end_matches('/');
    for (name, size) in bucket.list(path, limits)? {
        let relative = paths::relative(&name, "the name of an object")?;
        let target = to.join(relative);
        let key = if base.is_empty() {
            name.clone()
        } else {
            format!("{base}/{name}")
        };
        // The user knows the key and not the path in the workspace.
        let named = |e: StepError| StepError {
            message: format!("the object {key:?}: {}", e.message),
            ..e
        };
        if bucket.is_marker(&key, size)? {
            paths::create_dir(&target).map_err(named)?;
            continue;
        }
        if let Some(parent) = target.parent() {
            paths::create_dir(parent).map_err(named)?;
        }
        let (digest, bytes) = object(bucket, &key, &target, size).map_err(named)?;
        collector.add(relative, digest, bytes);
    }
    let summary = collector.finish();
    Ok(Some(summary).filter(|summary| summary.files > 0))
}

fn volume(path: &str, to: &Path, limits: TreeLimits) -> Result<Fetched> {
    const FIELD: &str = "spec.source.volume";
    let mount = paths::storage(SLOT)?;
    let below = paths::relative(path, FIELD)?;
    let from = mount.join(below);
    if !from.is_dir() {
        return Err(no_directory(path, &from, &mount).field(FIELD));
    }
    // A link of the volume must not lead to the agent's own files.
    if !below.as_os_str().is_empty() {
        let root = ConfinedDir::open(&mount)
            .map_err(|e| StepError::new(StepReason::NodeFault, format!("the volume {e}")).field(FIELD))?;
        tree::link_inside(&root, below, &mount).map_err(|e| e.field(FIELD))?;
    }
    // Git does not track FIFOs, sockets and devices either: a program that runs in the directory may leave them there.
    let mut left_out = Vec::new();
    let keep = |entry: &TreeEntry| {
        let is_special = entry.kind == EntryKind::Special;
        if is_special {
            left_out.push(shown(&entry.path));
        }
        !is_special && tree::is_of_user(entry)
    };
    let summary = tree::copy(&from, to, limits, Side::Source, keep).map_err(|e| e.field(FIELD))?;
    Ok(Fetched {
        notice: (!left_out.is_empty()).then(|| notices::special(&left_out)),
        ..fetched(summary)
    })
}

/// Returns the error for a path of a volume that is no directory.
fn no_directory(path: &str, from: &Path, mount: &Path) -> StepError {
    let (message, beside) = if from.exists() {
        let message = format!("{path:?} of the volume is one file and not a directory");
        (message, from.parent().unwrap_or(mount))
    } else {
        (format!("the volume has no directory {path:?}"), mount)
    };
    let known = notices::directories(beside);
    let remedy = if known.is_empty() {
        "set the path to a directory of the volume, or leave it empty: it has no directories".to_owned()
    } else {
        format!("set the path to a directory of the volume, for example: {known}")
    };
    StepError::new(StepReason::SourceNotFound, message).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_that_are_no_source_are_known_by_their_names() {
        for (name, archive) in [
            ("p.zip", true),
            ("p.tar.xz", true),
            ("P.TAR.GZ", true),
            ("p.tar.zst", true),
            ("train.py", false),
            ("zip", false),
        ] {
            assert_eq!(archive_type(name).is_some(), archive, "{name}");
        }
    }
}
