//! A local Legion under test: its programs, its data directory and its processes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;

/// The timeout of every wait. It is far longer than needed, so a slow machine fails no test, and a hang still ends.
pub const LIMIT: Duration = Duration::from_secs(180);
/// The time between two polls of something that sends no notification, such as a file.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Returns the root directory of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Builds the programs once per test binary, and returns their directory.
pub fn programs() -> anyhow::Result<&'static Path> {
    static PROGRAMS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAMS.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    // target/PROFILE/deps/NAME-HASH: the programs are two levels up.
    let exe = env::current_exe()?;
    let directory = exe
        .ancestors()
        .nth(2)
        .context("a test binary lies in target/PROFILE/deps")?;
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        // As `cargo xtask test` does, and into the same directory, so that nothing is compiled twice.
        .args([
            "build",
            "--workspace",
            "--bins",
            "--quiet",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(directory.parent().context("a profile lies in a target directory")?)
        .current_dir(repository())
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "the programs under test cannot be built");
    ensure!(
        directory.join("legionctl").is_file(),
        "no legionctl in {}",
        directory.display()
    );
    Ok(directory.to_owned())
}

/// Polls until `look` finds something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(began.elapsed() < LIMIT, "not within {} s: {what}", LIMIT.as_secs());
        thread::sleep(POLL_INTERVAL);
    }
}

/// Kills a process with SIGKILL, as a crash does. Waits until the kernel has closed its files and released its locks. A
/// process that no longer exists is not an error.
pub fn kill(pid: i32) -> anyhow::Result<()> {
    let id = Pid::from_raw(pid).with_context(|| format!("{pid} is no process id"))?;
    let killed = pidfd_open(id, PidfdFlags::empty()).and_then(|process| {
        kill_process(id, Signal::KILL)?;
        Ok(process)
    });
    let process = match killed {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => bail!("process {pid} cannot be killed: {error}"),
    };
    let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&minute))?;
    ensure!(ended == 1, "process {pid} was killed and has not ended within a minute");
    Ok(())
}

/// A process that belongs to a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The process id.
    pub pid: i32,
    /// The command line, with spaces between the arguments.
    pub command: String,
    /// The name of the pod that it belongs to, if it belongs to one.
    pub pod: Option<String>,
}

/// A data directory of the local mode. Dropping it kills the remaining processes and deletes the directory.
#[derive(Debug)]
pub struct Local {
    directory: tempfile::TempDir,
}

impl Local {
    /// Creates an empty data directory. The length of its path is always the same.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("legion-")
            .rand_bytes(6)
            .tempdir_in("/tmp")?;
        Ok(Self { directory })
    }

    /// Returns the path of the data directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a `legionctl` command for this directory. The command is not started.
    pub fn legionctl(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(programs()?.join("legionctl"));
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.path())
            .current_dir(repository())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `legionctl`. A nonzero exit code is not an error.
    pub fn output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.legionctl(arguments)?.output()?)
    }

    /// Runs `legionctl` and returns its stdout and its exit code.
    pub fn exits(&self, arguments: &[&str]) -> anyhow::Result<(String, Option<i32>)> {
        let output = self.legionctl(arguments)?.stderr(Stdio::inherit()).output()?;
        Ok((String::from_utf8(output.stdout)?, output.status.code()))
    }

    /// Runs `legionctl`, which must succeed. Returns its stdout.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output(arguments)?;
        ensure!(
            output.status.success(),
            "legionctl {}: {}\n{}",
            arguments.join(" "),
            output.status,
            text(&output)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `legionctl local run` with a file. Returns the exit code, the training (null if none was printed) and
    /// stderr.
    pub fn train(&self, file: &Path) -> anyhow::Result<(Option<i32>, Value, String)> {
        let file = file.to_str().context("a path in UTF-8")?;
        let output = self.output(&["local", "run", "-f", file, "-o", "json"])?;
        let training = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok((output.status.code(), training, String::from_utf8(output.stderr)?))
    }

    /// Returns a training from the API, or null if there is none.
    pub fn training(&self, name: &str) -> anyhow::Result<Value> {
        let output = self.output(&["get", "mt", name, "-o", "json"])?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// Starts the local mode in the background. Returns when it is ready.
    pub fn up(&self) -> anyhow::Result<()> {
        let said = self.run(&["local", "up", "--detach"])?;
        ensure!(said.starts_with("ready: "), "`local up --detach` said: {said}");
        Ok(())
    }

    /// Stops the local mode, and checks that no process is left.
    pub fn down(&self) -> anyhow::Result<()> {
        self.run(&["local", "down"])?;
        self.deserted()
    }

    /// Returns the id of the process that serves this directory.
    pub fn server(&self) -> anyhow::Result<i32> {
        let status: Value = serde_json::from_str(&self.run(&["local", "status", "-o", "json"])?)?;
        let pid = status["pid"].as_i64().with_context(|| format!("not up: {status}"))?;
        Ok(i32::try_from(pid)?)
    }

    /// Returns an error if a process still belongs to this directory.
    pub fn deserted(&self) -> anyhow::Result<()> {
        // A killed process is in /proc until its parent, or init, has read its status.
        until_or("no process is left", || self.processes().is_empty())
            .with_context(|| format!("left behind: {:?}", self.processes()))
    }

    /// Returns every process that belongs to this directory. Its environment, command line or working directory
    /// contains the path, or it has one of the files open.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let text = |pid: i32, file: &str| {
            // A process that has just ended has no such file.
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        pids.filter(|pid| *pid != own && self.owns(*pid))
            .map(|pid| {
                let environment = text(pid, "environ");
                let value = |name: &str| environment.split('\0').find_map(|variable| variable.strip_prefix(name));
                let pod = value("KUBE_EMBED_CONTAINER=").and_then(|_| value("HOSTNAME="));
                Process {
                    pid,
                    command: text(pid, "cmdline").replace('\0', " "),
                    pod: pod.map(str::to_owned),
                }
            })
            .collect()
    }

    fn owns(&self, pid: i32) -> bool {
        let of = Path::new("/proc").join(pid.to_string());
        let name = self.path().as_os_str().as_encoded_bytes();
        let names = |file: &str| {
            fs::read(of.join(file)).is_ok_and(|text| text.windows(name.len()).any(|window| window == name))
        };
        let within = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(self.path()));
        let open = || {
            let files = fs::read_dir(of.join("fd")).into_iter().flatten().flatten();
            files.map(|entry| entry.path()).any(|link| within(&link))
        };
        names("environ") || names("cmdline") || within(&of.join("cwd")) || open()
    }
}

/// Polls for at most 10 s, much shorter than [`until`], until `holds` returns true.
fn until_or(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds() {
        ensure!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

impl Drop for Local {
    fn drop(&mut self) {
        // A failed test leaves nothing running. A killed supervisor may leave its container, hence the rounds.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for process in left {
                // The next round tries again.
                let _ = kill(process.pid);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Runs git in a directory, with a fixed user name and email address. It must succeed. Returns its stdout.
pub fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(arguments)
        .output()?;
    ensure!(output.status.success(), "git {arguments:?}: {}", text(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns stdout, then stderr, of a process.
#[must_use]
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Returns the `Succeeded` condition of a training, or null if there is none.
#[must_use]
pub fn succeeded(training: &Value) -> &Value {
    training["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Succeeded")
        .unwrap_or(&Value::Null)
}
