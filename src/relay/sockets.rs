//! How bytes get out of a socket and into it: by the kernel's calls, or in memory where a test says so.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::net::{SendFlags, send};

use super::bulk::{Bulk, Pipe, Splice};
use super::direction::EndWrite;
use crate::end::Side;

/// How bytes get out of a socket and into it. A tunnel's state needs none to be tried: a schedule of
/// reads and writes in memory does (`relay/schedule.rs`).
pub(super) trait Sockets {
    type Reached<'s>: Read + EndWrite
    where
        Self: 's;

    /// A way for much payload.
    type Way<'s>: Bulk
    where
        Self: 's;

    fn reach<'s>(&'s self, side: Side, socket: &'s TcpStream) -> Self::Reached<'s>;

    fn way<'s>(&'s self, from: (Side, &'s TcpStream), into: (Side, &'s TcpStream))
    -> Self::Way<'s>;
}

/// The kernel's. One is shared by all tunnels of a thread.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pipe: RefCell<Pipe>,
}

impl Sockets for Kernel {
    type Reached<'s> = Socket<'s>;
    type Way<'s> = Splice<'s>;

    #[inline]
    fn reach<'s>(&'s self, _: Side, socket: &'s TcpStream) -> Socket<'s> {
        Socket(socket)
    }

    #[inline]
    fn way<'s>(&'s self, from: (Side, &'s TcpStream), into: (Side, &'s TcpStream)) -> Splice<'s> {
        Splice { from: from.1, into: into.1, pipe: &self.pipe }
    }
}

/// A socket by bare system calls. The C library's `recv` and `send`, which std takes, are points of
/// cancellation: with threads they cost half as many instructions again as all else per message.
pub(super) struct Socket<'s>(&'s TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, buffer)?)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EndWrite for Socket<'_> {
    fn end(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}
