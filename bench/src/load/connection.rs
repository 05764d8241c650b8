//! Connections of the load: opened one after the other in small groups, then ready for traffic.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::{Job, Work};
use crate::frames::Follower;
use crate::heads::{self, Path};
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
    pub(super) pending: Vec<u8>,
}

/// Opens the job's connections: with an upgrade to `protocol` and a 101, or without any request.
pub(super) fn open(job: &Job, upgrade: Option<(Path, &str)>) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(job.connections);
    while connections.len() < job.connections {
        let first = connections.len();
        for number in first..job.connections.min(first + GROUP) {
            let mut hello = hello(job, number);
            if let Some((path, protocol)) = upgrade {
                hello.extend(heads::upgrade(path, protocol));
            }
            let mut socket = connect(job)?;
            // Without a request the header goes out with the first one: one segment, as balancers do.
            let pending = if upgrade.is_some() {
                socket.write_all(&hello)?;
                Vec::new()
            } else {
                hello
            };
            let follower = Follower::default();
            connections.push(Connection { socket, follower, early: Vec::new(), pending });
        }
        for connection in connections.iter_mut().skip(first) {
            if upgrade.is_some() {
                connection.early = read_101(&mut connection.socket)?;
            }
            connection.socket.set_nonblocking(true)?;
        }
    }
    Ok(connections)
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
        Work::Refusals | Work::Flood => heads::proxy_header_of(8, number),
        _ => heads::proxy_header(number),
    }
}

/// Reads a 101 and returns what came behind it.
fn read_101(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = match socket.read(&mut buffer) {
            Ok(0) => return Err(refused(&bytes)),
            Ok(length) => length,
            Err(fault) if would_block(&fault) => {
                return Err(io::Error::other("a handshake was not answered in 30 s"));
            }
            Err(fault) => return Err(fault),
        };
        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Some(end) = heads::length(&bytes) {
            expect_status(&bytes, 101)?;
            return Ok(bytes.split_off(end));
        }
    }
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
    /// Sends `message` as far as it goes now. Nothing else may be pending.
    pub(super) fn send(&mut self, message: &[u8], poll: &Poll, token: usize) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(message);
            return Ok(());
        }
        let sent = match self.socket.write(message) {
            Ok(sent) => sent,
            Err(fault) if would_block(&fault) => 0,
            Err(fault) => return Err(fault),
        };
        if let Some(rest) = message.get(sent..).filter(|rest| !rest.is_empty()) {
            self.pending.extend_from_slice(rest);
            poll.change(&self.socket, token, Interest::ReadWrite)?;
        }
        Ok(())
    }

    /// Sends what is pending.
    pub(super) fn flush(&mut self, poll: &Poll, token: usize) -> io::Result<()> {
        match self.socket.write(&self.pending) {
            Ok(sent) => drop(self.pending.drain(..sent)),
            Err(fault) if would_block(&fault) => {}
            Err(fault) => return Err(fault),
        }
        if self.pending.is_empty() {
            poll.change(&self.socket, token, Interest::Read)?;
        }
        Ok(())
    }
}
