//! Starts `legion-entry` in a directory of its own and waits for its actions.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use legion_protocol::exit::ExitRecord;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// A command line of `legion-entry` that has not been started.
pub(crate) struct Entry {
    command: Command,
    pub dir: Arc<TempDir>,
}

/// `legion-entry -- sh -c SCRIPT`.
pub(crate) fn sh(script: &str) -> Entry {
    Entry::new(["sh", "-c", script])
}

impl Entry {
    pub(crate) fn new<const N: usize>(command: [&str; N]) -> Self {
        Self::raw_vec(["--"].into_iter().chain(command).collect())
    }

    pub(crate) fn raw<const N: usize>(args: [&str; N]) -> Self {
        Self::raw_vec(args.to_vec())
    }

    fn raw_vec(args: Vec<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_legion-entry"));
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["run", "source"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            command.env(format!("LEGION_{}", name.to_uppercase()), dir.path().join(name));
        }
        File::create(dir.path().join("run/lock")).unwrap();
        Self {
            command,
            dir: Arc::new(dir),
        }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn discard_out(mut self) -> Self {
        self.command.stdout(Stdio::null());
        self
    }

    pub(crate) fn start(mut self) -> Started {
        let mut child = self.command.spawn().unwrap();
        Started {
            out: child.stdout.take().map(BufReader::new),
            seen: String::new(),
            child,
            dir: self.dir,
        }
    }

    /// Runs the command line as PID 1 of a namespace. Returns `None` if that is not allowed.
    pub(crate) fn run_as_pid_1(self) -> Option<Run> {
        let unshare = unshare(&["--pid", "--fork", "--mount-proc"])?;
        let program = self.command.get_program().to_owned();
        Some(self.run_by(unshare, program.as_ref()))
    }

    /// Runs the command line in a root directory with only `legion-entry` and its directories. Returns `None` if that
    /// is not allowed.
    pub(crate) fn run_alone(mut self) -> Option<Run> {
        let root = self.dir.path().to_str().unwrap().to_owned();
        let unshare = unshare(&["--map-root-user"]).map(|mut command| {
            command.arg(format!("--root={root}"));
            command
        })?;
        std::fs::copy(self.command.get_program(), self.dir.path().join("legion-entry")).unwrap();
        // Every container has /dev/null.
        std::fs::create_dir(self.dir.path().join("dev")).unwrap();
        File::create(self.dir.path().join("dev/null")).unwrap();
        for name in ["run", "source"] {
            self.command
                .env(format!("LEGION_{}", name.to_uppercase()), format!("/{name}"));
        }
        Some(self.run_by(unshare, Path::new("/legion-entry")))
    }

    /// Starts it from a process that ignores these signals, as `nohup` does.
    pub(crate) fn with_signals_ignored_by_parent(self, signals: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' {signals}; exec \"$@\""), "sh"]);
        let program = self.command.get_program().to_owned();
        self.by(shell, program.as_ref())
    }

    fn run_by(self, unshare: Command, program: &Path) -> Run {
        Run::of(self.by(unshare, program))
    }

    fn by(self, mut launcher: Command, program: &Path) -> Self {
        launcher
            .arg(program)
            .args(self.command.get_args())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        launcher.envs(self.command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        Self {
            command: launcher,
            dir: self.dir,
        }
    }
}

/// Returns `unshare` with the given options, or `None` if that is not allowed.
fn unshare(options: &[&str]) -> Option<Command> {
    let command = || {
        let mut command = Command::new("unshare");
        command.args(options);
        command
    };
    let allowed = command().arg("true").output().is_ok_and(|o| o.status.success());
    allowed.then(command)
}

/// Returns the types of the segments of a 64-bit little-endian ELF file.
pub(crate) fn elf_segments(file: &[u8]) -> Vec<u32> {
    assert_eq!(&file[..6], b"\x7fELF\x02\x01");
    let number = |at: usize, bytes: usize| {
        let mut le = [0; 8];
        le[..bytes].copy_from_slice(&file[at..at + bytes]);
        usize::try_from(u64::from_le_bytes(le)).unwrap()
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count)
        .map(|i| u32::try_from(number(table + i * size, 4)).unwrap())
        .collect()
}

/// A running `legion-entry`.
pub(crate) struct Started {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    seen: String,
    pub dir: Arc<TempDir>,
}

/// Stops `legion-entry` if a test fails. The kernel ends the command with it.
impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Started {
    /// Reads the output of the command up to a line with the given word. Fails after a minute without output.
    pub(crate) fn wait_for(&mut self, word: &str) {
        let out = self.out.as_mut().unwrap();
        loop {
            if out.buffer().is_empty() {
                let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
                let ready = poll(&mut [PollFd::new(out.get_ref(), PollFlags::IN)], Some(&minute)).unwrap();
                assert_ne!(
                    ready,
                    0,
                    "{word:?} did not come within a minute, after {:?}:\n{}",
                    self.seen,
                    descendants(self.child.id())
                );
            }
            let mut line = String::new();
            assert_ne!(
                out.read_line(&mut line).unwrap(),
                0,
                "the output ended without {word:?}: {}",
                self.seen
            );
            self.seen += &line;
            if line.trim() == word {
                return;
            }
        }
    }

    pub(crate) fn close_out(&mut self) {
        self.out = None;
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap()).unwrap();
    }

    pub(crate) fn started(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("run/started")).unwrap()
    }

    pub(crate) fn lock_is_free(&self) -> bool {
        let file = File::open(self.dir.path().join("run/lock")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
    }

    /// Blocks until the lock is free, as `publish` does.
    pub(crate) fn wait_for_lock(&self) {
        let file = File::open(self.dir.path().join("run/lock")).unwrap();
        flock(&file, FlockOperation::LockShared).unwrap();
    }

    pub(crate) fn end(mut self) -> Run {
        if let Some(mut out) = self.out.take() {
            out.read_to_string(&mut self.seen).unwrap();
        }
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = self.child.wait().unwrap().code();
        Run {
            code,
            out: std::mem::take(&mut self.seen),
            err,
            dir: self.dir.clone(),
        }
    }

    /// Waits for the end without reading the output.
    pub(crate) fn end_unread(mut self) -> Run {
        let code = self.child.wait().unwrap().code();
        Run {
            code,
            out: String::new(),
            err: String::new(),
            dir: self.dir.clone(),
        }
    }
}

/// A `legion-entry` that ended.
pub(crate) struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub dir: Arc<TempDir>,
}

impl Run {
    pub(crate) fn of(entry: Entry) -> Self {
        let dir = entry.dir.clone();
        Self::output(entry, dir)
    }

    /// Runs a command line in the directories of another one.
    pub(crate) fn in_dir(mut entry: Entry, dir: &Path) -> Self {
        for name in ["run", "source"] {
            entry
                .command
                .env(format!("LEGION_{}", name.to_uppercase()), dir.join(name));
        }
        let dir = entry.dir.clone();
        Self::output(entry, dir)
    }

    fn output(mut entry: Entry, dir: Arc<TempDir>) -> Self {
        let output = entry.command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
            dir,
        }
    }

    pub(crate) fn record(&self) -> ExitRecord {
        serde_json::from_slice(&std::fs::read(self.dir.path().join("run/exit.json")).unwrap()).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8(std::fs::read(self.dir.path().join("run/log")).unwrap()).unwrap()
    }
}

/// Returns the kernel's status of a process and its descendants: state, and pending, blocked, ignored and caught
/// signals.
fn descendants(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let wanted = [
        "Name:", "State:", "Pid:", "PPid:", "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:",
    ];
    let lines = status
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    let mut found = lines.collect::<Vec<_>>().join("; ") + "\n";
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        found += &descendants(child.parse().unwrap());
    }
    found
}

/// Returns whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn pid_of(pid: &str) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

/// Kills a process that outlived its `legion-entry`.
pub(crate) fn kill(pid: &str) {
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::KILL).unwrap();
}

/// Blocks until a process has ended that is not our child.
pub(crate) fn wait_for_end(pid: &str) {
    use rustix::process::{PidfdFlags, pidfd_open};
    let Ok(fd) = pidfd_open(pid_of(pid), PidfdFlags::empty()) else {
        return;
    };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
}
