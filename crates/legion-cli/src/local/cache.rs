//! `legionctl cache`: what is in the cache, and the removal of what nothing uses.
//!
//! ```text
//! CACHE/environments/NAME                   environments of toolchains
//! CACHE/toolchains/TOOLCHAIN/environments/  environments of projects
//! CACHE/toolchains/TOOLCHAIN/OTHER          whatever else a toolchain keeps, such as downloads
//! ```
//!
//! Everything in it can be created again. Nothing else in the directory is listed or removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde_json::json;

use super::python::{self, COMPLETE};
use crate::{
    args::{CacheCommand, Format},
    columns,
    exit::{CliError, Code, Result},
    output, report,
};

/// Suffix of an entry that is being removed. The name no longer matches, so a removal that is killed leaves no entry
/// that looks complete.
const REMOVING: &str = "removing";

/// A directory of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) size_bytes: u64,
    /// Seconds since the last known use, or else since the last change.
    pub(crate) age_seconds: u64,
    /// Whether a local mode or a process uses it.
    pub(crate) in_use: bool,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Toolchain,
    Project,
    Downloads,
    Removed,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Toolchain => "environment of a toolchain",
            Self::Project => "environment of a project",
            Self::Downloads => "downloads",
            Self::Removed => "removed in part",
        }
    }
}

/// A lock on the cache: shared by every process that uses it, exclusive for removals.
#[derive(Debug)]
pub(crate) struct CacheLock {
    /// Locked with `flock`: the kernel releases the lock when the process ends.
    _file: File,
}

impl CacheLock {
    /// Marks the cache as used until this is dropped. Waits for a removal to end.
    pub(crate) fn shared(cache: &Path) -> Result<Self> {
        let file = Self::open(cache)?;
        flock(&file, FlockOperation::LockShared).map_err(|error| CliError::io(cache.display(), error))?;
        Ok(Self { _file: file })
    }

    /// Returns the lock for a removal, or `None` if another process uses the cache.
    fn exclusive(cache: &Path) -> Result<Option<Self>> {
        let file = Self::open(cache)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(CliError::io(cache.display(), error)),
        }
    }

    fn open(cache: &Path) -> Result<File> {
        let path = cache.join("in-use.lock");
        fs::create_dir_all(cache)
            .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).open(&path))
            .map_err(|error| {
                CliError::io(path.display(), error).remedy("set LEGION_CACHE_DIR to a directory that you may write")
            })
    }
}

/// Runs `legionctl cache`.
pub(crate) fn run(command: &CacheCommand, out: &mut dyn Write) -> Result<Code> {
    let cache = python::cache();
    // Held until the end. Without it another process uses the cache, and every entry counts as in use.
    let lock = CacheLock::exclusive(&cache)?;
    let entries = entries(&cache, lock.is_none(), &process_texts());
    match command {
        CacheCommand::List { output } => print(&cache, &entries, None, *output, out),
        CacheCommand::Prune {
            older_than,
            dry_run,
            output,
        } => {
            let chosen = chosen(&entries, *older_than);
            if !dry_run {
                for entry in &chosen {
                    remove(&entry.path).map_err(|error| CliError::io(entry.path.display(), error))?;
                }
            }
            let pruned = Pruned {
                entries: chosen,
                dry_run: *dry_run,
            };
            print(&cache, &entries, Some(&pruned), *output, out)
        }
    }
}

/// What `prune` removes, or would remove.
struct Pruned<'a> {
    entries: Vec<&'a Entry>,
    dry_run: bool,
}

/// Returns the entries of the cache, the largest first. `texts` are environments and command lines of processes.
fn entries(cache: &Path, all_in_use: bool, texts: &[Vec<u8>]) -> Vec<Entry> {
    let mut found = directories(&cache.join("environments"), Kind::Toolchain);
    for (toolchain, _) in directories(&cache.join("toolchains"), Kind::Downloads) {
        for (path, kind) in directories(&toolchain, Kind::Downloads) {
            if path.ends_with("environments") {
                found.extend(directories(&path, Kind::Project));
            } else {
                found.push((path, kind));
            }
        }
    }
    let now = SystemTime::now();
    let mut entries: Vec<Entry> = found
        .into_iter()
        .map(|(path, kind)| {
            let kind = match path.extension() {
                Some(extension) if extension == REMOVING => Kind::Removed,
                _ => kind,
            };
            let used = [path.clone(), path.join(COMPLETE)]
                .iter()
                .filter_map(|path| fs::metadata(path).ok()?.modified().ok())
                .max()
                .unwrap_or(now);
            Entry {
                size_bytes: python::size(&path),
                age_seconds: now.duration_since(used).unwrap_or_default().as_secs(),
                in_use: kind != Kind::Removed && (all_in_use || texts.iter().any(|text| names(text, &path))),
                path,
                kind,
            }
        })
        .collect();
    entries.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.path.cmp(&b.path)));
    entries
}

fn directories(parent: &Path, kind: Kind) -> Vec<(PathBuf, Kind)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| (entry.path(), kind))
        .collect()
}

/// Returns whether a text contains the path of a directory, or a path below it.
fn names(text: &[u8], path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    text.windows(path.len()).enumerate().any(|(at, window)| {
        // `python-1a` is not the beginning of `python-1a-2b`.
        window == path
            && text
                .get(at + path.len())
                .is_none_or(|next| matches!(next, b'/' | b':' | b'\0'))
    })
}

/// Returns the environment, the command line and the program of every process that may be read. The PATH of a pod
/// contains the environment that it uses, also when its local mode was killed.
fn process_texts() -> Vec<Vec<u8>> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            let name = entry.file_name();
            name != own.as_str() && name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .flat_map(|entry| {
            let of = entry.path();
            let program = fs::read_link(of.join("exe")).map(|path| path.into_os_string().into_encoded_bytes());
            [fs::read(of.join("environ")), fs::read(of.join("cmdline")), program]
        })
        // A process that has ended and a process of another user have no readable files.
        .filter_map(std::result::Result::ok)
        .collect()
}

/// Returns the entries to remove: those that nothing uses, and that nothing has used for so long.
fn chosen(entries: &[Entry], older_than: Duration) -> Vec<&Entry> {
    entries
        .iter()
        .filter(|entry| {
            let is_old = entry.age_seconds >= older_than.as_secs() || entry.kind == Kind::Removed;
            !entry.in_use && is_old
        })
        .collect()
}

fn remove(path: &Path) -> io::Result<()> {
    let removing = if path.extension().is_some_and(|extension| extension == REMOVING) {
        path.to_owned()
    } else {
        // A name may contain dots, as a version does. All of it stays, so that two names do not become one.
        let mut removing = path.as_os_str().to_owned();
        removing.push(format!(".{REMOVING}"));
        let removing = PathBuf::from(removing);
        fs::rename(path, &removing)?;
        removing
    };
    fs::remove_dir_all(&removing)?;
    match fs::remove_file(path.with_extension("lock")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn print(
    cache: &Path,
    entries: &[Entry],
    pruned: Option<&Pruned<'_>>,
    format: Format,
    out: &mut dyn Write,
) -> Result<Code> {
    let total = |entries: &[&Entry]| entries.iter().map(|entry| entry.size_bytes).sum::<u64>();
    let shown: Vec<&Entry> = match pruned {
        Some(pruned) => pruned.entries.clone(),
        None => entries.iter().collect(),
    };
    if matches!(format, Format::Json | Format::Yaml) {
        let value = json!({
            "cache": cache, "entries": shown, "totalBytes": total(&shown),
            "dryRun": pruned.map(|pruned| pruned.dry_run),
        });
        output::structured(out, format, &value)?;
        return Ok(Code::Ok);
    }
    if !shown.is_empty() {
        let mut table = vec![
            ["SIZE", "LAST USED", "IN USE", "KIND", "PATH"]
                .map(ToOwned::to_owned)
                .to_vec(),
        ];
        table.extend(shown.iter().map(|entry| {
            let in_use = if entry.in_use { "yes" } else { "no" };
            vec![
                size(entry.size_bytes),
                age(entry.age_seconds),
                in_use.to_owned(),
                entry.kind.as_str().to_owned(),
                entry.path.display().to_string(),
            ]
        }));
        for line in columns::align(&table) {
            output::line(out, format_args!("{line}"))?;
        }
    }
    let sum = size(total(&shown));
    match pruned {
        None => output::line(out, format_args!("{sum} in {}", cache.display()))?,
        Some(pruned) => {
            let verb = if pruned.dry_run { "would be removed" } else { "removed" };
            output::line(out, format_args!("{sum} {verb}"))?;
            let in_use: Vec<&Entry> = entries.iter().filter(|entry| entry.in_use).collect();
            if !in_use.is_empty() {
                let in_use = size(total(&in_use));
                output::line(
                    out,
                    format_args!("{in_use} in use: stop the local mode with `legionctl local down` to remove it too"),
                )?;
            }
        }
    }
    Ok(Code::Ok)
}

/// Formats a size: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    report::bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => "now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// Returns the number of entries and their size in bytes.
pub(crate) fn summary(cache: &Path) -> (usize, u64) {
    let entries = entries(cache, false, &[]);
    (entries.len(), entries.iter().map(|entry| entry.size_bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        for (path, bytes) in [
            ("environments/python-1a/file", 3000),
            ("environments/python-1a-2b/file", 100),
            ("environments/python-3c.removing/file", 50),
            ("toolchains/mlflow/environments/4d/file", 2000),
            ("toolchains/mlflow/uv/file", 1000),
            ("kubectl-v1/file", 9000),
        ] {
            let path = cache.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        }
        fs::write(cache.path().join("environments/python-1a.lock"), "").unwrap();
        cache
    }

    fn paths(cache: &Path, entries: &[&Entry]) -> Vec<String> {
        let relative = |entry: &&Entry| entry.path.strip_prefix(cache).unwrap().display().to_string();
        entries.iter().map(relative).collect()
    }

    #[test]
    fn the_entries_are_those_of_toolchains_and_projects_with_their_sizes() {
        let cache = filled();
        let entries = entries(cache.path(), false, &[]);
        assert_eq!(
            paths(cache.path(), &entries.iter().collect::<Vec<_>>()),
            [
                "environments/python-1a",
                "toolchains/mlflow/environments/4d",
                "toolchains/mlflow/uv",
                "environments/python-1a-2b",
                "environments/python-3c.removing"
            ]
        );
        let kinds: Vec<Kind> = entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::Toolchain,
                Kind::Project,
                Kind::Downloads,
                Kind::Toolchain,
                Kind::Removed
            ]
        );
        assert_eq!((entries[0].size_bytes, entries[1].size_bytes), (3000, 2000));
        assert_eq!(summary(cache.path()), (5, 6150));
    }

    #[test]
    fn what_is_in_use_or_young_is_not_chosen() {
        let cache = filled();
        let month = Duration::from_secs(720 * 3600);
        let old = SystemTime::now() - 2 * month;
        for name in [
            "environments/python-1a",
            "environments/python-1a-2b",
            "toolchains/mlflow/uv",
        ] {
            File::open(cache.path().join(name)).unwrap().set_modified(old).unwrap();
        }
        // The mark of a complete environment is touched with each use.
        fs::write(cache.path().join("toolchains/mlflow/uv").join(COMPLETE), "1").unwrap();
        File::open(cache.path().join("toolchains/mlflow/uv"))
            .unwrap()
            .set_modified(old)
            .unwrap();
        let of = |texts: &[Vec<u8>], all: bool| {
            let entries = entries(cache.path(), all, texts);
            paths(cache.path(), &chosen(&entries, month))
        };
        let unused = [
            "environments/python-1a",
            "environments/python-1a-2b",
            "environments/python-3c.removing",
        ];
        assert_eq!(of(&[], false), unused);
        let path = format!(
            "A=b\0PATH={}/bin:/bin\0",
            cache.path().join("environments/python-1a-2b").display()
        );
        assert_eq!(of(&[path.into_bytes()], false), [unused[0], unused[2]]);
        assert_eq!(of(&[], true), [unused[2]]);
    }

    #[test]
    fn a_removed_entry_is_gone_with_its_lock_and_the_others_stay() {
        let cache = filled();
        let environments = cache.path().join("environments");
        remove(&environments.join("python-1a")).unwrap();
        remove(&environments.join("python-3c.removing")).unwrap();
        let left: Vec<_> = fs::read_dir(&environments)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["python-1a-2b"]);
    }

    #[test]
    fn a_process_that_uses_the_cache_excludes_a_removal() {
        let cache = tempfile::tempdir().unwrap();
        let shared = CacheLock::shared(cache.path()).unwrap();
        assert!(CacheLock::exclusive(cache.path()).unwrap().is_none());
        drop(shared);
        assert!(CacheLock::exclusive(cache.path()).unwrap().is_some());
    }
}
