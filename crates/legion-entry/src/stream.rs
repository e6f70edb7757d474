//! Copies one output stream of the command to the output of the container.

use std::io::{PipeReader, Stderr, Stdout};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// Bytes of one read: the default capacity of a pipe.
const CHUNK: usize = 64 * 1024;
/// Bytes that a pipe accepts without blocking once it polls as writable (PIPE_BUF). The descriptor itself stays in
/// blocking mode, because all processes that have it open share that mode.
const WRITABLE: usize = 4096;

/// One output stream of the command, with the bytes that were read and not written yet.
#[derive(Debug)]
pub(crate) struct OutputStream {
    source: Option<PipeReader>,
    target: Option<ContainerOutput>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// The output of the container that receives a stream.
#[derive(Debug)]
pub(crate) enum ContainerOutput {
    Out(Stdout),
    Err(Stderr),
}

impl AsFd for ContainerOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Out(out) => out.as_fd(),
            Self::Err(err) => err.as_fd(),
        }
    }
}

impl OutputStream {
    /// Creates a stream from a pipe, and makes the read end of the pipe non-blocking.
    pub(crate) fn new(source: PipeReader, target: ContainerOutput) -> std::io::Result<Self> {
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

    /// Returns what to poll for: room to write while bytes are pending, otherwise bytes to read. Nothing is read while
    /// bytes are pending, so a slow reader of the container's output slows the command down, as a direct pipe would.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        if self.has_pending() {
            return self.target.as_ref().map(|target| PollFd::new(target, PollFlags::OUT));
        }
        self.source.as_ref().map(|source| PollFd::new(source, PollFlags::IN))
    }

    /// Returns whether bytes were read that are not written yet.
    pub(crate) fn has_pending(&self) -> bool {
        self.start < self.end
    }

    /// Returns the number of bytes in the pipe.
    pub(crate) fn waiting(&self) -> u64 {
        self.source
            .as_ref()
            .and_then(|source| rustix::io::ioctl_fionread(source).ok())
            .unwrap_or(0)
    }

    /// Reads the next chunk and returns it for the log, or `None` if there is none now. Closes the pipe at its end.
    pub(crate) fn read(&mut self) -> Option<&[u8]> {
        let source = self.source.as_ref().filter(|_| self.start == self.end)?;
        match rustix::io::read(source, &mut self.buffer[..]) {
            Ok(0) => self.source = None,
            Ok(n) => {
                // If the output has no reader, the log still receives the chunk.
                (self.start, self.end) = (if self.target.is_some() { 0 } else { n }, n);
                return Some(&self.buffer[..n]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.source = None,
        }
        None
    }

    /// Writes as much as possible without blocking. Call it when the target polls as writable.
    pub(crate) fn write(&mut self) {
        let Some(target) = &self.target else { return };
        let end = self.end.min(self.start + WRITABLE);
        match rustix::io::write(target, &self.buffer[self.start..end]) {
            Ok(n) => self.start += n,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // There is no reader anymore (EPIPE). The command continues.
            Err(_) => {
                self.target = None;
                self.start = self.end;
            }
        }
    }
}
