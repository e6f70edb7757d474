//! Waiting for the trainer's end: for its start by inotify, for its end by its lock. Neither polls, and neither keeps
//! anything in memory.

use crate::{Result, node_fault};
use legion_protocol::env::files;
use legion_protocol::reason::{StepError, StepReason};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::mem::MaybeUninit;
use std::path::Path;

/// Waits until the trainer has started. An exit record without a start mark says that its command could not be.
pub(super) fn for_start(run: &Path) -> Result<()> {
    let failed = |e: Errno| node_fault(format_args!("cannot watch {}", run.display()), &e.into());
    let watch = inotify::init(CreateFlags::CLOEXEC).map_err(failed)?;
    inotify::add_watch(&watch, run, WatchFlags::CREATE | WatchFlags::MOVED_TO).map_err(failed)?;
    // The watch comes before the look, so that nothing falls between them.
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    while ![files::STARTED, files::EXIT].iter().any(|name| run.join(name).exists()) {
        match events.next() {
            Ok(event) if event.events().contains(ReadFlags::IGNORED) => {
                return Err(StepError::new(
                    StepReason::NodeFault,
                    format!("{} went away", run.display()),
                ));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(())
}

/// Waits until the trainer's PID 1 is gone, whatever ended it: the kernel releases its lock.
pub(super) fn for_end(run: &Path) -> Result<()> {
    let path = run.join(files::LOCK);
    let failed = |e: std::io::Error| node_fault(format_args!("cannot wait for {}", path.display()), &e);
    let lock = File::open(&path).map_err(failed)?;
    loop {
        match flock(&lock, FlockOperation::LockShared) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e.into())),
        }
    }
}
