//! The Python interpreters of this machine: those on PATH, and those that pyenv and uv have installed beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// Where interpreters are searched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// The directories of PATH. Debian, Ubuntu, the deadsnakes archive and python.org install `python3.N` there.
    pub(crate) path: Vec<PathBuf>,
    /// `versions` of pyenv: one directory for each version. Its shims on PATH run only the selected versions.
    pub(crate) pyenv: Option<PathBuf>,
    /// uv's directory of interpreters: one directory for each version.
    pub(crate) uv: Option<PathBuf>,
}

impl Places {
    /// Returns the places of this process's environment variables.
    pub(crate) fn of_user() -> Self {
        let directory = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = directory("HOME");
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        Self {
            path: env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect(),
            pyenv: directory("PYENV_ROOT")
                .or_else(|| below_home(".pyenv"))
                .map(|root| root.join("versions")),
            uv: directory("UV_PYTHON_INSTALL_DIR")
                .or_else(|| directory("XDG_DATA_HOME").map(|data| data.join("uv/python")))
                .or_else(|| below_home(".local/share/uv/python")),
        }
    }

    /// Returns the interpreters that are installed here: each program once, in the order of the places.
    pub(crate) fn interpreters(&self) -> Vec<Interpreter> {
        let installed = |root: &Option<PathBuf>| -> BTreeSet<PathBuf> {
            let entries = root
                .iter()
                .filter_map(|root| fs::read_dir(root).ok())
                .flatten()
                .flatten();
            entries.map(|entry| entry.path().join("bin")).collect()
        };
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        let places = [
            (Origin::Path, self.path.clone()),
            (Origin::Pyenv, installed(&self.pyenv).into_iter().collect()),
            (Origin::Uv, installed(&self.uv).into_iter().collect()),
        ];
        for (origin, directories) in places {
            for directory in directories {
                // A shim is a program that selects an interpreter. It fails for every version that is not selected.
                if directory.ends_with("shims") {
                    continue;
                }
                for (minor, program) in named(&directory) {
                    // `/bin` is a link to `/usr/bin`, and uv links `cpython-3.11` to `cpython-3.11.9`.
                    let real = program.canonicalize().unwrap_or_else(|_| program.clone());
                    if seen.insert(real) {
                        all.push(Interpreter { program, minor, origin });
                    }
                }
            }
        }
        all
    }
}

/// A Python interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    pub(crate) program: PathBuf,
    /// N of `python3.N`.
    pub(crate) minor: u32,
    pub(crate) origin: Origin,
}

/// What installed an interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Path,
    Pyenv,
    Uv,
}

impl Origin {
    /// Returns the name for tables.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "PATH",
            Self::Pyenv => "pyenv",
            Self::Uv => "uv",
        }
    }
}

/// Returns the programs `python3.N` of a directory, with N.
fn named(directory: &Path) -> BTreeMap<u32, PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let minor = entry.file_name().to_str()?.strip_prefix("python3.")?.parse().ok()?;
            let path = entry.path();
            let is_program =
                fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
            is_program.then_some((minor, path))
        })
        .collect()
}

/// Makes interpreters reachable for pods, and returns the directories for their PATH.
///
/// The PATH of a pod has the machine's own directories. Other directories of interpreters also contain `pip`, `mlflow`
/// and whatever else a user has installed, so they do not belong on it. Instead, each interpreter gets a directory of
/// its own with one script. A link would not do: Python searches its library beside the program that was started.
pub(crate) fn expose(interpreters: &[Interpreter], below: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for interpreter in interpreters {
        let program = interpreter.program.as_os_str().as_encoded_bytes();
        let hash: String = Sha256::digest(program)
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let directory = below.join(hash);
        fs::create_dir_all(&directory)?;
        let script = directory.join(format!("python3.{}", interpreter.minor));
        let text = [b"#!/bin/sh\nexec ", quoted(program).as_slice(), b" \"$@\"\n"].concat();
        if fs::read(&script).is_ok_and(|present| present == text) {
            directories.push(directory);
            continue;
        }
        // Renamed into place, because a pod of another local mode may start the script now.
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempfile_in(&directory)?;
        file.write_all(&text)?;
        // A file that is open for writing cannot be executed.
        file.into_temp_path().persist(&script)?;
        directories.push(directory);
    }
    Ok(directories)
}

/// Quotes a word for the shell.
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;

    fn program(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn interpreters_of_path_pyenv_and_uv_are_found_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        program(&at("usr/python3.12"), "");
        program(&at("usr/python3.12-config"), "");
        program(&at("usr/python3"), "");
        fs::write(at("usr/python3.9"), "not executable").unwrap();
        symlink("usr", at("bin")).unwrap();
        program(&at("pyenv/shims/python3.8"), "");
        program(&at("pyenv/versions/3.10.13/bin/python3.10"), "");
        program(&at("pyenv/versions/3.8.18/bin/python3.8"), "");
        program(&at("uv/cpython-3.13.1-linux-x86_64-gnu/bin/python3.13"), "");
        symlink(
            "cpython-3.13.1-linux-x86_64-gnu",
            at("uv/cpython-3.13-linux-x86_64-gnu"),
        )
        .unwrap();
        let places = Places {
            path: vec![at("pyenv/shims"), at("usr"), at("bin"), at("missing")],
            pyenv: Some(at("pyenv/versions")),
            uv: Some(at("uv")),
        };
        let found = places.interpreters();
        let found: Vec<(u32, Origin)> = found.iter().map(|found| (found.minor, found.origin)).collect();
        assert_eq!(
            found,
            [
                (12, Origin::Path),
                (10, Origin::Pyenv),
                (8, Origin::Pyenv),
                (13, Origin::Uv)
            ]
        );
    }

    #[test]
    fn an_exposed_interpreter_runs_with_its_own_library() {
        let cache = tempfile::tempdir().unwrap();
        let below = cache.path().join("it's a cache");
        let places = Places::of_user();
        let interpreters = places.interpreters();
        assert!(!interpreters.is_empty(), "the tests need a python3.N in {places:?}");
        let directories = expose(&interpreters, &below).unwrap();
        assert_eq!(directories, expose(&interpreters, &below).unwrap(), "a second time");
        for (interpreter, directory) in interpreters.iter().zip(&directories) {
            let ask = "import sys, os; print(sys.version_info[1], os.__file__)";
            let answer = |program: &Path| Command::new(program).args(["-c", ask]).output().unwrap();
            let exposed = answer(&directory.join(format!("python3.{}", interpreter.minor)));
            assert_eq!(exposed, answer(&interpreter.program), "{interpreter:?}");
            assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "nothing else is on PATH");
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted(b"/a b/it's"), b"'/a b/it'\\''s'");
    }
}
