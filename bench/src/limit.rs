//! The limit: a bare epoll loop. It strips the PROXY header, opens a connection to the application and passes bytes
//! on, and knows nothing else: what is cheaper than this is cheaper than the kernel's TCP.
//!
//! It copies, one read(2) and one write(2) at a time; or it lets the kernel move the bytes through a pipe, by
//! splice(2), which pays where there are many.

mod pipe;

use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use rustix::net::SocketFlags;

use crate::pending::Pending;
use crate::poll::{Interest, Poll, Ready, would_block};
use pipe::Pipe;

/// The token of the listener. Connections have two each, from 2: the client's side is even.
const LISTENER: usize = 0;

/// Bytes that are copied at once.
const BUFFER: usize = 64 * 1024;

/// The first bytes of a PROXY header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// How bytes are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Copy,
    Splice,
}

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
    pending: Pending,
    /// Bytes for this side go through it, if they are spliced.
    pipe: Option<Pipe>,
    /// Nothing more comes from it.
    has_ended: bool,
}

/// Passes on until the process is ended.
pub(crate) fn run(listener: &TcpListener, application: SocketAddr, way: Way) -> io::Result<()> {
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
                accept(listener, application, way, &poll, &mut pairs, &mut free)?;
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
    way: Way,
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
        let side = |socket| -> io::Result<Side> {
            let pipe = if way == Way::Splice { Some(Pipe::new()?) } else { None };
            Ok(Side { socket, pending: Pending::default(), pipe, has_ended: false })
        };
        let pair = Pair { client: side(client)?, application: side(upstream)?, is_new: true };
        if let Some(place) = pairs.get_mut(slot) {
            *place = Some(pair);
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
        if event.write && !here.is_free() {
            here.flush()?;
            if here.is_free() {
                watch(here, there, poll, token)?;
                watch(there, here, poll, other)?;
            }
        }
        // One that has ended is not read again; only an error brings it here.
        if !event.read || here.has_ended || !there.is_free() {
            return Ok(!(event.read && here.has_ended && there.has_ended));
        }
        let has_header = is_client && std::mem::take(&mut self.is_new);
        let passed = match &mut there.pipe {
            Some(pipe) if !has_header => pipe.carry(&here.socket, &there.socket),
            _ => here.socket.read(buffer).and_then(|length| {
                let bytes = buffer.get(..length).unwrap_or_default();
                let bytes = if has_header { without_proxy_header(bytes) } else { bytes };
                there.pending.write(&there.socket, bytes)?;
                Ok(length)
            }),
        };
        let length = match passed {
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
        if !there.is_free() {
            watch(here, there, poll, token)?;
            watch(there, here, poll, other)?;
        }
        Ok(true)
    }
}

impl Side {
    /// Whether nothing waits for it.
    fn is_free(&self) -> bool {
        self.pending.is_empty() && self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    /// Writes what waits. It is in one of the two: while something waits nothing is read.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) if self.pending.is_empty() => pipe.flush(&self.socket),
            _ => self.pending.flush(&self.socket),
        }
    }
}

fn watch(here: &Side, there: &Side, poll: &Poll, token: usize) -> io::Result<()> {
    let read = !here.has_ended && there.is_free();
    poll.change(&here.socket, token, Interest::of(read, !here.is_free()))
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
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;

    use super::{Way, run, without_proxy_header};
    use crate::heads::proxy_header;

    #[test]
    fn header_of_each_version_is_stripped() {
        for connection in [0, 1] {
            let mut bytes = proxy_header(connection);
            bytes.extend_from_slice(b"GET");
            assert_eq!(without_proxy_header(&bytes), b"GET", "{connection}");
        }
    }

    #[test]
    fn each_way_passes_all_bytes_on_and_the_end() {
        let sent: Vec<u8> = (0..16_u32 << 20).map(|number| number.to_le_bytes()[1]).collect();
        for way in [Way::Copy, Way::Splice] {
            let here = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let (front, application) = (here(), here());
            let (address, upstream) =
                (front.local_addr().unwrap(), application.local_addr().unwrap());
            // It ends with the process.
            thread::spawn(move || run(&front, upstream, way));
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(&proxy_header(1)).unwrap();
            let mut accepted = application.accept().unwrap().0;
            // Nobody reads yet, so that much waits in the loop.
            let (mut writer, all) = (client.try_clone().unwrap(), sent.clone());
            let writing = thread::spawn(move || {
                writer.write_all(&all).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).unwrap();
            writing.join().unwrap();
            assert!(received == sent, "{way:?}");
            accepted.write_all(b"back").unwrap();
            drop(accepted);
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            assert_eq!(back, b"back", "{way:?}");
        }
    }
}
