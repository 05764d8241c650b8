//! How bytes get out of a socket and into it: by the kernel's calls.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::net::{SendFlags, send};

use super::bulk::{Pipe, Splice};
use crate::tunnel::flow::EndWrite;
use crate::tunnel::{Pair, Peer, Transports};

/// The kernel's calls. One is shared by all tunnels of a thread.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pipe: RefCell<Pipe>,
}

/// The sockets of one tunnel.
pub(super) struct KernelSockets<'s> {
    pub(super) sockets: Pair<&'s TcpStream>,
    pub(super) kernel: &'s Kernel,
}

impl Transports for KernelSockets<'_> {
    type Transport<'t>
        = Socket<'t>
    where
        Self: 't;
    type Bulk<'t>
        = Splice<'t>
    where
        Self: 't;

    #[inline]
    fn of(&self, peer: Peer) -> Socket<'_> {
        Socket(self.sockets[peer])
    }

    #[inline]
    fn bulk(&self, from: Peer) -> Splice<'_> {
        let (from, into) = (self.sockets[from], self.sockets[from.other()]);
        Splice { from, into, pipe: &self.kernel.pipe }
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
