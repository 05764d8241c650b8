//! The limit: a bare epoll copy loop. It strips the PROXY header, opens a connection to the application
//! and copies bytes, and knows nothing else: what is cheaper than this is cheaper than the kernel's TCP.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use rustix::net::SocketFlags;

use crate::poll::{Interest, Poll, Ready, would_block};

/// The token of the listener. Connections have two each, from 2: the client's side is even.
const LISTENER: usize = 0;

/// Bytes that are copied at once.
const BUFFER: usize = 64 * 1024;

/// The first bytes of a PROXY header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// One client and its connection to the application.
struct Pair {
    client: Side,
    application: Side,
    /// The PROXY header was not seen yet.
    is_new: bool,
}

struct Side {
    socket: TcpStream,
    /// Bytes for this side that did not fit. While there are some, the other side is not read.
    pending: Vec<u8>,
    /// Nothing more comes from it.
    has_ended: bool,
}

/// Copies until the process is ended.
pub(crate) fn copy(listener: &TcpListener, application: SocketAddr) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    rustix::net::listen(listener, 4096)?;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, Interest::Read)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        poll.wait(&mut ready, None)?;
        for event in &ready {
            if event.token == LISTENER {
                accept(listener, application, &poll, &mut pairs, &mut free)?;
                continue;
            }
            let slot = event.token / 2 - 1;
            let Some(Some(pair)) = pairs.get_mut(slot) else { continue };
            let goes_on = pair.advance(*event, &poll, &mut buffer).unwrap_or(false);
            if !goes_on && let Some(place) = pairs.get_mut(slot) {
                *place = None;
                free.push(slot);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    application: SocketAddr,
    poll: &Poll,
    pairs: &mut Vec<Option<Pair>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let client = match rustix::net::accept_with(listener, flags) {
            Ok(socket) => TcpStream::from(socket),
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        // On loopback this waits for nobody.
        let upstream = TcpStream::connect(application)?;
        upstream.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        let slot = free.pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        poll.add(&client, 2 * slot + 2, Interest::Read)?;
        poll.add(&upstream, 2 * slot + 3, Interest::Read)?;
        let side = |socket| Side { socket, pending: Vec::new(), has_ended: false };
        if let Some(place) = pairs.get_mut(slot) {
            *place = Some(Pair { client: side(client), application: side(upstream), is_new: true });
        }
    }
}

impl Pair {
    /// False when both sides have ended.
    fn advance(&mut self, event: Ready, poll: &Poll, buffer: &mut [u8]) -> io::Result<bool> {
        let is_client = event.token.is_multiple_of(2);
        let (token, other) = (event.token, event.token ^ 1);
        let (here, there) = if is_client {
            (&mut self.client, &mut self.application)
        } else {
            (&mut self.application, &mut self.client)
        };
        if event.write && !here.pending.is_empty() {
            let length = here.write_pending()?;
            here.pending.drain(..length);
            if here.pending.is_empty() {
                watch(here, there, poll, token)?;
                watch(there, here, poll, other)?;
            }
        }
        // One that has ended is not read again; only an error brings it here.
        if !event.read || here.has_ended || !there.pending.is_empty() {
            return Ok(!(event.read && here.has_ended && there.has_ended));
        }
        let length = match here.socket.read(buffer) {
            Ok(length) => length,
            Err(fault) if would_block(&fault) => return Ok(true),
            Err(fault) => return Err(fault),
        };
        if length == 0 {
            here.has_ended = true;
            if there.has_ended {
                return Ok(false);
            }
            watch(here, there, poll, token)?;
            there.socket.shutdown(Shutdown::Write)?;
            return Ok(true);
        }
        let mut bytes = buffer.get(..length).unwrap_or_default();
        if is_client && self.is_new {
            self.is_new = false;
            bytes = without_proxy_header(bytes);
        }
        let sent = match there.socket.write(bytes) {
            Ok(sent) => sent,
            Err(fault) if would_block(&fault) => 0,
            Err(fault) => return Err(fault),
        };
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            there.pending.extend_from_slice(rest);
            watch(here, there, poll, token)?;
            watch(there, here, poll, other)?;
        }
        Ok(true)
    }
}

impl Side {
    fn write_pending(&mut self) -> io::Result<usize> {
        match self.socket.write(&self.pending) {
            Err(fault) if would_block(&fault) => Ok(0),
            written => written,
        }
    }
}

fn watch(here: &Side, there: &Side, poll: &Poll, token: usize) -> io::Result<()> {
    let read = !here.has_ended && there.pending.is_empty();
    poll.change(&here.socket, token, Interest::of(read, !here.pending.is_empty()))
}

/// What is behind the header. The load sends it in one piece, and always sends one.
fn without_proxy_header(bytes: &[u8]) -> &[u8] {
    let end = if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        let length = rest.get(2..4).and_then(|length| length.try_into().ok());
        16 + usize::from(u16::from_be_bytes(length.unwrap_or_default()))
    } else {
        bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)
    };
    bytes.get(end..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::without_proxy_header;
    use crate::heads::proxy_header;

    #[test]
    fn header_of_each_version_is_stripped() {
        for connection in [0, 1] {
            let mut bytes = proxy_header(connection);
            bytes.extend_from_slice(b"GET");
            assert_eq!(without_proxy_header(&bytes), b"GET", "{connection}");
        }
    }
}
