//! Traffic on open connections: echo, at full speed or paced, push, and plain requests.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::mem;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::connection::{self, Connection, Opening, expect_status};
use super::{Job, Latency, Outcome, Until, Window, Work};
use crate::frames::{self, Part, Sender};
use crate::heads::{self, Path, WEBSOCKET};
use crate::poll::{Interest, Poll, Ready, would_block};

/// The token of the clock. Connections have those from 1.
const CLOCK: usize = 0;

/// Payload of a paced message.
const PACED_SIZE: usize = 64;

/// How long nothing may come. Longer than between two pushes, and long enough for valgrind.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does the job until its window is over.
pub(super) fn run(job: &Job, work: &Work) -> io::Result<Outcome> {
    let mut traffic = Traffic::open(job, work)?;
    traffic.start()?;
    let mut ready: Vec<Ready> = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut last = Instant::now();
    while !traffic.window.is_over()? {
        traffic.poll.wait(&mut ready, Some(Duration::from_millis(100)))?;
        if ready.is_empty() {
            if last.elapsed() > PATIENCE {
                return Err(io::Error::other("nothing came back for 30 s"));
            }
            continue;
        }
        last = Instant::now();
        for event in &ready {
            if event.token == CLOCK {
                traffic.send_due()?;
            } else {
                traffic.advance(*event, &mut buffer)?;
            }
        }
    }
    let outcome = traffic.window.close()?;
    traffic.note_those_under_way();
    Ok(Outcome { latency: Latency::of(traffic.latencies), ..outcome })
}

struct Traffic {
    poll: Poll,
    window: Window,
    connections: Vec<Member>,
    /// What is sent each time.
    message: Vec<u8>,
    shape: Shape,
    /// How many may still be sent.
    left: u64,
    latencies: Vec<u64>,
}

struct Member {
    connection: Connection,
    /// Bytes of the answer that are still to come, where it has no frames.
    left: usize,
    /// A response's head, as far as it came.
    head: Vec<u8>,
    is_in_body: bool,
    /// When the messages under way were due.
    due: VecDeque<Instant>,
}

/// How an answer is told from the next one.
enum Shape {
    /// It is a frame.
    Frame,
    /// It is a frame, and nothing is sent for it.
    Pushed,
    /// It is a frame; sending goes by the clock.
    Paced(Pace),
    /// It is as long as what was sent.
    Bytes,
    /// It is a response.
    Response,
}

struct Pace {
    clock: OwnedFd,
    started: Instant,
    every: Duration,
    sent: u32,
}

impl Traffic {
    fn open(job: &Job, work: &Work) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (opening, message, shape) = match work {
            Work::Echo { size, protocol } if protocol == WEBSOCKET => {
                let message = frames::frame(Sender::Client, frames::BINARY, &vec![b'e'; *size]);
                (Opening::Upgrade(Path::Echo, protocol), message, Shape::Frame)
            }
            Work::Echo { size, protocol } => {
                // As long as a frame of that size.
                let message = frames::frame(Sender::Client, frames::BINARY, &vec![b'e'; *size]);
                (Opening::Upgrade(Path::Echo, protocol), message, Shape::Bytes)
            }
            Work::Paced { rate } => {
                let message = frames::frame(Sender::Client, frames::BINARY, &[b'e'; PACED_SIZE]);
                let pace = Pace::new(*rate)?;
                poll.add(&pace.clock, CLOCK, Interest::Read)?;
                (Opening::Upgrade(Path::Echo, WEBSOCKET), message, Shape::Paced(pace))
            }
            Work::Push => (Opening::Upgrade(Path::Push, WEBSOCKET), Vec::new(), Shape::Pushed),
            Work::Get { is_large } => {
                let path = if *is_large { Path::LargePage } else { Path::Page };
                (Opening::Bare, heads::get(path), Shape::Response)
            }
            Work::Upload => (Opening::Bare, heads::post(), Shape::Response),
            other => return Err(io::Error::other(format!("{other:?} is no traffic"))),
        };
        let mut connections = connection::open(job, opening)?;
        for (number, connection) in connections.iter_mut().enumerate() {
            poll.add(&connection.socket, number + 1, Interest::Read)?;
            // Pushed before the window, which begins below.
            connection.follower.feed(&mem::take(&mut connection.early), |_| {});
        }
        let connections = connections
            .into_iter()
            .map(|connection| Member {
                connection,
                left: 0,
                head: Vec::new(),
                is_in_body: false,
                due: VecDeque::new(),
            })
            .collect();
        let left = match job.until {
            Until::Time { .. } => u64::MAX,
            Until::Count(count) => count,
        };
        let window = Window::new(job);
        Ok(Self { poll, window, connections, message, shape, left, latencies: Vec::new() })
    }

    /// Sends the first messages.
    fn start(&mut self) -> io::Result<()> {
        self.window.is_over()?;
        match &mut self.shape {
            Shape::Pushed => Ok(()),
            Shape::Paced(pace) => pace.start(),
            Shape::Frame | Shape::Bytes | Shape::Response => {
                (1..=self.connections.len()).try_for_each(|token| self.send(token))
            }
        }
    }

    fn send(&mut self, token: usize) -> io::Result<()> {
        let Some(member) = self.connections.get_mut(token - 1) else { return Ok(()) };
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        member.left = self.message.len();
        let first = member.connection.pending.take();
        if first.is_empty() {
            member.connection.send(&self.message, &self.poll, token)
        } else {
            // The PROXY header, with the first request.
            member.connection.send(&[first.as_slice(), &self.message].concat(), &self.poll, token)
        }
    }

    /// Sends what is due by the clock.
    fn send_due(&mut self) -> io::Result<()> {
        let Shape::Paced(pace) = &mut self.shape else { return Ok(()) };
        let mut expirations = [0; 8];
        match rustix::io::read(&pace.clock, &mut expirations) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(fault) => return Err(fault.into()),
        }
        let now = Instant::now();
        while let due = pace.started + pace.every * (pace.sent + 1)
            && due <= now
        {
            let number = pace.sent as usize % self.connections.len();
            pace.sent += 1;
            if let Some(member) = self.connections.get_mut(number) {
                member.due.push_back(due);
                member.connection.send(&self.message, &self.poll, number + 1)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, event: Ready, buffer: &mut [u8]) -> io::Result<()> {
        let Some(member) = self.connections.get_mut(event.token - 1) else { return Ok(()) };
        if event.write && !member.connection.pending.is_empty() {
            member.connection.flush(&self.poll, event.token)?;
        }
        if !event.read {
            return Ok(());
        }
        let length = match member.connection.socket.read(buffer) {
            Ok(0) => return Err(io::Error::other("a connection was closed in the middle")),
            Ok(length) => length,
            Err(fault) if would_block(&fault) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let mut complete = 0;
        match self.shape {
            Shape::Frame | Shape::Pushed | Shape::Paced(_) => {
                member.connection.follower.feed(bytes, |part| {
                    if part == Part::End {
                        complete += 1;
                    }
                });
            }
            Shape::Bytes => {
                member.left = member.left.saturating_sub(length);
                complete = u64::from(member.left == 0);
            }
            Shape::Response => complete = u64::from(member.read_response(bytes)?),
        }
        for _ in 0..complete {
            self.window.add();
            match self.shape {
                Shape::Pushed => {}
                Shape::Paced(_) => self.took(event.token),
                Shape::Frame | Shape::Bytes | Shape::Response => self.send(event.token)?,
            }
        }
        Ok(())
    }

    /// Notes how long paced messages that are still under way took so far: whoever holds them up is not to look good.
    fn note_those_under_way(&mut self) {
        let due = self.connections.iter().flat_map(|member| &member.due);
        self.latencies.extend(due.map(|due| nanoseconds(due.elapsed())));
    }

    /// Notes how long a paced message took.
    fn took(&mut self, token: usize) {
        let due = self.connections.get_mut(token - 1).and_then(|member| member.due.pop_front());
        if let Some(due) = due.filter(|_| self.window.began.is_some()) {
            self.latencies.push(nanoseconds(due.elapsed()));
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Member {
    /// True when the response is whole. `left` counts what is missing of its body.
    fn read_response(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if self.is_in_body {
            self.left = self.left.saturating_sub(bytes.len());
        } else {
            self.head.extend_from_slice(bytes);
            let Some(end) = heads::length(&self.head) else { return Ok(false) };
            expect_status(&self.head, 200)?;
            let body = heads::status(&self.head).map_or(0, |(_, length)| length);
            self.left = (end + body).saturating_sub(self.head.len());
            self.head.clear();
            self.is_in_body = true;
        }
        self.is_in_body = self.left > 0;
        Ok(!self.is_in_body)
    }
}

impl Pace {
    fn new(rate: u32) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let clock = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let every = Duration::from_secs(1) / rate;
        Ok(Self { clock, started: Instant::now(), every, sent: 0 })
    }

    fn start(&mut self) -> io::Result<()> {
        let every = Timespec { tv_sec: 0, tv_nsec: self.every.subsec_nanos().into() };
        let timer = Itimerspec { it_interval: every, it_value: every };
        self.started = Instant::now();
        timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }
}
