//! The cluster's processes. They start in its network namespace and are known by pid and start time. A pid that the
//! system has reused since is never signaled.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::{layout::Layout, network};

/// How long a process may take to end after TERM.
const GRACE: Duration = Duration::from_secs(20);

/// A process of the cluster, as it is written beside its log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Daemon {
    /// Its name, also that of its log.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment variables besides those of the caller.
    pub environment: Vec<(String, String)>,
    process: Option<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// Clock ticks since the machine's start: with the pid it names a process for good.
    started: u64,
}

impl Daemon {
    /// A process that has yet to be started.
    pub(super) fn new(name: &str, program: PathBuf, arguments: Vec<String>) -> Self {
        let mut command = vec![program.display().to_string()];
        command.extend(arguments);
        Self {
            name: name.to_owned(),
            command,
            environment: Vec::new(),
            process: None,
        }
    }

    /// The process of this name.
    ///
    /// # Errors
    /// When the cluster has none.
    pub fn load(layout: &Layout, name: &str) -> anyhow::Result<Self> {
        let path = layout.join(&format!("run/{name}.json"));
        let content = fs::read(&path)
            .with_context(|| format!("the cluster has no process \"{name}\" ({} is missing)", path.display()))?;
        serde_json::from_slice(&content).with_context(|| format!("{} cannot be understood", path.display()))
    }

    /// All processes of the cluster, by name.
    ///
    /// # Errors
    /// When their files cannot be read.
    pub fn all(layout: &Layout) -> anyhow::Result<Vec<Self>> {
        let Ok(entries) = fs::read_dir(layout.join("run")) else {
            return Ok(Vec::new());
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".json")
                    .map(str::to_owned)
            })
            .collect();
        names.sort();
        names.iter().map(|name| Self::load(layout, name)).collect()
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(&mut self, layout: &Layout) -> anyhow::Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = self.log(layout);
        layout.directory("logs")?;
        let output = File::options().create(true).append(true).open(&log)?;
        // nsenter replaces itself by the program: the pid is the program's.
        let mut command = network::inside(layout, &self.command);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(layout.root())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name))?;
        let pid = i32::try_from(child.id()).context("a pid beyond i32")?;
        let started =
            start_time(pid).with_context(|| format!("{} ended immediately: see {}", self.name, log.display()))?;
        self.process = Some(Process { pid, started });
        layout.write(&format!("run/{}.json", self.name), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Its log.
    #[must_use]
    pub fn log(&self, layout: &Layout) -> PathBuf {
        layout.join(&format!("logs/{}.log", self.name))
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process
            .is_some_and(|process| start_time(process.pid) == Some(process.started))
    }

    /// Sends a signal; a process that is gone is no error.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(process) = self.process.filter(|_| self.is_running()) else {
            return Ok(());
        };
        let pid = Pid::from_raw(process.pid).context("pid 0 in a daemon's file")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{} cannot be signalled", self.name)),
        }
    }

    /// Sends TERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.end(Signal::TERM)
    }

    /// Sends KILL and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&self, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        let began = Instant::now();
        while self.is_running() {
            if began.elapsed() > GRACE {
                bail!("{} does not end within {} s of {signal:?}", self.name, GRACE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Fails with the end of the log when the process is gone.
    pub(super) fn check(&self, layout: &Layout) -> anyhow::Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = self.log(layout);
        let content = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines
            .get(lines.len().saturating_sub(15)..)
            .unwrap_or_default()
            .join("\n");
        bail!("{} has ended; its last words in {}:\n{end}", self.name, log.display());
    }
}

/// When the process started, in ticks since the machine's start; nothing for one that is gone or is only waited for.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses: what follows its last parenthesis begins with the third field.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // The first thread may be done while others still hold the sockets.
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if state == "X" || state == "Z" && threads() <= 1 {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Polls until it holds, failing when a process that it depends on ends or the time is over.
pub(super) fn until(
    layout: &Layout,
    what: &str,
    limit: Duration,
    daemons: &[&Daemon],
    mut holds: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds() {
        for daemon in daemons {
            daemon.check(layout)?;
        }
        if began.elapsed() > limit {
            let logs: Vec<String> = daemons
                .iter()
                .map(|daemon| daemon.log(layout).display().to_string())
                .collect();
            bail!("{what}: not within {} s; see {}", limit.as_secs(), logs.join(", "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Runs a command whose output is not needed.
pub(super) fn quietly(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
