//! System calls without a safe wrapper in the standard library or rustix.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal};

/// The signals that are forwarded to the command, and SIGCHLD.
const HANDLED: [libc::c_int; 7] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// A signalfd: the handled signals as a file to poll and read.
#[derive(Debug)]
pub(crate) struct SignalFd {
    file: File,
}

impl SignalFd {
    /// Blocks the handled signals in the only thread, and opens the file. A child inherits the signal mask, so
    /// [`prepare_child`] resets it.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: `sigemptyset` initializes the set before anything reads it, and every pointer is to a live local.
        let fd = unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            for signal in HANDLED {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            if libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `signalfd` has just returned this descriptor, and nothing else owns it.
        Ok(Self {
            file: unsafe { OwnedFd::from_raw_fd(fd) }.into(),
        })
    }

    /// Returns the next pending signal.
    pub(crate) fn next(&mut self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        // A signalfd returns complete records only. `ssi_signo` is the first field of a record.
        self.file.read_exact(&mut info).ok()?;
        let [a, b, c, d, ..] = info;
        i32::try_from(u32::from_ne_bytes([a, b, c, d])).ok()
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Resets the signal mask and the handled signals in the command. Our parent may have ignored them, and a shell cannot
/// trap a signal that was ignored at its start. The kernel also kills the command if this process ends first. Otherwise
/// the lock would be free too early, and `publish` would read files that are still being written.
pub(crate) fn prepare_child(command: &mut Command) {
    let prepare = || {
        // SAFETY: `sigemptyset` initializes the set before it is read, and both calls are async-signal-safe.
        let masked = unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
        };
        if masked != 0 {
            return Err(io::Error::last_os_error());
        }
        for signal in HANDLED {
            // SAFETY: no handler is installed, and the call is async-signal-safe.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
    };
    // SAFETY: the closure only makes system calls. It neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
}

/// A child that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExitedChild {
    pub(crate) pid: Pid,
    /// Exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// Signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Largest resident set of the child and of the children that it waited for.
    pub(crate) max_rss_bytes: u64,
}

/// Result of [`reap`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reaped {
    Exited(ExitedChild),
    /// All children are running.
    Running,
    /// There are no children.
    None,
}

/// Reaps one child that has ended, if there is one.
pub(crate) fn reap() -> Reaped {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live locals of the right types, and a zeroed `rusage` is a valid value.
    let (pid, usage) = unsafe {
        let pid = libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (pid, usage.assume_init())
    };
    if pid == 0 {
        return Reaped::Running;
    }
    // The only error left is ECHILD. (`Pid::from_raw` accepts no negative number.)
    let Some(pid) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else {
        return Reaped::None;
    };
    Reaped::Exited(ExitedChild {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

/// Returns the children of this process, including adopted orphans. The list is empty on a kernel that does not show
/// them.
pub(crate) fn children() -> Vec<Pid> {
    let pid = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}
