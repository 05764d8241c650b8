//! Handshakes, so many at a time: connect, PROXY header and request, 101, end, and the next one.
//!
//! A connection is over when the proxy has closed it, too, so that all of its work is in the window. The same
//! of a client that has had as many as it may, so that each is refused.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::connection::{connect, expect_status, hello, read_head};
use super::{Job, OPEN, Outcome, Until, Window, Work};
use crate::heads::{self, Path, WEBSOCKET};
use crate::poll::{Interest, Poll, Ready, would_block};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One handshake.
struct Attempt {
    socket: TcpStream,
    answer: Vec<u8>,
    is_open: bool,
    /// What it is to be answered with.
    expected: u16,
}

/// Handshakes that are let through before one must be refused.
const MOST_ALLOWED: usize = 2_000;

/// Does the job until its window is over.
pub(super) fn run(job: &Job) -> io::Result<Outcome> {
    let expected = match job.work {
        Work::Refusals | Work::Flood => 429,
        _ => 101,
    };
    if expected == 429 {
        use_up(job)?;
    }
    let mut poll = Poll::new()?;
    let is_flood = matches!(job.work, Work::Flood);
    if is_flood {
        poll.add(io::stdin(), job.connections, Interest::Read)?;
        println!("{OPEN}");
    }
    let mut window = Window::new(job);
    let request = heads::upgrade(Path::Echo, WEBSOCKET);
    let mut left = match job.until {
        Until::Count(count) if !is_flood => count,
        _ => u64::MAX,
    };
    let mut number = 0;
    let mut begin = |poll: &Poll, token: usize| -> io::Result<Option<Attempt>> {
        if left == 0 {
            return Ok(None);
        }
        left -= 1;
        number += 1;
        let mut socket = connect(job)?;
        let mut first = hello(job, number);
        first.extend_from_slice(&request);
        socket.write_all(&first)?;
        socket.set_nonblocking(true)?;
        poll.add(&socket, token, Interest::Read)?;
        Ok(Some(Attempt { socket, answer: Vec::new(), is_open: false, expected }))
    };
    window.is_over()?;
    let mut attempts = Vec::with_capacity(job.connections);
    for token in 0..job.connections {
        attempts.push(begin(&poll, token)?);
    }
    let mut ready: Vec<Ready> = Vec::new();
    let mut buffer = vec![0; 4096];
    let mut last = Instant::now();
    // A flood keeps its core awake.
    let wait = if is_flood { Duration::ZERO } else { Duration::from_millis(100) };
    while !window.is_over()? {
        poll.wait(&mut ready, Some(wait))?;
        if ready.is_empty() && last.elapsed() > PATIENCE {
            return Err(io::Error::other("no handshake was answered for 30 s"));
        }
        if !ready.is_empty() {
            last = Instant::now();
        }
        for event in &ready {
            let Some(place) = attempts.get_mut(event.token) else {
                // Standard input has ended.
                return window.close();
            };
            let Some(attempt) = place else { continue };
            if attempt.advance(&mut buffer)? {
                window.add();
                *place = begin(&poll, event.token)?;
            }
        }
    }
    window.close()
}

/// Makes handshakes, one after the other, until the client has used up what it may.
fn use_up(job: &Job) -> io::Result<()> {
    let request = heads::upgrade(Path::Echo, WEBSOCKET);
    for number in 0..MOST_ALLOWED {
        let mut socket = connect(job)?;
        socket.write_all(&[hello(job, number), request.clone()].concat())?;
        let (answer, _) = read_head(&mut socket)?;
        if expect_status(&answer, 101).is_err() {
            return expect_status(&answer, 429);
        }
    }
    Err(io::Error::other(format!("none of {MOST_ALLOWED} handshakes was refused")))
}

impl Attempt {
    /// True when the connection is over.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let length = match self.socket.read(buffer) {
            Ok(length) => length,
            Err(fault) if would_block(&fault) => return Ok(false),
            Err(fault) => return Err(fault),
        };
        if length == 0 {
            if self.is_open {
                return Ok(true);
            }
            expect_status(&self.answer, self.expected)?;
        }
        self.answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if !self.is_open && heads::length(&self.answer).is_some() {
            expect_status(&self.answer, self.expected)?;
            self.is_open = true;
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(false)
    }
}
