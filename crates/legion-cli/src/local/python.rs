//! Python environments of toolchains. They are created once, in a cache that all data directories share.
//!
//! ```text
//! CACHE/environments/KEY/        the packages of a requirements file; KEY = hash of file, interpreter and platform
//! CACHE/environments/KEY-PKG/    the package of the toolchain on top of it; PKG = hash of its files
//! ```
//!
//! They are separate, because the first takes minutes and the second takes a second. After a change of the toolchain's
//! code, MLflow need not be installed again. An environment is complete if it contains the file `complete`. An
//! incomplete one, left by a killed process, is recreated.

use std::{
    cmp::Reverse,
    env, fs,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Instant, SystemTime},
};

use futures::{FutureExt as _, future::BoxFuture};
use kube_embed::node::images::{ImageEnvironment, PrepareImage, Prepared, Progress};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use tokio::{process::Command, sync::Mutex};

use super::{
    interpreters::{self, Origin, Places},
    toolchains::{Environment, Toolchain},
};
use crate::report;

/// Marks a complete environment. The file contains the size of the environment.
pub(crate) const COMPLETE: &str = "complete";

/// Interpreters to try, in this order, unless `$LEGION_PYTHON` names one. Lock files are created with the first.
const INTERPRETERS: [&str; 6] = [
    "python3.11",
    "python3",
    "python3.12",
    "python3.13",
    "python3.14",
    "python3.10",
];
/// The program with which an interpreter prints its version.
pub(crate) const ASK_VERSION: &str = "import platform; print(platform.python_version())";
/// Minor version of the interpreter that creates lock files.
const LOCKED_MINOR: u32 = 11;

/// Returns the cache directory: `$LEGION_CACHE_DIR`, or else `legion` in the cache directory of the user.
#[must_use]
pub(crate) fn cache() -> PathBuf {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named("LEGION_CACHE_DIR")
        .or_else(|| named("XDG_CACHE_HOME").map(|path| path.join("legion")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/legion")))
        .unwrap_or_else(|| env::temp_dir().join("legion-cache"))
}

/// The environment of one toolchain.
#[derive(Clone)]
pub(crate) struct PythonEnvironment {
    inner: Arc<Inner>,
}

struct Inner {
    image: String,
    directory: PathBuf,
    wanted: Environment,
    base: ImageEnvironment,
    cache: PathBuf,
    /// One preparation at a time. The second one finds the result of the first.
    preparing: Mutex<()>,
}

impl PythonEnvironment {
    /// Describes the environment in the `local.yaml` of a toolchain. `base` is the rest of the image.
    #[must_use]
    pub(crate) fn new(toolchain: &Toolchain, base: ImageEnvironment, cache: PathBuf) -> Self {
        Self {
            inner: Arc::new(Inner {
                image: toolchain.local.image.clone(),
                directory: toolchain.directory.clone(),
                wanted: toolchain.local.environment.clone(),
                base,
                cache,
                preparing: Mutex::new(()),
            }),
        }
    }

    /// Creates the environment if it does not exist. Returns it with its size.
    pub(crate) async fn create(&self, progress: &(dyn Fn(String) + Send + Sync)) -> Result<Prepared, String> {
        let inner = &self.inner;
        let _turn = inner.preparing.lock().await;
        let about = format!("the Python environment of {}", inner.image);
        let requirements = inner
            .wanted
            .requirements
            .as_ref()
            .map(|file| inner.directory.join(file));
        let Packages {
            directory: packages,
            key,
            size: created,
        } = packages(
            &inner.cache,
            &about,
            inner.wanted.python.as_deref(),
            requirements.as_deref(),
            progress,
        )
        .await?;
        let Some(package) = &inner.wanted.package else {
            return Ok(prepared(&inner.base, &key, &[packages.join("bin")], created));
        };
        let package = inner.directory.join(package);
        let own = digest(&package).map_err(|error| format!("{}: {error}", package.display()))?;
        let overlay = inner.cache.join("environments").join(format!("python-{key}-{own}"));
        let added = once(&overlay, || async {
            progress(format!("Installing the package of the toolchain into {about}"));
            create_overlay(&packages, &overlay, &package).await?;
            Ok(size(&overlay))
        })
        .await?;
        Ok(prepared(
            &inner.base,
            &format!("{key}-{own}"),
            &[overlay.join("bin"), packages.join("bin")],
            created + added,
        ))
    }
}

impl PrepareImage for PythonEnvironment {
    fn prepare(&self, progress: Progress) -> BoxFuture<'static, Result<Prepared, String>> {
        let this = self.clone();
        async move {
            // Sending fails only if the pod no longer exists.
            this.create(&|step| drop(progress.send(step))).await
        }
        .boxed()
    }
}

/// An environment with the packages of a requirements file.
pub(crate) struct Packages {
    /// Its interpreter is `bin/python` there.
    pub(crate) directory: PathBuf,
    key: String,
    size: u64,
}

/// Creates the environment of a requirements file if it does not exist. `about` names it in messages.
pub(crate) async fn packages(
    cache: &Path,
    about: &str,
    python: Option<&str>,
    requirements: Option<&Path>,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<Packages, String> {
    let python = interpreter(about, python).await?;
    let lock = match requirements {
        Some(file) => fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?,
        None => Vec::new(),
    };
    let key = key(&[&lock, python.version.as_bytes(), env::consts::ARCH.as_bytes()]);
    let directory = cache.join("environments").join(format!("python-{key}"));
    let size = once(&directory, || async {
        progress(format!("Creating {about} with Python {} (once)", python.version));
        let began = Instant::now();
        run(Command::new(&python.program).arg("-m").arg("venv").arg(&directory))
            .await
            .map_err(|error| {
                format!("{error}; install Python's venv module (on Debian: apt-get install python3-venv)")
            })?;
        if let Some(file) = requirements {
            progress(format!("Installing {} packages from the registry", count(&lock)));
            install(&directory, |command| command.arg("-r").arg(file)).await?;
        }
        let size = size(&directory);
        progress(format!(
            "Created {about} in {:.1} s, {}",
            began.elapsed().as_secs_f64(),
            report::bytes(i64::try_from(size).unwrap_or(i64::MAX))
        ));
        Ok(size)
    })
    .await?;
    Ok(Packages { directory, key, size })
}

fn prepared(base: &ImageEnvironment, key: &str, bin: &[PathBuf], size_bytes: u64) -> Prepared {
    let mut environment = base.clone();
    environment.id = format!("python-{key}");
    environment.path.splice(0..0, bin.iter().cloned());
    Prepared {
        environment,
        size_bytes,
    }
}

/// Runs `create` unless the directory is complete. Returns the recorded size. Other processes wait.
async fn once<F, Fut>(directory: &Path, create: F) -> Result<u64, String>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<u64, String>>,
{
    let complete = directory.join(COMPLETE);
    let known = || {
        let size = fs::read_to_string(&complete).ok()?.trim().parse::<u64>().ok()?;
        // `legionctl cache` reads the time of the last use from it. In a cache that is read-only, nothing is removed.
        let _ = File::options()
            .append(true)
            .open(&complete)
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(size)
    };
    if let Some(size) = known() {
        return Ok(size);
    }
    let parent = directory.parent().unwrap_or(Path::new("/")).to_owned();
    let failed = |error: io::Error| format!("{}: {error}", parent.display());
    fs::create_dir_all(&parent).map_err(failed)?;
    let lock = directory.with_extension("lock");
    let _lock = tokio::task::spawn_blocking(move || -> io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(lock)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    })
    .await
    .map_err(|error| error.to_string())?
    .map_err(failed)?;
    if let Some(size) = known() {
        return Ok(size);
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let size = create().await?;
    fs::write(&complete, format!("{size}\n")).map_err(failed)?;
    Ok(size)
}

struct Interpreter {
    program: PathBuf,
    version: String,
}

/// Returns the programs to try, in this order: those on PATH, and those that pyenv and uv have installed beside it.
/// Among the latter, the version of the lock files comes first, then the newest.
fn candidates(installed: &[interpreters::Interpreter]) -> Vec<PathBuf> {
    let mut beside: Vec<_> = installed.iter().filter(|found| found.origin != Origin::Path).collect();
    beside.sort_by_key(|found| (found.minor != LOCKED_MINOR, Reverse(found.minor)));
    let on_path = INTERPRETERS.iter().map(PathBuf::from);
    on_path
        .chain(beside.into_iter().map(|found| found.program.clone()))
        .collect()
}

/// Returns the first interpreter with an accepted version.
async fn interpreter(about: &str, wanted: Option<&str>) -> Result<Interpreter, String> {
    let named = env::var("LEGION_PYTHON").ok().filter(|value| !value.is_empty());
    let candidates = match named {
        Some(program) => vec![PathBuf::from(program)],
        None => candidates(&Places::of_user().interpreters()),
    };
    let mut found = Vec::new();
    for program in candidates {
        let Ok(output) = Command::new(&program)
            .args(["-c", ASK_VERSION])
            .stdin(Stdio::null())
            .output()
            .await
        else {
            continue;
        };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || version.is_empty() {
            continue;
        }
        if accepts(&version, wanted) {
            return Ok(Interpreter { program, version });
        }
        found.push(format!("{} has version {version}", program.display()));
    }
    let found = if found.is_empty() {
        "none was found".to_owned()
    } else {
        found.join(", ")
    };
    Err(format!(
        "{about} needs Python {}; {found}; install it, or name an interpreter with LEGION_PYTHON",
        wanted.unwrap_or("3")
    ))
}

/// Returns whether a version satisfies a constraint such as `>=3.11`.
fn accepts(version: &str, wanted: Option<&str>) -> bool {
    let numbers = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.trim().parse().ok()).collect() };
    let Some(wanted) = wanted else { return true };
    wanted.split(',').all(|clause| {
        let clause = clause.trim();
        let version = numbers(version);
        if let Some(least) = clause.strip_prefix(">=") {
            version >= numbers(least)
        } else if let Some(bound) = clause.strip_prefix('<') {
            version < numbers(bound)
        } else {
            version.starts_with(&numbers(clause.trim_start_matches('=')))
        }
    })
}

/// Installs packages into an environment: with uv if it exists, because it is several times faster, or else with pip.
async fn install(environment: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<(), String> {
    let python = environment.join("bin/python");
    let has_uv = Command::new("uv")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    let mut command = if has_uv.is_ok_and(|status| status.success()) {
        let mut command = Command::new("uv");
        command.args(["pip", "install", "--quiet", "--python"]).arg(&python);
        command
    } else {
        let mut command = Command::new(&python);
        command.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]);
        command
    };
    arguments(&mut command);
    run(&mut command).await
}

/// Creates a second environment. It sees the packages of the first one and contains the package of the toolchain.
async fn create_overlay(packages: &Path, overlay: &Path, package: &Path) -> Result<(), String> {
    run(Command::new(packages.join("bin/python"))
        .arg("-m")
        .arg("venv")
        .arg(overlay))
    .await?;
    let ask = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let place = |python: PathBuf| async move {
        let output = Command::new(&python)
            .args(["-c", ask])
            .output()
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let below = place(packages.join("bin/python")).await?;
    let own = place(overlay.join("bin/python")).await?;
    let path = Path::new(&own).join("legion-packages.pth");
    // Code instead of a plain path, so that Python also reads the .pth files of that directory.
    let line = format!("import site; site.addsitedir({below:?})\n");
    fs::write(&path, line).map_err(|error| format!("{}: {error}", path.display()))?;
    // A build writes next to the sources, and these must not change.
    let copy = tempfile::tempdir().map_err(|error| error.to_string())?;
    for file in files(package).map_err(|error| error.to_string())? {
        let target = copy.path().join(&file);
        let parent = target.parent().map_or(Ok(()), fs::create_dir_all);
        parent
            .and_then(|()| fs::copy(package.join(&file), &target).map(drop))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    install(overlay, |command| command.arg("--no-deps").arg(copy.path())).await
}

/// Runs a program. The error contains the last lines of its output.
async fn run(command: &mut Command) -> Result<(), String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(4)..].join("; ");
    Err(format!("{program} failed ({}): {last}", output.status))
}

/// Counts the packages in a requirements file.
fn count(lock: &[u8]) -> usize {
    String::from_utf8_lossy(lock)
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .count()
}

fn key(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns a hash over the files of a package.
fn digest(package: &Path) -> io::Result<String> {
    let mut parts = Vec::new();
    for file in files(package)? {
        parts.push(file.as_os_str().as_encoded_bytes().to_vec());
        parts.push(fs::read(package.join(&file))?);
    }
    Ok(key(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

/// Returns the files of a package, sorted, without what builds and tests leave behind.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            if text.starts_with('.')
                || text.ends_with(".egg-info")
                || text.ends_with(".pyc")
                || matches!(&*text, "__pycache__" | "build" | "dist" | "tests" | "conformance")
            {
                continue;
            }
            let path = directory.join(&name);
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the total size of the files of a directory in bytes.
pub(crate) fn size(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, wanted, expected) in [
            ("3.11.7", ">=3.11", true),
            ("3.9.18", ">=3.11", false),
            ("3.13.1", ">=3.11,<3.13", false),
            ("3.11.7", "3.11", true),
            ("3.12.0", "==3.11", false),
        ] {
            assert_eq!(accepts(version, Some(wanted)), expected, "{version} {wanted}");
        }
        assert!(accepts("3.1", None));
    }

    #[test]
    fn interpreters_beside_path_are_tried_after_those_on_it() {
        let found = |program: &str, minor: u32, origin: Origin| interpreters::Interpreter {
            program: PathBuf::from(program),
            minor,
            origin,
        };
        let candidates = candidates(&[
            found("/usr/bin/python3.9", 9, Origin::Path),
            found("/pyenv/3.10/bin/python3.10", 10, Origin::Pyenv),
            found("/pyenv/3.12/bin/python3.12", 12, Origin::Pyenv),
            found("/uv/3.11/bin/python3.11", 11, Origin::Uv),
        ]);
        let beside = [
            "/uv/3.11/bin/python3.11",
            "/pyenv/3.12/bin/python3.12",
            "/pyenv/3.10/bin/python3.10",
        ];
        assert_eq!(candidates[..INTERPRETERS.len()], INTERPRETERS.map(PathBuf::from));
        assert_eq!(candidates[INTERPRETERS.len()..], beside.map(PathBuf::from));
    }

    #[test]
    fn the_hash_of_a_package_changes_with_its_code_and_not_with_build_output() {
        let package = tempfile::tempdir().unwrap();
        fs::create_dir(package.path().join("a")).unwrap();
        fs::write(package.path().join("a/b.py"), "1").unwrap();
        let before = digest(package.path()).unwrap();
        fs::create_dir(package.path().join("a.egg-info")).unwrap();
        fs::write(package.path().join("a.egg-info/x"), "1").unwrap();
        assert_eq!(digest(package.path()).unwrap(), before);
        fs::write(package.path().join("a/b.py"), "2").unwrap();
        assert_ne!(digest(package.path()).unwrap(), before);
    }

    #[tokio::test]
    async fn an_environment_is_created_once_and_an_incomplete_one_is_recreated() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("e");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("half"), "").unwrap();
        let created = once(&directory, || async {
            assert!(!directory.exists(), "an incomplete directory is removed first");
            fs::create_dir(&directory).map_err(|error| error.to_string())?;
            Ok(42)
        });
        assert_eq!(created.await, Ok(42));
        assert_eq!(
            once(&directory, || async { Err("created twice".to_owned()) }).await,
            Ok(42)
        );
    }

    #[tokio::test]
    async fn a_failed_installation_is_reported_with_the_output_of_the_tool() {
        let error = run(Command::new("sh").args(["-c", "echo one; echo no such package >&2; exit 3"]))
            .await
            .unwrap_err();
        assert!(
            error.contains("no such package") && error.contains("exit status: 3"),
            "{error}"
        );
    }
}
