//! A local Legion of the test's own, driven through `legionctl` alone.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// `legionctl local up` with a data directory of its own; ends with the value.
pub struct Local {
    program: &'static Path,
    root: TempDir,
}

/// The built `legionctl`; what it starts stands beside it.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // The test stands in target/<profile>/deps.
        let profile = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        // Programs of yesterday would be tested otherwise: cargo builds those of dependencies only.
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--quiet", "--workspace", "--bins"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the programs cannot be built");
        profile.join("legionctl")
    })
}

impl Local {
    /// Starts it.
    pub fn up() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("files")).unwrap();
        let local = Self {
            program: program(),
            root,
        };
        let output = local.command(&["local", "up", "--detach"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        local
    }

    /// A directory for what the cases need.
    pub fn files(&self) -> PathBuf {
        self.root.path().join("files")
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        // The developer's own kubeconfig has no part in this.
        command
            .args(arguments)
            .env_remove("KUBECONFIG")
            .env("LEGION_DATA_DIR", self.data())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command with a file as its last argument.
    pub fn legionctl(&self, arguments: &[&str], file: &Path) -> Output {
        self.command(arguments).arg(file).output().unwrap()
    }

    /// `local run` until it says a text, then interrupted: its exit code, the training as it was then, and what was said.
    pub fn run_until(&self, file: &Path, text: &str, name: &str) -> (Option<i32>, Value, String) {
        let mut child = self
            .command(&["local", "run", "--timeout", "5m", "-f"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        for line in lines.by_ref() {
            said.push_str(&line);
            said.push('\n');
            if line.contains(text) {
                break;
            }
        }
        let output = self.command(&["get", "mt", name, "-o", "json"]).output().unwrap();
        let training = serde_json::from_slice(&output.stdout).unwrap_or_default();
        // It was not waited for yet, so that the id is still its own.
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
        said.extend(lines.map(|line| line + "\n"));
        (child.wait().unwrap().code(), training, said)
    }

    /// Processes of pods that are still there although their trainings have ended; those of the named trainings may.
    pub fn left_behind(&self, waiting: &[&str]) -> Vec<String> {
        let node = self.data().join("node");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = processes_with(&node, waiting);
            // What a pod leaves behind is ended a moment after its training's end is known.
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::yield_now();
        }
    }

    /// Stops it.
    pub fn down(&self) {
        let output = self.command(&["local", "down"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // After a failed case too; where it is down already nothing happens.
        let _ = self.command(&["local", "down"]).output();
    }
}

/// Processes whose environment names the directory, as that of every process of a pod does, other than those of pods of the
/// named trainings.
fn processes_with(directory: &Path, but: &[&str]) -> Vec<String> {
    let directory = directory.to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().map_while(Result::ok) {
        let path = entry.path();
        // Those that end meanwhile, and those of other users, are none of ours.
        let (Ok(environment), Ok(command)) = (fs::read(path.join("environ")), fs::read(path.join("cmdline"))) else {
            continue;
        };
        let environment = String::from_utf8_lossy(&environment);
        let pod = environment
            .split('\0')
            .find_map(|variable| variable.strip_prefix("HOSTNAME="))
            .unwrap_or_default();
        if environment.contains(&*directory) && !but.iter().any(|name| pod.starts_with(name)) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!(
                "process {} of pod {pod} is left behind: {command}",
                entry.file_name().to_string_lossy()
            ));
        }
    }
    found
}
