//! The application: an epoll WebSocket echo and push server, and pages for plain HTTP.
//!
//! One thread that does as little as it can, so that it is not what is measured: one read(2) and one
//! write(2) a message, no unmasking (`frames`), no SHA-1 (`heads`). Bytes that nobody looks at have a thread of their
//! own for each connection, which runs when its core has nothing else to do.

use std::io::{self, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::frames::{self, Follower, Part, Sender};
use crate::heads::{self, LARGE, PAGE, Path};
use crate::pending::Pending;
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
    pending: Pending,
    /// It ends when nothing is pending.
    is_over: bool,
}

enum Phase {
    /// A request's head, as far as it came.
    Head(Vec<u8>),
    /// A request's body, of which so many bytes are to come.
    Body(usize),
    /// Frames.
    Frames { follower: Follower, is_pushed: bool },
    /// Bytes of an upgrade to something else. They come back as they are.
    Bytes,
    /// Bytes that nobody looks at: it goes to a thread of its own.
    Sink,
}

/// The responses to plain requests.
struct Responses {
    page: Vec<u8>,
    large: Vec<u8>,
    /// To a body.
    taken: Vec<u8>,
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
        responses: Responses {
            page: heads::response(PAGE),
            large: heads::response(LARGE),
            taken: heads::response(2),
        },
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
    responses: Responses,
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
                pending: Pending::default(),
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
            alive = connection.read(buffer, &self.responses, &mut self.out).and_then(|read| {
                let out = match read {
                    Read::End => return Ok(false),
                    Read::Answer => &self.out,
                    Read::Response(response) => response,
                };
                connection.write(out, &self.poll, event.token)?;
                Ok(true)
            });
            self.out.clear();
        }
        if !matches!(alive, Ok(true)) {
            // Closing the socket takes it out of epoll.
            self.release(slot);
        } else if matches!(connection.phase, Phase::Sink) && connection.pending.is_empty() {
            self.sink(slot);
        }
    }

    /// Has a thread of its own read what comes on a connection: whoever is measured on this core does not wait for
    /// that.
    fn sink(&mut self, slot: usize) {
        let connection = self.connections.get_mut(slot).and_then(Option::take);
        self.free.push(slot);
        let Some(Connection { socket, .. }) = connection else { return };
        if self.poll.remove(&socket).is_ok() {
            // It ends with the connection.
            thread::spawn(move || {
                if let Err(fault) = read_last(&socket) {
                    eprintln!("bench: what nobody looks at cannot be read: {fault}");
                }
            });
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

/// Reads a connection to its end, when its core has nothing else to do. What nobody looks at is not even copied
/// (`MSG_TRUNC` of tcp(7)).
fn read_last(socket: &TcpStream) -> io::Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    if !Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status()?.success() {
        return Err(io::Error::other("chrt(1) failed"));
    }
    socket.set_nonblocking(false)?;
    // Little at once: whoever is measured does not wait long for one call.
    let mut buffer = vec![0; 16 * 1024];
    while recv(socket, buffer.as_mut_slice(), RecvFlags::TRUNC)?.1 > 0 {}
    Ok(())
}

/// What one read leads to.
enum Read<'a> {
    /// The connection is over.
    End,
    /// What is in the buffer for answers goes out; it may be nothing.
    Answer,
    /// This goes out.
    Response(&'a [u8]),
}

impl Connection {
    /// Reads once. What is to be answered is put into `out`, or is one of the responses.
    fn read<'a>(
        &mut self,
        buffer: &mut [u8],
        responses: &'a Responses,
        out: &mut Vec<u8>,
    ) -> io::Result<Read<'a>> {
        let length = match self.socket.read(buffer) {
            Ok(0) => return Ok(Read::End),
            Ok(length) => length,
            Err(fault) if would_block(&fault) => return Ok(Read::Answer),
            Err(fault) => return Err(fault),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        match &mut self.phase {
            Phase::Sink => {}
            Phase::Bytes => out.extend_from_slice(bytes),
            Phase::Head(head) => {
                head.extend_from_slice(bytes);
                let Some(end) = heads::length(head) else {
                    return Ok(if head.len() < MAX_HEAD { Read::Answer } else { Read::End });
                };
                // No request follows before its answer, and no frame before the 101: what is behind
                // the head is of its body.
                let body = head.len() - end;
                let request = heads::request(head.get(..end).unwrap_or_default());
                return Ok(self.begin(request, body, responses, out));
            }
            Phase::Body(left) => {
                *left = left.saturating_sub(length);
                if *left == 0 {
                    self.phase = Phase::Head(Vec::new());
                    return Ok(Read::Response(&responses.taken));
                }
            }
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
        Ok(Read::Answer)
    }

    /// A request is there, and so many bytes of its body.
    fn begin<'a>(
        &mut self,
        request: Option<heads::Request>,
        body: usize,
        responses: &'a Responses,
        out: &mut Vec<u8>,
    ) -> Read<'a> {
        let Some(request) = request else {
            self.is_over = true;
            return Read::Response(heads::BAD_REQUEST);
        };
        if let Some(protocol) = request.upgrade {
            out.extend(heads::switching(&protocol));
            self.phase = match request.path {
                Path::Sink => Phase::Sink,
                _ if !protocol.eq_ignore_ascii_case(heads::WEBSOCKET) => Phase::Bytes,
                path => {
                    Phase::Frames { follower: Follower::default(), is_pushed: path == Path::Push }
                }
            };
            return Read::Answer;
        }
        let left = request.body.saturating_sub(body);
        self.phase = if left > 0 { Phase::Body(left) } else { Phase::Head(Vec::new()) };
        match request.path {
            Path::Upload if left > 0 => Read::Answer,
            Path::Upload => Read::Response(&responses.taken),
            Path::Client => {
                out.extend(heads::response_with(request.client.unwrap_or_default().as_bytes()));
                Read::Answer
            }
            Path::LargePage => Read::Response(&responses.large),
            _ => Read::Response(&responses.page),
        }
    }

    /// Writes `bytes`, behind what is pending.
    fn write(&mut self, bytes: &[u8], poll: &Poll, token: usize) -> io::Result<()> {
        let was_empty = self.pending.is_empty();
        self.pending.write(&self.socket, bytes)?;
        if was_empty && !self.pending.is_empty() {
            // Nothing is read while something waits: who does not read slows only itself.
            poll.change(&self.socket, token, Interest::Write)?;
        }
        self.end_if_over()
    }

    /// Writes what is pending.
    fn flush(&mut self, poll: &Poll, token: usize) -> io::Result<bool> {
        self.pending.flush(&self.socket)?;
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
