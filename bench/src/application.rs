//! The application: an epoll WebSocket echo and push server, and a page for plain HTTP.
//!
//! One thread that does as little as it can, so that it is not what is measured: one read(2) and one
//! write(2) a message, no unmasking (`frames`), no SHA-1 (`heads`).

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::frames::{self, Follower, Part, Sender};
use crate::heads::{self, Path};
use crate::poll::{Interest, Poll, Ready, would_block};

/// The token of the listener; connections have those from 1.
const LISTENER: usize = 0;

/// Payload of a pushed message, and how often there is one for each connection.
const PUSHED: usize = 64;
const PUSH_EVERY: Duration = Duration::from_secs(1);

/// As long a head as we take.
const MAX_HEAD: usize = 8 * 1024;

/// One connection.
struct Connection {
    socket: TcpStream,
    phase: Phase,
    /// What did not fit into the socket yet.
    pending: Vec<u8>,
    /// It ends when that is out.
    is_over: bool,
}

enum Phase {
    /// A request's head, as far as it came.
    Head(Vec<u8>),
    /// Frames.
    Frames { follower: Follower, is_pushed: bool },
    /// Bytes of an upgrade to something else. They come back as they are.
    Bytes,
}

/// Serves `listener` until the process is ended.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    rustix::net::listen(listener, 4096)?;
    let poll = Poll::new()?;
    poll.add(listener, LISTENER, Interest::Read)?;
    let mut application = Application {
        poll,
        connections: Vec::new(),
        free: Vec::new(),
        page: heads::page(),
        out: Vec::new(),
    };
    let pushed = frames::frame(Sender::Application, frames::BINARY, &[b'p'; PUSHED]);
    let mut buffer = vec![0; 256 * 1024];
    let mut ready: Vec<Ready> = Vec::new();
    let mut next_push = Instant::now() + PUSH_EVERY;
    loop {
        let until = next_push.saturating_duration_since(Instant::now());
        application.poll.wait(&mut ready, Some(until))?;
        for event in &ready {
            if event.token == LISTENER {
                application.accept(listener)?;
            } else {
                application.advance(*event, &mut buffer);
            }
        }
        if Instant::now() >= next_push {
            next_push += PUSH_EVERY;
            application.push(&pushed);
        }
    }
}

struct Application {
    poll: Poll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    page: Vec<u8>,
    /// What a connection answers; empty between two.
    out: Vec<u8>,
}

impl Application {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(fault) if would_block(&fault) => return Ok(()),
                Err(fault) if fault.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(fault) => return Err(fault),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll.add(&socket, slot + 1, Interest::Read)?;
            let connection = Connection {
                socket,
                phase: Phase::Head(Vec::new()),
                pending: Vec::new(),
                is_over: false,
            };
            if let Some(place) = self.connections.get_mut(slot) {
                *place = Some(connection);
            }
        }
    }

    fn advance(&mut self, event: Ready, buffer: &mut [u8]) {
        let slot = event.token - 1;
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        let mut alive = Ok(true);
        if event.write && !connection.pending.is_empty() {
            alive = connection.flush(&self.poll, event.token);
        } else if event.read {
            alive = connection.read(buffer, &self.page, &mut self.out).and_then(|goes_on| {
                connection.write(&self.out, &self.poll, event.token)?;
                Ok(goes_on)
            });
            self.out.clear();
        }
        if !matches!(alive, Ok(true)) {
            // Closing the socket takes it out of epoll.
            self.release(slot);
        }
    }

    fn release(&mut self, slot: usize) {
        if let Some(place) = self.connections.get_mut(slot) {
            *place = None;
            self.free.push(slot);
        }
    }

    fn push(&mut self, message: &[u8]) {
        for (slot, place) in self.connections.iter_mut().enumerate() {
            let Some(connection) = place else { continue };
            let is_pushed = matches!(connection.phase, Phase::Frames { is_pushed: true, .. });
            if is_pushed && connection.write(message, &self.poll, slot + 1).is_err() {
                *place = None;
                self.free.push(slot);
            }
        }
    }
}

impl Connection {
    /// Reads once and puts the answer into `out`. False when the connection is over.
    fn read(&mut self, buffer: &mut [u8], page: &[u8], out: &mut Vec<u8>) -> io::Result<bool> {
        let length = match self.socket.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => length,
            Err(fault) if would_block(&fault) => return Ok(true),
            Err(fault) => return Err(fault),
        };
        let mut bytes = buffer.get(..length).unwrap_or_default();
        if let Phase::Head(head) = &mut self.phase {
            head.extend_from_slice(bytes);
            let Some(end) = heads::length(head) else {
                return Ok(head.len() < MAX_HEAD);
            };
            // No request follows before its answer, and no frame before the 101.
            bytes = &[];
            match answer(head.get(..end).unwrap_or_default(), page, out) {
                Some(phase) => self.phase = phase,
                None => self.is_over = true,
            }
        }
        match &mut self.phase {
            Phase::Head(_) => {}
            Phase::Bytes => out.extend_from_slice(bytes),
            Phase::Frames { follower, .. } => {
                let is_over = &mut self.is_over;
                follower.feed(bytes, |part| match part {
                    Part::Begin(length) => {
                        frames::put_head(out, Sender::Application, frames::BINARY, length);
                    }
                    Part::Payload(payload) => out.extend_from_slice(payload),
                    Part::Control(frames::PING, payload) => {
                        out.extend(frames::frame(Sender::Application, frames::PONG, payload));
                    }
                    Part::Control(frames::CLOSE, payload) => {
                        out.extend(frames::frame(Sender::Application, frames::CLOSE, payload));
                        *is_over = true;
                    }
                    Part::End | Part::Control(..) => {}
                });
            }
        }
        Ok(true)
    }

    /// Writes `bytes`, behind what is pending.
    fn write(&mut self, bytes: &[u8], poll: &Poll, token: usize) -> io::Result<()> {
        let mut rest = bytes;
        if self.pending.is_empty() && !rest.is_empty() {
            let length = match self.socket.write(rest) {
                Ok(length) => length,
                Err(fault) if would_block(&fault) => 0,
                Err(fault) => return Err(fault),
            };
            rest = rest.get(length..).unwrap_or_default();
            if !rest.is_empty() {
                // Nothing is read while something waits: who does not read slows only itself.
                poll.change(&self.socket, token, Interest::Write)?;
            }
        }
        self.pending.extend_from_slice(rest);
        self.end_if_over()
    }

    /// Writes what is pending.
    fn flush(&mut self, poll: &Poll, token: usize) -> io::Result<bool> {
        match self.socket.write(&self.pending) {
            Ok(length) => drop(self.pending.drain(..length)),
            Err(fault) if would_block(&fault) => {}
            Err(fault) => return Err(fault),
        }
        if self.pending.is_empty() {
            poll.change(&self.socket, token, Interest::Read)?;
            self.end_if_over()?;
        }
        Ok(true)
    }

    /// Says that no more comes. The connection goes when the other side says so, too.
    fn end_if_over(&mut self) -> io::Result<()> {
        if self.is_over && self.pending.is_empty() {
            self.is_over = false;
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

/// Answers a request; the phase that follows, or none if the connection is to end.
fn answer(head: &[u8], page: &[u8], out: &mut Vec<u8>) -> Option<Phase> {
    match heads::asked(head) {
        Some((Path::Page, None)) => {
            out.extend_from_slice(page);
            Some(Phase::Head(Vec::new()))
        }
        Some((path, Some(protocol))) => {
            out.extend(heads::switching(&protocol));
            Some(if protocol.eq_ignore_ascii_case(heads::WEBSOCKET) {
                Phase::Frames { follower: Follower::default(), is_pushed: path == Path::Push }
            } else {
                Phase::Bytes
            })
        }
        _ => {
            out.extend_from_slice(heads::BAD_REQUEST);
            None
        }
    }
}
