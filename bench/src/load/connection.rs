//! Connections of the load: opened one after the other in small groups, then ready for traffic.

use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::{Job, Work};
use crate::frames::Follower;
use crate::heads::{self, Path};
use crate::pending::Pending;
use crate::poll::{Interest, Poll, would_block};

/// How many are opened at once: few enough for any listener's backlog.
const GROUP: usize = 64;

/// How long a handshake may take: long enough for a proxy under valgrind.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) follower: Follower,
    /// What came behind the 101.
    pub(super) early: Vec<u8>,
    /// What is to be sent first: what did not fit, or the PROXY header in front of the first request.
    pub(super) pending: Pending,
}

/// How a connection is opened.
#[derive(Clone, Copy)]
pub(super) enum Opening<'a> {
    /// With an upgrade to a protocol, and a 101.
    Upgrade(Path, &'a str),
    /// With a request for a page, and the whole response.
    Request,
    /// Without a request. The PROXY header goes out with the first one: one segment, as balancers do.
    Bare,
}

/// Opens the job's connections.
pub(super) fn open(job: &Job, opening: Opening<'_>) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(job.connections);
    while connections.len() < job.connections {
        let first = connections.len();
        for number in first..job.connections.min(first + GROUP) {
            connections.push(begin(job, number, opening)?);
        }
        for connection in connections.iter_mut().skip(first) {
            finish(connection, opening)?;
        }
    }
    Ok(connections)
}

/// Opens one of them, by its number.
pub(super) fn open_one(job: &Job, number: usize, opening: Opening<'_>) -> io::Result<Connection> {
    let mut connection = begin(job, number, opening)?;
    finish(&mut connection, opening)?;
    Ok(connection)
}

/// Reads what comes of its first bytes.
fn finish(connection: &mut Connection, opening: Opening<'_>) -> io::Result<()> {
    let socket = &mut connection.socket;
    match opening {
        Opening::Upgrade(..) => {
            let (head, early) = read_head(socket)?;
            expect_status(&head, 101)?;
            connection.early = early;
        }
        Opening::Request => drop(read_response(socket)?),
        Opening::Bare => {}
    }
    socket.set_nonblocking(true)
}

/// A connection on which the first bytes are out.
fn begin(job: &Job, number: usize, opening: Opening<'_>) -> io::Result<Connection> {
    let hello = hello(job, number);
    let mut socket = connect(job)?;
    let mut pending = Pending::default();
    match opening {
        Opening::Upgrade(path, protocol) => {
            socket.write_all(&[hello, heads::upgrade(path, protocol)].concat())?;
        }
        Opening::Request => socket.write_all(&[hello, heads::get(Path::Page)].concat())?,
        Opening::Bare => pending = Pending::of(hello),
    }
    Ok(Connection { socket, follower: Follower::default(), early: Vec::new(), pending })
}

/// A connected socket.
pub(super) fn connect(job: &Job) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(job.address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// What a connection begins with, if anything.
pub(super) fn hello(job: &Job, number: usize) -> Vec<u8> {
    match job.work {
        _ if !job.proxy_header => Vec::new(),
        Work::Refusals | Work::Flood | Work::Frames(_) => heads::proxy_header_of(8, number),
        _ => heads::proxy_header(number),
    }
}

/// Reads a response's head, and returns it and what came behind it.
pub(super) fn read_head(socket: &mut impl Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = match socket.read(&mut buffer) {
            Ok(0) => return Err(refused(&bytes)),
            Ok(length) => length,
            Err(fault) if would_block(&fault) => {
                return Err(io::Error::other("a request was not answered in time"));
            }
            Err(fault) => return Err(fault),
        };
        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Some(end) = heads::length(&bytes) {
            let behind = bytes.split_off(end);
            return Ok((bytes, behind));
        }
    }
}

/// Reads a whole response of status 200, and returns its body.
pub(crate) fn read_response(socket: &mut impl Read) -> io::Result<Vec<u8>> {
    let (head, mut body) = read_head(socket)?;
    expect_status(&head, 200)?;
    let length = heads::status(&head).map_or(0, |(_, length)| length);
    let begun = body.len();
    body.resize(length, 0);
    socket.read_exact(body.get_mut(begun..).unwrap_or_default())?;
    Ok(body)
}

/// Fails unless a response has this status.
pub(super) fn expect_status(head: &[u8], status: u16) -> io::Result<()> {
    match heads::status(head) {
        Some((found, _)) if found == status => Ok(()),
        _ => Err(refused(head)),
    }
}

fn refused(answer: &[u8]) -> io::Error {
    let line = String::from_utf8_lossy(answer);
    let line = line.lines().next().unwrap_or_default();
    io::Error::other(if line.is_empty() {
        "a connection was closed before it was answered".to_owned()
    } else {
        format!("a request was answered with `{line}`")
    })
}

impl Connection {
    /// Sends `message`, behind what is pending, as far as it goes now.
    pub(super) fn send(&mut self, message: &[u8], poll: &Poll, token: usize) -> io::Result<()> {
        let was_empty = self.pending.is_empty();
        self.pending.write(&self.socket, message)?;
        if was_empty && !self.pending.is_empty() {
            poll.change(&self.socket, token, Interest::ReadWrite)?;
        }
        Ok(())
    }

    /// Sends what is pending.
    pub(super) fn flush(&mut self, poll: &Poll, token: usize) -> io::Result<()> {
        self.pending.flush(&self.socket)?;
        if self.pending.is_empty() {
            poll.change(&self.socket, token, Interest::Read)?;
        }
        Ok(())
    }
}
