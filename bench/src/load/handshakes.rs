//! Handshakes, so many at a time: connect, PROXY header and request, 101, end, and the next one.
//!
//! A connection is over when the proxy has closed it, too, so that all of its work is in the window.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::connection::{connect, expect_status, hello};
use super::{Job, Outcome, Until, Window};
use crate::heads::{self, Path, WEBSOCKET};
use crate::poll::{Interest, Poll, Ready, would_block};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One handshake.
struct Attempt {
    socket: TcpStream,
    answer: Vec<u8>,
    is_open: bool,
}

/// Does the job until its window is over.
pub(super) fn run(job: &Job) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut window = Window::new(job);
    let request = heads::upgrade(Path::Echo, WEBSOCKET);
    let mut left = match job.until {
        Until::Time { .. } => u64::MAX,
        Until::Count(count) => count,
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
        Ok(Some(Attempt { socket, answer: Vec::new(), is_open: false }))
    };
    window.is_over()?;
    let mut attempts = Vec::with_capacity(job.connections);
    for token in 0..job.connections {
        attempts.push(begin(&poll, token)?);
    }
    let mut ready: Vec<Ready> = Vec::new();
    let mut buffer = vec![0; 4096];
    let mut last = Instant::now();
    while !window.is_over()? {
        poll.wait(&mut ready, Some(Duration::from_millis(100)))?;
        if ready.is_empty() && last.elapsed() > PATIENCE {
            return Err(io::Error::other("no handshake was answered for 30 s"));
        }
        if !ready.is_empty() {
            last = Instant::now();
        }
        for event in &ready {
            let Some(place) = attempts.get_mut(event.token) else { continue };
            let Some(attempt) = place else { continue };
            if attempt.advance(&mut buffer)? {
                window.add();
                *place = begin(&poll, event.token)?;
            }
        }
    }
    window.close()
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
            expect_status(&self.answer, 101)?;
        }
        self.answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if !self.is_open && heads::length(&self.answer).is_some() {
            expect_status(&self.answer, 101)?;
            self.is_open = true;
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(false)
    }
}
