//! Runs the command, with one loop that waits for signals, output and deadlines.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use legion_protocol::exit::ExitError;
use legion_protocol::reason::StepReason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::control::ControlDir;
use crate::log::BoundedLog;
use crate::settings::Settings;
use crate::stream::{ContainerOutput, OutputStream};
use crate::sys::{self, ExitedChild, Reaped, SignalFd};
use crate::{not_started, report};

/// Time between TERM and KILL for processes that outlive the command.
const STRAY_GRACE: Duration = Duration::from_secs(1);
/// Longest wait for a reader of our output after the command has ended.
const READER_TIMEOUT: Duration = Duration::from_secs(1);
/// The command is killed this long before the end of the grace period, so that its end can still be recorded.
const RECORD_ALLOWANCE: Duration = Duration::from_secs(2);

/// How the command ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandEnd {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) outside_signal: Option<i32>,
    pub(crate) timed_out: bool,
    pub(crate) max_rss_bytes: u64,
}

/// The running command.
#[derive(Debug)]
pub(crate) struct RunningCommand {
    main: Pid,
    signals: SignalFd,
    streams: [OutputStream; 2],
    log: Option<BoundedLog>,
    exited: Option<ExitedChild>,
    outside_signal: Option<i32>,
    timed_out: bool,
    timeout_at: Option<Instant>,
    kill_at: Option<Instant>,
    no_children: bool,
    timeout: Duration,
    grace: Duration,
}

impl RunningCommand {
    /// Starts the command.
    pub(crate) fn start(settings: &Settings, control: &ControlDir) -> Result<Self, ExitError> {
        let cannot =
            |what: &str, e: std::io::Error| not_started(StepReason::CommandNotStarted, format!("cannot {what}: {e}"));
        if !settings.directory.is_dir() {
            return Err(not_started(
                StepReason::WorkDirMissing,
                format!(
                    "the working directory {} does not exist: {}",
                    settings.directory.display(),
                    StepReason::WorkDirMissing.remedy()
                ),
            ));
        }
        let signals = SignalFd::block().map_err(|e| cannot("handle signals", e))?;
        // Makes orphans of the command our children even if we are not PID 1. An error is ignored: the command runs
        // anyway.
        let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
        let log =
            BoundedLog::create(control.directory(), settings.log_limit).map_err(|e| cannot("create the log", e))?;
        let ((out, child_out), (err, child_err)) = std::io::pipe()
            .and_then(|out| Ok((out, std::io::pipe()?)))
            .map_err(|e| cannot("create pipes for the output", e))?;
        let streams = OutputStream::new(out, ContainerOutput::Out(std::io::stdout()))
            .and_then(|out| Ok([out, OutputStream::new(err, ContainerOutput::Err(std::io::stderr()))?]))
            .map_err(|e| cannot("read the output", e))?;
        control
            .write_start_mark()
            .map_err(|e| cannot("write the start mark", e))?;
        let mut command = Command::new(&settings.program);
        command
            .args(&settings.args)
            .current_dir(&settings.directory)
            .env("PWD", &settings.directory)
            .stdin(std::process::Stdio::null())
            .stdout(child_out)
            .stderr(child_err)
            .process_group(0);
        sys::prepare_child(&mut command);
        let child = command.spawn().map_err(|e| spawn_error(settings, &e))?;
        // The `Command` holds our copies of the pipes' write ends. While they are open, the pipes would never end.
        drop(command);
        let Some(main) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
            return Err(not_started(
                StepReason::CommandNotStarted,
                "the command has no process id".into(),
            ));
        };
        Ok(Self {
            main,
            signals,
            streams,
            log: Some(log),
            exited: None,
            outside_signal: None,
            timed_out: false,
            timeout_at: settings.timeout.map(|timeout| Instant::now() + timeout),
            kill_at: None,
            no_children: false,
            timeout: settings.timeout.unwrap_or_default(),
            grace: settings.grace,
        })
    }

    /// Waits until the command ends, and reads the output that it has printed until then.
    pub(crate) fn wait(&mut self) -> CommandEnd {
        let exited = loop {
            if let Some(exited) = self.exited {
                break exited;
            }
            self.turn([self.timeout_at, self.kill_at].into_iter().flatten().min());
            let now = Instant::now();
            if self.timeout_at.is_some_and(|at| now >= at) {
                self.timeout_at = None;
                self.timed_out = true;
                report(&format!(
                    "the command exceeded its timeout of {} s: sending TERM now and KILL after {} s",
                    self.timeout.as_secs(),
                    self.grace.as_secs()
                ));
                self.signal_all(Signal::TERM);
                self.kill_by(now + self.grace);
            }
            if self.kill_at.is_some_and(|at| now >= at) {
                self.kill_at = None;
                self.signal_all(Signal::KILL);
            }
        };
        self.drain();
        CommandEnd {
            code: exited.code,
            signal: exited.signal,
            outside_signal: self.outside_signal,
            timed_out: self.timed_out,
            max_rss_bytes: exited.max_rss_bytes,
        }
    }

    /// Ends the processes that outlive the command and completes the log. It does not wait for the end of the pipes,
    /// because a stray process may keep them open forever.
    pub(crate) fn finish(mut self) {
        self.reap();
        let deadline = Instant::now() + STRAY_GRACE;
        self.end_children(Signal::TERM, self.kill_at.map_or(deadline, |at| at.max(deadline)));
        self.end_children(Signal::KILL, Instant::now() + STRAY_GRACE);
        self.drain();
        if let Some(Err(e)) = self.log.take().map(BoundedLog::finish) {
            report(&format!("cannot complete the log: {e}"));
        }
    }

    /// Signals every child until there is none or the time has passed. A process becomes our child when its parent
    /// ends.
    fn end_children(&mut self, signal: Signal, until: Instant) {
        let mut signalled = Vec::new();
        while !self.no_children && Instant::now() < until {
            self.signal_group(signal);
            let children = sys::children();
            for child in children.iter().filter(|child| !signalled.contains(*child)) {
                let _ = kill_process(*child, signal);
            }
            signalled = children;
            self.turn(Some(until));
        }
    }

    /// Waits for a signal, for output or until the given time. Then handles all signals and output that are there.
    fn turn(&mut self, until: Option<Instant>) {
        let timeout = until.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let polled = [0, 1].map(|i| {
            let fd = self.streams[i].poll_fd()?;
            fds.push(fd);
            Some(fds.len() - 1)
        });
        // An interrupted poll reports nothing. No other error is possible for descriptors that we hold open.
        let _ = poll(&mut fds, timeout.as_ref());
        let ready = polled.map(|at| at.is_some_and(|at| !fds[at].revents().is_empty()));
        drop(fds);
        for (i, ready) in ready.into_iter().enumerate() {
            if ready {
                self.copy(i);
            }
        }
        while let Some(signal) = self.signals.next() {
            if signal == libc::SIGCHLD {
                self.reap();
            } else {
                self.forward(signal);
            }
        }
    }

    /// Runs one step of a stream that is ready, and returns the number of bytes read.
    fn copy(&mut self, i: usize) -> usize {
        let stream = &mut self.streams[i];
        if stream.has_pending() {
            stream.write();
            return 0;
        }
        let Some(chunk) = stream.read() else { return 0 };
        let read = chunk.len();
        if let Some(Err(e)) = self.log.as_mut().map(|log| log.write(chunk)) {
            // A full disk must not end a training that may need no disk.
            self.log = None;
            report(&format!("cannot keep a copy of the output: {e}"));
        }
        read
    }

    /// Reads the bytes that are in the pipes now, and no more, because a stray process could write forever.
    fn drain(&mut self) {
        for i in 0..self.streams.len() {
            let deadline = Instant::now() + READER_TIMEOUT;
            let mut waiting = self.streams[i].waiting();
            loop {
                if self.streams[i].has_pending() {
                    let timeout = timespec(deadline.saturating_duration_since(Instant::now()));
                    let Some(fd) = self.streams[i].poll_fd() else { break };
                    if poll(&mut [fd], Some(&timeout)) == Ok(0) {
                        break;
                    }
                    self.copy(i);
                } else if waiting > 0 {
                    match self.copy(i) {
                        0 => break,
                        read => waiting = waiting.saturating_sub(read as u64),
                    }
                } else {
                    break;
                }
            }
        }
    }

    /// Reaps every child that has ended.
    fn reap(&mut self) {
        loop {
            match sys::reap() {
                Reaped::Exited(exited) if exited.pid == self.main => self.exited = Some(exited),
                Reaped::Exited(_) => {}
                Reaped::Running => return,
                Reaped::None => {
                    self.no_children = true;
                    return;
                }
            }
        }
    }

    /// Forwards a signal. A termination signal goes to the whole process group, as from a terminal, so that a wrapper
    /// script does not leave its children running. Any other signal goes to the command alone, because its default
    /// action kills a process that does not handle it.
    fn forward(&mut self, signal: i32) {
        // Only signals of `sys::HANDLED` arrive, and rustix has a name for all of them.
        let Some(named) = Signal::from_named_raw(signal) else {
            return;
        };
        if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT) {
            if signal != libc::SIGQUIT && self.outside_signal.is_none() && self.exited.is_none() {
                self.outside_signal = Some(signal);
                self.kill_by(Instant::now() + self.grace.saturating_sub(RECORD_ALLOWANCE.min(self.grace / 10)));
            }
            self.signal_group(named);
        } else if self.exited.is_none() {
            let _ = kill_process(self.main, named);
        }
    }

    fn kill_by(&mut self, at: Instant) {
        self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
    }

    /// Signals the command's process group. An empty group is not an error.
    fn signal_group(&self, signal: Signal) {
        let _ = kill_process_group(self.main, signal);
    }

    /// Signals the process group and every orphan outside of it.
    fn signal_all(&self, signal: Signal) {
        self.signal_group(signal);
        for child in sys::children().into_iter().filter(|child| *child != self.main) {
            let _ = kill_process(child, signal);
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that a deadline has passed when the poll returns and the loop does not spin before it.
    let duration = duration + Duration::from_nanos(1);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Returns the error for a command that could not be started. The message includes a remedy.
fn spawn_error(settings: &Settings, error: &std::io::Error) -> ExitError {
    let name = settings.program.to_string_lossy();
    let path = std::env::var("PATH").unwrap_or_default();
    let found = if name.contains('/') {
        settings.directory.join(&settings.program).exists()
    } else {
        path.split(':')
            .any(|dir| Path::new(dir).join(&settings.program).is_file())
    };
    match error.kind() {
        ErrorKind::NotFound if found => not_started(
            StepReason::CommandNotExecutable,
            format!("the command {name:?} exists, but its interpreter does not: check its first line (#!)"),
        ),
        ErrorKind::NotFound => {
            let place = if name.contains('/') {
                String::new()
            } else {
                format!(" in PATH ({path})")
            };
            not_started(
                StepReason::CommandNotFound,
                format!("the command {name:?} was not found{place}"),
            )
        }
        ErrorKind::PermissionDenied => not_started(
            StepReason::CommandNotExecutable,
            format!("the command {name:?} may not be executed"),
        ),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => not_started(
            StepReason::CommandNotExecutable,
            format!("the command {name:?} is neither a program nor a script that starts with #!"),
        ),
        _ => not_started(
            StepReason::CommandNotStarted,
            format!("the command {name:?} could not be started: {error}"),
        ),
    }
}
