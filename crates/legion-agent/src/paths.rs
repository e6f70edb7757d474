//! The directories of the pod, from the environment.

use std::path::{Component, Path, PathBuf};

use legion_protocol::env;
use legion_protocol::reason::{StepError, StepReason};
use serde::de::DeserializeOwned;

use crate::error::{Result, node_fault};

/// Returns the directory in an environment variable.
pub(crate) fn directory(name: &str) -> Result<PathBuf> {
    optional(name).ok_or_else(|| {
        StepError::new(
            StepReason::TaskInvalid,
            format!("the environment variable {name} is not set"),
        )
    })
}

/// Returns the directory in an environment variable, or `None` if the variable is unset or empty.
pub(crate) fn optional(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Returns the directory of the control files.
pub(crate) fn run() -> Result<PathBuf> {
    directory(env::RUN)
}

/// Returns a directory of the workspace: the variable if it is set, otherwise the conventional path.
pub(crate) fn in_work(variable: &str, name: &str) -> Result<PathBuf> {
    optional(variable).map_or_else(|| Ok(directory(env::WORK)?.join(name)), Ok)
}

/// Returns the mount of a volume slot.
pub(crate) fn storage(slot: &str) -> Result<PathBuf> {
    Ok(directory(env::STORAGE)?.join(slot))
}

/// Reads the task of this container.
pub(crate) fn task<T: DeserializeOwned>() -> Result<T> {
    let text = std::env::var(env::TASK).unwrap_or_default();
    serde_json::from_str(&text).map_err(|e| {
        StepError::new(
            StepReason::TaskInvalid,
            format!("{} does not hold the task: {e}", env::TASK),
        )
    })
}

/// Checks that a path stays inside its directory: it is relative and has no `..` and no NUL.
pub(crate) fn relative<'a>(path: &'a str, field: &str) -> Result<&'a Path> {
    let trimmed = path.trim_end_matches('/');
    let ok = !path.starts_with('/')
        && !path.contains('\0')
        && Path::new(trimmed)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if ok {
        return Ok(Path::new(trimmed));
    }
    Err(StepError::new(
        StepReason::PathEscapes,
        format!("the path {path:?} leaves the directory it is relative to"),
    )
    .field(field))
}

/// Creates a directory and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| node_fault(format_args!("cannot create {}", path.display()), &e))
}

/// Writes a file by rename, so a reader never sees a part of it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|e| node_fault(format_args!("cannot write {}", path.display()), &e))
}

/// Empties a directory. An init container may run again after its node restarted.
pub(crate) fn empty(directory: &Path) -> Result<()> {
    let failed = |e: std::io::Error| node_fault(format_args!("cannot empty {}", directory.display()), &e);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_directory = entry.file_type().map_err(failed)?.is_dir();
        let removed = if is_directory {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        removed.map_err(failed)?;
    }
    Ok(())
}
