//! Connections that are held open: Pings are answered, Closes answered and noted.
//!
//! When all are open a line is written to standard output; when standard input ends, or all
//! connections have, they are closed. Whoever started us measures meanwhile.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::connection::{self, Connection, Opening};
use super::{Job, Outcome, Work};
use crate::frames::{self, Part, Sender};
use crate::heads::{self, Path, WEBSOCKET};
use crate::poll::{Interest, Poll, Ready, would_block};

/// How they are opened.
const OPENING: Opening<'static> = Opening::Upgrade(Path::Echo, WEBSOCKET);

/// The token of standard input. Connections have those from 1.
const INPUT: usize = 0;

/// The line that says that all connections are open.
pub(crate) const OPEN: &str = "open";

/// How long the proxy has to close its side of all connections.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does the job until it is told to end.
pub(super) fn run(job: &Job) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut held = Vec::with_capacity(job.connections);
    let mut outcome = Outcome::default();
    let opened = connection::open(job, OPENING)?;
    for (number, mut connection) in opened.into_iter().enumerate() {
        poll.add(&connection.socket, number + 1, Interest::Read)?;
        let early = mem::take(&mut connection.early);
        let answer = take(&mut connection, &early, &mut outcome);
        connection.socket.write_all(&answer)?;
        held.push(Some(connection));
    }
    println!("{OPEN}");
    poll.add(io::stdin(), INPUT, Interest::Read)?;
    let mut ready: Vec<Ready> = Vec::new();
    let mut buffer = vec![0; 4096];
    let mut left = held.len();
    let mut told_to_end: Option<Instant> = None;
    while left > 0 && told_to_end.is_none_or(|told| told.elapsed() < PATIENCE) {
        poll.wait(&mut ready, Some(Duration::from_millis(100)))?;
        for event in &ready {
            if event.token == INPUT {
                if told_to_end.is_none() && io::stdin().read(&mut buffer)? == 0 {
                    told_to_end = Some(Instant::now());
                    poll.remove(io::stdin())?;
                    for connection in held.iter().flatten() {
                        // One that is gone already comes up as an event.
                        let _ = connection.socket.shutdown(Shutdown::Write);
                    }
                }
                continue;
            }
            let Some(place) = held.get_mut(event.token - 1) else { continue };
            let Some(connection) = place else { continue };
            let length = match connection.socket.read(&mut buffer) {
                // Some proxies end with a reset.
                Err(fault) if fault.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(fault) if would_block(&fault) => continue,
                read => read?,
            };
            if length == 0 {
                if told_to_end.is_none() && matches!(job.work, Work::Return) {
                    let number = event.token - 1;
                    let mut back = connection::open_one(job, number, OPENING)?;
                    poll.add(&back.socket, event.token, Interest::Read)?;
                    let early = mem::take(&mut back.early);
                    let answer = take(&mut back, &early, &mut outcome);
                    back.socket.write_all(&answer)?;
                    *place = Some(back);
                    continue;
                }
                *place = None;
                left -= 1;
                outcome.ended += u64::from(told_to_end.is_none());
                continue;
            }
            let bytes = buffer.get(..length).unwrap_or_default();
            let answer = take(connection, bytes, &mut outcome);
            // Behind our own end nothing can be said.
            if told_to_end.is_none() {
                // A few bytes on a connection that carries nothing else fit.
                match connection.socket.write_all(&answer) {
                    // It was reset behind what it sent.
                    Err(fault) if is_gone(&fault) => {
                        *place = None;
                        left -= 1;
                        outcome.ended += 1;
                    }
                    written => written?,
                }
            }
        }
    }
    if left > 0 {
        return Err(io::Error::other(format!("{left} connections were not closed in 20 s")));
    }
    Ok(outcome)
}

/// Whether the other side has no connection any more.
fn is_gone(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Holds connections whose request heads are half there.
pub(super) fn slow_heads(job: &Job) -> io::Result<Outcome> {
    let request = heads::upgrade(Path::Echo, WEBSOCKET);
    let half = request.get(..request.len() / 2).unwrap_or_default();
    let mut held = connection::open(job, Opening::Bare)?;
    for connection in &mut held {
        let hello = connection.pending.take();
        connection.socket.write_all(&[&hello, half].concat())?;
    }
    until_told_to_end(&held)
}

/// Holds connections that have had one response and may have more.
pub(super) fn kept(job: &Job) -> io::Result<Outcome> {
    until_told_to_end(&connection::open(job, Opening::Request)?)
}

fn until_told_to_end(held: &[Connection]) -> io::Result<Outcome> {
    println!("{OPEN}");
    io::stdin().read_to_end(&mut Vec::new())?;
    for connection in held {
        match (&connection.socket).read(&mut [0]) {
            Err(fault) if would_block(&fault) => {}
            _ => return Err(io::Error::other("a connection that was held was ended")),
        }
    }
    Ok(Outcome { count: held.len() as u64, ..Outcome::default() })
}

/// Notes what is in `bytes` and returns the answer.
fn take(connection: &mut Connection, bytes: &[u8], outcome: &mut Outcome) -> Vec<u8> {
    let mut answer = Vec::new();
    connection.follower.feed(bytes, |part| match part {
        Part::Control(frames::PING, payload) => {
            outcome.pings += 1;
            answer.extend(frames::frame(Sender::Client, frames::PONG, payload));
        }
        Part::Control(frames::CLOSE, payload) => {
            outcome.closes.push(now());
            answer.extend(frames::frame(Sender::Client, frames::CLOSE, payload));
        }
        _ => {}
    });
    answer
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which is the same in all processes.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}
