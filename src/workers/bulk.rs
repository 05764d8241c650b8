//! Much payload at once: from socket to socket through a pipe, by splice(2), without a copy.
//!
//! Payload is never looked at, so where much of a frame is still to come, its bytes need not enter the
//! process at all. One pipe serves all tunnels of a thread: it is empty between two calls. What the
//! sink does not take is read out of it and waits as any other bytes do.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::tunnel::Waiting;
use crate::tunnel::flow::{Bulk, Carried};

/// The pipe of a thread.
#[derive(Debug, Default)]
pub(super) struct Pipe(Option<Ends>);

#[derive(Debug)]
struct Ends {
    write: OwnedFd,
    read: OwnedFd,
}

impl Pipe {
    /// What it holds at most, in bytes. With 4 KiB pages half of what an unprivileged process may ask
    /// for (pipe(7)).
    const SIZE: usize = 512 * 1024;

    /// It is made when it is first needed; without a descriptor to be had there is none.
    fn ends(&mut self) -> io::Result<&Ends> {
        if self.0.is_none() {
            let made = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
            let (read, write) = made.map_err(|_| io::ErrorKind::Unsupported)?;
            // A smaller one does, too: it is a matter of speed.
            let _ = fcntl_setpipe_size(&write, Self::SIZE);
            self.0 = Some(Ends { write, read });
        }
        self.0.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// From `from` to `into` through the pipe.
pub(super) struct Splice<'s> {
    pub(super) from: &'s TcpStream,
    pub(super) into: &'s TcpStream,
    pub(super) pipe: &'s RefCell<Pipe>,
}

impl Bulk for Splice<'_> {
    fn carry(&mut self, most: u64, waiting: &mut Waiting) -> io::Result<Carried> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let mut pipe = self.pipe.borrow_mut();
        let Ends { write, read } = pipe.ends()?;
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(MOST);
        let came = splice(self.from, None, write, None, most, flags)?;
        let mut taken = 0;
        while taken < came {
            match splice(read, None, self.into, None, came - taken, flags) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(more) => taken += more,
                Err(Errno::INTR) => {}
                Err(fault) => {
                    // With it goes what is in it.
                    pipe.0 = None;
                    return Ok(Carried { read: came, taken, fault: Some(fault.into()) });
                }
            }
        }
        if taken < came {
            match rest_of(read, came - taken) {
                Ok(rest) => *waiting = rest.into(),
                Err(fault) => {
                    pipe.0 = None;
                    return Err(fault);
                }
            }
        }
        Ok(Carried { read: came, taken, fault: None })
    }
}

/// What one call moves at most, and so what may have to wait.
pub(super) const MOST: usize = 256 * 1024;

/// The `count` bytes that are in the pipe.
fn rest_of(pipe: &OwnedFd, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut rest = bytes.as_mut_slice();
    while !rest.is_empty() {
        match rustix::io::read(pipe, &mut *rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => rest = rest.get_mut(more..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(bytes)
}
