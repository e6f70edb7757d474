//! Waits for the start of the trainer with inotify, and for its end with its lock. Neither wait polls or keeps anything
//! in memory.

use std::mem::MaybeUninit;
use std::path::Path;

use legion_protocol::env::files;
use legion_protocol::reason::{StepError, StepReason};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use crate::error::{Result, node_fault};

/// Waits until the trainer has started. An exit record without a start mark means that its command did not start.
pub(super) fn for_start(run: &Path) -> Result<()> {
    let failed = |e: Errno| node_fault(format_args!("cannot watch {}", run.display()), &e.into());
    let watch = inotify::init(CreateFlags::CLOEXEC).map_err(failed)?;
    inotify::add_watch(&watch, run, WatchFlags::CREATE | WatchFlags::MOVED_TO).map_err(failed)?;
    // The watch is added before the first check, so that no change is missed in between.
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    while ![files::STARTED, files::EXIT].iter().any(|name| run.join(name).exists()) {
        match events.next() {
            Ok(event) if event.events().contains(ReadFlags::IGNORED) => {
                return Err(StepError::new(
                    StepReason::NodeFault,
                    format!("{} no longer exists", run.display()),
                ));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(())
}

/// Opens the lock file of the trainer's PID 1. `fetch` created it. The trainer may have replaced it with anything, so
/// it is opened without following a link and without waiting for the other end of a FIFO.
pub(super) fn lock(run: &Path) -> Result<OwnedFd> {
    let path = run.join(files::LOCK);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    open(&path, flags, Mode::empty()).map_err(|e| node_fault(format_args!("cannot open {}", path.display()), &e.into()))
}

/// Waits until the trainer's PID 1 has ended. The kernel releases its lock in every case.
pub(super) fn for_end(lock: &OwnedFd) -> Result<()> {
    loop {
        match flock(lock, FlockOperation::LockShared) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(node_fault("cannot wait for the trainer's lock", &e.into())),
        }
    }
}
