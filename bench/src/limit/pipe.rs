//! A pipe between two sockets, through which the kernel moves bytes without a copy: splice(2).

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Bytes that it has room for, and that are moved at once: what an unprivileged process may have (pipe(7)).
const SIZE: usize = 1024 * 1024;

pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes that are in it.
    held: usize,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&write, SIZE)?;
        Ok(Self { read, write, held: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes what `from` has, which is returned, and gives it to `to`; what that does not take stays here. It must be
    /// empty.
    pub(super) fn carry(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<usize> {
        self.held = splice(from, None, &self.write, None, SIZE, SpliceFlags::NONBLOCK)?;
        let length = self.held;
        self.flush(to)?;
        Ok(length)
    }

    /// Gives what is here to `to`, as far as it takes it.
    pub(super) fn flush(&mut self, to: &TcpStream) -> io::Result<()> {
        while self.held > 0 {
            match splice(&self.read, None, to, None, self.held, SpliceFlags::NONBLOCK) {
                Ok(length) => self.held -= length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }
}
