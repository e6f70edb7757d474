//! End-to-end suites over the built binaries: what a person at a terminal would see.
//!
//! The suites themselves are in `tests/it`; this is what they share.

pub mod local;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// The directory of the binaries under test, built now in the profile of this test.
#[must_use]
#[track_caller]
pub fn binaries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // TARGET/PROFILE/deps/THIS
        let this = std::env::current_exe().expect("a test has a path");
        let profile = this
            .ancestors()
            .nth(2)
            .expect("a test stands in a target directory")
            .to_owned();
        let release = profile.ends_with("release");
        let status = Command::new(env!("CARGO"))
            // All of the workspace, so that dependencies are not built again with a smaller set of features.
            .args(["build", "--quiet", "--workspace", "--bins", "--profile"])
            .arg(if release { "release" } else { "dev" })
            .arg("--target-dir")
            .arg(profile.parent().expect("a profile stands in a target directory"))
            .current_dir(repository())
            .status();
        assert!(
            status.expect("cargo starts").success(),
            "the binaries under test do not build"
        );
        profile
    })
}

/// A local Legion with a data directory of its own, stopped when dropped.
pub struct Local {
    /// The data directory.
    pub data: tempfile::TempDir,
}

impl Local {
    /// A data directory in which nothing runs yet.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self {
            data: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// The same, up in the background.
    #[must_use]
    #[track_caller]
    pub fn up() -> Self {
        let local = Self::new();
        let output = local.legionctl(&["local", "up", "--detach"]);
        assert!(output.status.success(), "{}", text(&output));
        local
    }

    /// `legionctl` with this data directory, not started yet.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries().join("legionctl"));
        command
            .args(arguments)
            .env("LEGION_DATA_DIR", self.data.path())
            .env_remove("KUBECONFIG")
            .current_dir(repository())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `legionctl` to its end.
    #[track_caller]
    pub fn legionctl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("legionctl starts")
    }

    /// `legionctl local run -o json` of a file: exit code, the training (null when nothing was printed), standard error.
    #[track_caller]
    pub fn train(&self, file: &Path) -> (i32, Value, String) {
        let file = file.to_str().expect("a UTF-8 path");
        let output = self.legionctl(&["local", "run", "-f", file, "-o", "json"]);
        let training = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), training, errors)
    }

    /// A training as the API holds it now; null where there is none.
    #[track_caller]
    pub fn training(&self, name: &str) -> Value {
        let output = self.legionctl(&["get", "mt", name, "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The training once `holds` is true of it; fails with the training as it is after a minute.
    #[track_caller]
    pub fn until(&self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let training = self.training(name);
            if holds(&training) {
                return training;
            }
            assert!(
                Instant::now() < deadline,
                "{name} never came to what was waited for: {training:#}"
            );
            std::thread::yield_now();
        }
    }
}

impl Default for Local {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Says "not up" where nothing runs.
        let _ = self.legionctl(&["local", "down"]);
    }
}

/// A process that is killed, with SIGKILL, when it is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that a process printed.
#[must_use]
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The `Succeeded` condition of a training; null where there is none.
#[must_use]
pub fn succeeded(training: &Value) -> &Value {
    training["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Succeeded")
        .unwrap_or(&Value::Null)
}

/// Every process whose environment says that a container of this data directory started it, with its command line.
#[must_use]
pub fn processes_of(data: &Path) -> Vec<String> {
    let needle = data.to_string_lossy().into_owned().into_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        // Paths of volumes stand in every container's environment.
        let is_container = environment
            .split(|byte| *byte == 0)
            .any(|entry| entry.starts_with(b"KUBE_EMBED_CONTAINER="))
            && environment.windows(needle.len()).any(|window| window == needle);
        if is_container {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}
