//! `local run --source DIR`: a directory as the source of trainings.
//!
//! The files become a commit in a repository of the data directory, and trainings name that commit as their git source.
//! A ConfigMap would hold 1 MiB. A commit has no such limit, and its id changes with the content, so a changed file
//! starts a new run. Links and special files are treated as in any git source: links are kept and checked, pipes,
//! sockets and devices are left out.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::FileTypeExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use url::Url;

use crate::{
    data_dir::DataDir,
    exit::{CliError, Code, Result},
    manifest::Document,
};

/// A directory, as a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// URI of the repository.
    pub(crate) uri: String,
    pub(crate) commit: String,
    /// The special files that are not in it, with their kinds.
    pub(crate) left_out: Vec<String>,
}

/// Makes a snapshot the source of all trainings among the documents.
pub(crate) fn replace(documents: &mut [Document], snapshot: &Snapshot) {
    for document in documents {
        if document.value["kind"] != "ModelTraining" {
            continue;
        }
        if let Some(spec) = document.value.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert(
                "source".into(),
                json!({"git": {"uri": snapshot.uri, "ref": snapshot.commit}}),
            );
            // The directory is the project, so a path inside the old source has no meaning.
            spec.remove("workDir");
        }
    }
}

/// Commits the files of a directory. Equal files give the same commit.
pub(crate) fn snapshot(directory: &Path, data_dir: &DataDir) -> Result<Snapshot> {
    let files = read(directory)?;
    data_dir.create()?;
    let repository = data_dir.sources();
    let uri = Url::from_file_path(&repository).map_err(|()| CliError::io(repository.display(), "not absolute"))?;
    let index = tempfile::tempdir().map_err(|error| CliError::io("a temporary directory", error))?;
    let git = Git {
        directory: &std::path::absolute(directory).map_err(|error| CliError::io(directory.display(), error))?,
        repository: &repository,
        index: &index.path().join("index"),
    };
    git.run(&["init", "--quiet", "--bare", "--template="], &[])?;
    // The bytes of the files count, whatever attributes their project gives them for git.
    let attributes = repository.join("info/attributes");
    attributes
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&attributes, "* -text -filter -ident -working-tree-encoding\n"))
        .map_err(|error| CliError::io(attributes.display(), error))?;
    let mut paths = Vec::new();
    for path in &files.paths {
        paths.extend_from_slice(path.as_os_str().as_bytes());
        paths.push(0);
    }
    git.run(&["update-index", "--add", "-z", "--stdin"], &paths)?;
    let tree = git.run(&["write-tree"], &[])?;
    let commit = git.run(&["commit-tree", "-m", "legionctl local run --source", &tree], &[])?;
    Ok(Snapshot {
        uri: uri.to_string(),
        commit,
        left_out: files.left_out,
    })
}

/// Git with a work tree, a repository and an index that do not know each other.
struct Git<'a> {
    directory: &'a Path,
    repository: &'a Path,
    index: &'a Path,
}

impl Git<'_> {
    /// Runs git and returns its output without the last line feed.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let missing = |error: io::Error| {
            CliError::io("cannot run git", error).remedy("install git: `local run --source` copies the files with it")
        };
        let mut command = Command::new("git");
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.as_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["-c", "core.autocrlf=false", "-c", "core.symlinks=true"])
            .args(arguments)
            .current_dir(self.directory)
            .envs([
                ("GIT_DIR", self.repository.as_os_str()),
                ("GIT_INDEX_FILE", self.index.as_os_str()),
                // The settings of the user must not change the files or the commit.
                ("GIT_CONFIG_GLOBAL", OsStr::new("/dev/null")),
                ("GIT_CONFIG_NOSYSTEM", OsStr::new("1")),
                ("GIT_ATTR_NOSYSTEM", OsStr::new("1")),
                ("LC_ALL", OsStr::new("C")),
            ])
            // Init makes a bare repository only without a work tree.
            .envs((arguments[0] != "init").then_some(("GIT_WORK_TREE", self.directory.as_os_str())))
            // The same for every commit, so that only the files decide on its id.
            .envs(["AUTHOR", "COMMITTER"].iter().flat_map(|who| {
                [
                    ("NAME", "legionctl"),
                    ("EMAIL", "legionctl@localhost"),
                    ("DATE", "@0 +0000"),
                ]
                .map(|(what, value)| (format!("GIT_{who}_{what}"), value))
            }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(missing)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Git that fails early does not read its input. Its exit code and its message report that.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output().map_err(missing)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(CliError::io(
                format!("--source {}", self.directory.display()),
                format!("git {} reports: {}", arguments[0], text.trim()),
            )
            .remedy("make every file below it readable, or name another directory"));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

/// The content of a directory.
#[derive(Debug, Default)]
struct SourceFiles {
    /// Files and links, relative to the directory, sorted.
    paths: Vec<PathBuf>,
    left_out: Vec<String>,
}

/// Lists the files of a project, without hidden files and without what a run of it leaves behind.
fn read(root: &Path) -> Result<SourceFiles> {
    let failed = |path: &Path, error: io::Error| match error.kind() {
        io::ErrorKind::NotFound if path == root => CliError::new(
            Code::NotFound,
            format!("--source {}: no such directory", path.display()),
        )
        .remedy("name the directory of the project"),
        io::ErrorKind::NotADirectory => {
            CliError::new(Code::Invalid, format!("--source {}: not a directory", path.display()))
                .remedy("name the directory of the project; spec.entrypoint is the file in it to run")
        }
        _ => CliError::io(path.display(), error),
    };
    let mut files = SourceFiles::default();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).map_err(|error| failed(&directory, error))? {
            let entry = entry.map_err(|error| failed(&directory, error))?;
            let path = entry.path();
            let name = entry.file_name().into_vec();
            let results: [&[u8]; 4] = [b"__pycache__", b"mlruns", b"mlartifacts", b"mlflow.db"];
            if name.starts_with(b".") || results.contains(&name.as_slice()) {
                continue;
            }
            // The type of a link is that of the link. What it leads to is not followed.
            let kind = entry.file_type().map_err(|error| failed(&path, error))?;
            let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() || kind.is_symlink() {
                files.paths.push(relative);
            } else {
                let what = if kind.is_fifo() {
                    "a named pipe"
                } else if kind.is_socket() {
                    "a socket"
                } else {
                    "a device"
                };
                files.left_out.push(format!("{} ({what})", relative.display()));
            }
        }
    }
    if files.paths.is_empty() {
        return Err(
            CliError::new(Code::Invalid, format!("--source {}: contains no file", root.display()))
                .remedy("name the directory of the project"),
        );
    }
    files.paths.sort();
    files.left_out.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::manifest;

    fn git(directory: &Path, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    }

    #[test]
    fn a_snapshot_holds_the_bytes_links_and_modes_of_the_files_and_no_special_file() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = DataDir::choose(Some(&root.path().join("data dir"))).unwrap();
        let project = root.path().join("my project");
        fs::create_dir_all(project.join("lib/__pycache__")).unwrap();
        fs::create_dir(project.join("nested")).unwrap();
        git(&project.join("nested"), &["init", "--quiet"]);
        for (file, content) in [
            ("train.py", &b"print(1)\r\n"[..]),
            (".gitattributes", b"*.py text eol=lf\n*.txt filter=lfs\n"),
            (".gitignore", b"ignored.txt\n"),
            ("ignored.txt", b"data"),
            ("lib/a.bin", &[0xff, 0]),
            ("lib/__pycache__/x.pyc", b"x"),
            ("nested/inner.py", b"2"),
        ] {
            fs::write(project.join(file), content).unwrap();
        }
        fs::write(project.join("large.bin"), vec![7; 2 << 20]).unwrap();
        for number in 0..600 {
            fs::write(project.join(format!("lib/{number}.txt")), "x").unwrap();
        }
        fs::write(project.join("run.sh"), "").unwrap();
        fs::set_permissions(project.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("train.py", project.join("link")).unwrap();
        symlink("loop", project.join("loop")).unwrap();
        mknodat(CWD, project.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();

        let first = snapshot(&project, &data_dir).unwrap();
        assert_eq!(first.left_out, ["pipe (a named pipe)"]);
        assert!(first.uri.ends_with("data%20dir/sources.git"), "{first:?}");
        let clone = root.path().join("clone");
        git(root.path(), &["init", "--quiet", "clone"]);
        git(&clone, &["fetch", "--quiet", "--depth=1", &first.uri, &first.commit]);
        git(&clone, &["checkout", "--quiet", "FETCH_HEAD"]);
        assert_eq!(fs::read(clone.join("train.py")).unwrap(), b"print(1)\r\n");
        assert_eq!(fs::read(clone.join("lib/a.bin")).unwrap(), [0xff, 0]);
        assert_eq!(fs::read(clone.join("ignored.txt")).unwrap(), b"data");
        assert_eq!(fs::read(clone.join("nested/inner.py")).unwrap(), b"2");
        assert_eq!(fs::read_link(clone.join("link")).unwrap(), Path::new("train.py"));
        assert_eq!(fs::read_link(clone.join("loop")).unwrap(), Path::new("loop"));
        assert!(fs::metadata(clone.join("run.sh")).unwrap().permissions().mode() & 0o100 != 0);
        assert_eq!(fs::metadata(clone.join("large.bin")).unwrap().len(), 2 << 20);
        assert_eq!(fs::read_dir(clone.join("lib")).unwrap().count(), 601);
        assert!(!clone.join(".gitignore").exists() && !clone.join("pipe").exists());

        assert_eq!(
            snapshot(&project, &data_dir).unwrap(),
            first,
            "equal files, equal commit"
        );
        fs::write(project.join("train.py"), "print(2)\n").unwrap();
        assert_ne!(snapshot(&project, &data_dir).unwrap().commit, first.commit);
    }

    #[test]
    fn a_snapshot_replaces_the_source_in_the_manifest() {
        let text = "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {name: wine}\nspec:\n  model: {name: wine, version: \"1\"}\n  toolchain: mlflow\n  workDir: x\n  source: {configMap: {name: x}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
        let mut documents = manifest::parse(Path::new("f"), text).unwrap();
        let snapshot = Snapshot {
            uri: "file:///data/sources.git".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            left_out: Vec::new(),
        };
        replace(&mut documents, &snapshot);
        let spec = &documents[0].value["spec"];
        assert!(spec.get("workDir").is_none());
        assert_eq!(
            spec["source"],
            json!({"git": {"uri": snapshot.uri, "ref": snapshot.commit}})
        );
        assert_eq!(documents[1].value["kind"], "ConfigMap");
        assert_eq!(crate::findings::check(&documents[0]), []);
    }

    #[test]
    fn a_directory_without_files_and_a_missing_one_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = DataDir::choose(Some(&root.path().join("data"))).unwrap();
        fs::create_dir(root.path().join("empty")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        for (name, part) in [
            ("empty", "contains no file"),
            ("missing", "no such directory"),
            ("file", "not a directory"),
        ] {
            let error = snapshot(&root.path().join(name), &data_dir).unwrap_err();
            assert!(error.message.ends_with(part), "{error}");
        }
    }
}
