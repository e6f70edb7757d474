//! Handling of TERM and INT.
//!
//! TERM arrives when the pod is deleted or its node shuts down. A process with PID 1 ignores it unless it handles it. A
//! separate thread waits for the signal, so that no other code has to be interruptible. The thread sets a flag that
//! long loops check. It ends the process if they do not react in time.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use legion_protocol::reason::{StepError, StepReason};

use crate::error::Result;
use crate::report;

static ABANDON: AtomicBool = AtomicBool::new(false);
static MAY_STOP_IMMEDIATELY: AtomicBool = AtomicBool::new(true);

/// Handles TERM and INT from now on. Called before any other thread exists, so that every thread inherits the mask.
/// `message` creates the termination message of an interrupted process. `grace` is the grace period of the pod.
pub(crate) fn handle(grace: Duration, message: impl Fn(&StepError) -> String + Send + 'static) {
    // SAFETY: `sigemptyset` initializes the set before anything reads it, and every pointer is to a live local.
    let set = unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    };
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both pointers are to live locals, and the set is initialized.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        if !MAY_STOP_IMMEDIATELY.load(Ordering::Acquire) {
            report::line("received a termination signal: finishing the current upload");
            std::thread::sleep(grace.mul_f64(0.8));
            ABANDON.store(true, Ordering::Release);
            std::thread::sleep(grace.mul_f64(0.15));
        }
        let error = StepError::new(
            StepReason::Interrupted,
            "the pod was stopped before this step completed",
        );
        report::error(&error);
        report::message(&message(&error));
        std::process::exit(143);
    };
    // A small stack: this thread only sleeps and writes one message.
    let started = std::thread::Builder::new().stack_size(256 << 10).spawn(wait);
    if let Err(e) = started {
        report::line(&format!("cannot handle TERM: {e}"));
    }
}

/// From now on, a signal lets the current work finish within the grace period.
pub(crate) fn prefer_finishing() {
    MAY_STOP_IMMEDIATELY.store(false, Ordering::Release);
}

/// Returns an error after the time to finish has passed.
pub(crate) fn check() -> Result<()> {
    if ABANDON.load(Ordering::Acquire) {
        return Err(StepError::new(
            StepReason::Interrupted,
            "the pod was stopped before the upload completed",
        ));
    }
    Ok(())
}
