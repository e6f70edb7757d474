//! One output stream of the command on its way to the container's own.

use std::io::{PipeReader, Stderr, Stdout};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// Bytes of one read: the usual capacity of a pipe.
const CHUNK: usize = 64 * 1024;
/// Bytes that can be written to a pipe which polls as writable without blocking (PIPE_BUF). The descriptor itself is
/// left in blocking mode: that mode is shared with all other processes that have it open.
const WRITABLE: usize = 4096;

/// One output stream.
#[derive(Debug)]
pub(crate) struct Stream {
    source: Option<PipeReader>,
    target: Option<Target>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Where a stream goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// The container's stdout.
    Out(Stdout),
    /// The container's stderr.
    Err(Stderr),
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Out(out) => out.as_fd(),
            Self::Err(err) => err.as_fd(),
        }
    }
}

impl Stream {
    /// A stream from a pipe. The pipe's read end becomes non-blocking.
    pub(crate) fn new(source: PipeReader, target: Target) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&source, true)?;
        let buffer = vec![0; CHUNK].into_boxed_slice();
        Ok(Self {
            source: Some(source),
            target: Some(target),
            buffer,
            start: 0,
            end: 0,
        })
    }

    /// What to wait for: room to write while there is something to write, else something to read. Not reading before
    /// the last chunk is written passes a slow reader's pressure on to the command, as without anything in between.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        if self.has_pending() {
            return self.target.as_ref().map(|target| PollFd::new(target, PollFlags::OUT));
        }
        self.source.as_ref().map(|source| PollFd::new(source, PollFlags::IN))
    }

    /// Whether something was read that is not written yet.
    pub(crate) fn has_pending(&self) -> bool {
        self.start < self.end
    }

    /// Bytes that wait in the pipe.
    pub(crate) fn waiting(&self) -> u64 {
        self.source
            .as_ref()
            .and_then(|source| rustix::io::ioctl_fionread(source).ok())
            .unwrap_or(0)
    }

    /// Reads the next chunk and gives it for the log. Nothing when there is none now; the end of the stream closes it.
    pub(crate) fn read(&mut self) -> Option<&[u8]> {
        let source = self.source.as_ref().filter(|_| self.start == self.end)?;
        match rustix::io::read(source, &mut self.buffer[..]) {
            Ok(0) => self.source = None,
            Ok(n) => {
                // Without a reader the output still goes into the log.
                (self.start, self.end) = (if self.target.is_some() { 0 } else { n }, n);
                return Some(&self.buffer[..n]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.source = None,
        }
        None
    }

    /// Writes as much as goes without blocking, once the target polled as writable.
    pub(crate) fn write(&mut self) {
        let Some(target) = &self.target else { return };
        let end = self.end.min(self.start + WRITABLE);
        match rustix::io::write(target, &self.buffer[self.start..end]) {
            Ok(n) => self.start += n,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // No reader is left (EPIPE). This does not disturb the command.
            Err(_) => {
                self.target = None;
                self.start = self.end;
            }
        }
    }
}
