//! The supervisor: one small process per container that starts it, writes its log, and cleans up after it.
//!
//! A node can be killed at any time. Its containers must neither be lost nor started twice. The parent of a container
//! is therefore not the node but a supervisor in its own session. It exists exactly as long as the container:
//!
//! 1. The node takes an exclusive lock on a file in the container's directory and passes it to the supervisor. If the
//!    lock is free later, there is no supervisor.
//! 2. The supervisor becomes the reaper of all orphans below it, so no process escapes by a double fork or a new
//!    session. It then starts the command. `started.json` contains both pids with their start times.
//! 3. It copies the container's output to the log file and rotates the file. The node only reads it.
//! 4. It forwards SIGTERM to the command. On SIGUSR1 it kills all processes.
//! 5. When the command has ended, it kills all remaining processes, creates `exit.json` by rename, and exits. A
//!    restarted node finds either the lock held (and waits) or the record (and reads it).
//!
//! If the supervisor itself is killed, the kernel kills the command (`PR_SET_PDEATHSIG`). The node finds remaining
//! processes by control group or by a marker in their environment, and it reports an unknown end.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, getpid};

use super::logfile::LogWriter;
use super::record::{self, Answer, ExitRecord, Launch, Process, Started};
use super::tree;

/// First argument of a supervisor process.
pub const SUPERVISE: &str = "__kube-embed-supervise";

/// Interval of memory checks without a control group that limits memory.
const MEMORY_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Interval of checks while the remaining processes of a container exit.
const REAP_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Turns this process into a container's supervisor if it was started as one. In that case it never returns. A host
/// of a [`ProcessRuntime`](super::ProcessRuntime) calls this first in `main`, before it starts any thread.
pub fn run_if_requested() {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == SUPERVISE) {
        let code = match supervise() {
            Ok(()) => 0,
            Err(error) => {
                // This goes to `supervisor.log` in the container's directory.
                let _ = writeln!(std::io::stderr(), "{error}");
                1
            }
        };
        std::process::exit(code);
    }
}

fn supervise() -> std::io::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if !line.ends_with('\n') {
        // The node was killed while it wrote. Nothing was started, and the node knows that from the missing record.
        return Ok(());
    }
    let launch: Launch = serde_json::from_str(&line)?;
    // SAFETY: the node opened this descriptor for us and passes its number. It has no other owner.
    let lock = unsafe { OwnedFd::from_raw_fd(launch.lock_fd) };
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::CLOEXEC)?;
    // Only a group leader cannot begin a session. A new child is not one, so a failure means that it already has a
    // session.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let _ = rustix::thread::set_name(c"pod-supervisor");
    let signals = Signals::block()?;

    let mut child = match spawn(&launch) {
        Ok(child) => child,
        Err(error) => {
            answer(&Answer::Failed(explain(&launch, &error)));
            if let Some(cgroup) = &launch.cgroup {
                cgroup.remove();
            }
            return Ok(());
        }
    };
    let identify = |pid: i32| Process {
        pid,
        start_time: tree::start_time(pid).unwrap_or(0),
    };
    let main = i32::try_from(child.id()).map_err(std::io::Error::other)?;
    let started = Started {
        supervisor: identify(getpid().as_raw_nonzero().get()),
        main: identify(main),
        started_at: Timestamp::now(),
    };
    record::write(&launch.dir.join(record::STARTED), &started)?;
    let started_at = started.started_at;
    answer(&Answer::Started(started));

    let mut container = Container {
        log: LogWriter::open(&launch.dir, launch.log_limit)?,
        out: child.stdout.take(),
        err: child.stderr.take(),
        main,
        ended: None,
        out_of_memory: false,
        launch,
        signals,
    };
    let status = container.run()?;
    container.bury()?;
    let launch = &container.launch;
    let oom_kills = launch.cgroup.as_ref().map_or(0, super::cgroup::Cgroup::oom_kills);
    let exit = ExitRecord {
        code: status
            .code()
            .or_else(|| status.signal().map(|s| 128 + s))
            .unwrap_or(255),
        signal: status.signal(),
        oom_killed: container.out_of_memory || oom_kills > 0,
        lost: false,
        started_at,
        finished_at: Timestamp::now(),
    };
    if let Some(cgroup) = &launch.cgroup {
        cgroup.remove();
    }
    record::write(&launch.dir.join(record::EXIT), &exit)
}

fn answer(answer: &Answer) {
    let mut out = std::io::stdout().lock();
    // A node that no longer exists reads no answer. The files contain the same information.
    let _ = serde_json::to_writer(&mut out, answer)
        .map_err(std::io::Error::from)
        .and_then(|()| out.write_all(b"\n"));
    let _ = out.flush();
}

fn spawn(launch: &Launch) -> std::io::Result<std::process::Child> {
    let mut command = Command::new(&launch.program);
    if let Some((name, arguments)) = launch.argv.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(&launch.env).current_dir(&launch.working_dir);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut groups = Vec::new();
    for path in launch.cgroup.iter().flat_map(super::cgroup::Cgroup::procs) {
        groups.push(CString::new(path.as_os_str().as_bytes())?);
    }
    // SAFETY: between fork and exec there are only system calls, on memory that was allocated before.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            for group in &groups {
                let file = rustix::fs::open(
                    group.as_c_str(),
                    rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )?;
                rustix::io::write(file, b"0")?;
            }
            Ok(())
        });
    }
    command.spawn()
}

fn explain(launch: &Launch, error: &std::io::Error) -> String {
    let program = launch.argv.first().cloned().unwrap_or_default();
    let dir = &launch.working_dir;
    if !dir.is_dir() {
        return format!("failed to start container process: chdir to cwd ({dir:?}) failed: no such file or directory");
    }
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory".into(),
        Some(libc::EACCES) => "permission denied".into(),
        Some(libc::ENOEXEC) => "exec format error".into(),
        Some(libc::E2BIG) => "argument list too long".into(),
        _ => error.to_string(),
    };
    format!("failed to start container process: exec: {program:?}: {reason}")
}

/// The signals that a supervisor handles, as a descriptor.
struct Signals(File);

impl Signals {
    fn block() -> std::io::Result<Self> {
        // SAFETY: these are plain C calls on a set that the first of them initializes.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [
                libc::SIGCHLD,
                libc::SIGTERM,
                libc::SIGUSR1,
                libc::SIGINT,
                libc::SIGHUP,
                libc::SIGPIPE,
            ] {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: signalfd has just returned this descriptor to us.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    fn next(&mut self) -> Option<i32> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match self.0.read(&mut info) {
            // The signal's number is the first field.
            Ok(n) if n == info.len() => Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
            _ => None,
        }
    }
}

struct Container {
    launch: Launch,
    log: LogWriter,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    main: i32,
    ended: Option<ExitStatus>,
    out_of_memory: bool,
    signals: Signals,
}

impl Container {
    /// Runs until the main process has ended.
    fn run(&mut self) -> std::io::Result<ExitStatus> {
        let watch_memory = self
            .launch
            .memory_limit
            .filter(|_| self.launch.cgroup.as_ref().is_none_or(|c| c.memory.is_none()));
        let timeout = watch_memory.is_some().then_some(&MEMORY_INTERVAL);
        set_nonblocking(self.out.as_ref())?;
        set_nonblocking(self.err.as_ref())?;
        let mut host = self.launch.die_with_host;
        loop {
            let input = std::io::stdin();
            let ready = {
                let mut fds = vec![PollFd::new(&self.signals.0, PollFlags::IN)];
                fds.extend(self.out.as_ref().map(|p| PollFd::new(p, PollFlags::IN)));
                fds.extend(self.err.as_ref().map(|p| PollFd::new(p, PollFlags::IN)));
                if host {
                    fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN));
                }
                match poll(&mut fds, timeout) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                host && fds.last().is_some_and(|fd| !fd.revents().is_empty())
            };
            if ready {
                host = false;
                self.kill();
            }
            self.copy()?;
            while let Some(signal) = self.signals.next() {
                match signal {
                    libc::SIGTERM => tree::signal(self.main, Signal::TERM),
                    libc::SIGUSR1 => self.kill(),
                    _ => {}
                }
            }
            self.reap();
            if let Some(status) = self.ended {
                return Ok(status);
            }
            if let Some(limit) = watch_memory
                && tree::memory(&self.below()) > limit
            {
                self.out_of_memory = true;
                self.kill();
            }
        }
    }

    fn below(&self) -> Vec<i32> {
        tree::descendants(getpid().as_raw_nonzero().get())
    }

    fn kill(&self) {
        tree::kill_all(|| self.below());
    }

    /// Reaps every child that has ended. Returns false if there are no children left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if Some(pid) == Pid::from_raw(self.main) {
                        self.ended = Some(ExitStatus::from_raw(status.as_raw()));
                    }
                }
                Ok(None) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Kills the remaining processes and reads the rest of the output.
    fn bury(&mut self) -> std::io::Result<()> {
        while self.reap() {
            self.kill();
            let mut fds = [PollFd::new(&self.signals.0, PollFlags::IN)];
            // Either a child has ended, or it is time to check again. The loop handles both.
            let _ = poll(&mut fds, Some(&REAP_INTERVAL));
            while self.signals.next().is_some() {}
        }
        // Every writer has exited, so this ends. A pipe that was passed outside the container is not waited for.
        self.copy()?;
        while self.copy()? {}
        self.log.finish()
    }

    /// Copies available output to the log. Returns true if there was any.
    fn copy(&mut self) -> std::io::Result<bool> {
        let out = drain(&mut self.out, &mut self.log, "stdout")?;
        let err = drain(&mut self.err, &mut self.log, "stderr")?;
        Ok(out || err)
    }
}

fn set_nonblocking<P: AsFd>(pipe: Option<&P>) -> std::io::Result<()> {
    if let Some(pipe) = pipe {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    Ok(())
}

fn drain<P: Read>(pipe: &mut Option<P>, log: &mut LogWriter, stream: &'static str) -> std::io::Result<bool> {
    let Some(reader) = pipe else { return Ok(false) };
    let mut buffer = [0_u8; 64 * 1024];
    match reader.read(&mut buffer) {
        Ok(0) => {
            *pipe = None;
            Ok(false)
        }
        Ok(n) => log.write(stream, &buffer[..n]).map(|()| true),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Keeps a borrowed descriptor open across `exec`, for the lock that is passed to a supervisor.
pub(super) fn inherit(fd: BorrowedFd<'_>) -> std::io::Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    debug_assert!(fd.as_raw_fd() > 2, "a standard stream cannot be the lock");
    Ok(())
}
