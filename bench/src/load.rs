//! The load: opens connections as load balancers do, makes traffic on them, and measures it.
//!
//! A process of its own, on the core that the proxy does not have. What it is to do comes as one JSON
//! value in its argument, what it saw goes out as one on standard output. It samples the proxy's CPU
//! time itself, so that the window of the clock, of the count and of the CPU is one.

mod connection;
mod handshakes;
mod hold;
mod messages;
mod neighbour;
mod witness;

pub(crate) use connection::read_response;
pub(crate) use hold::{OPEN, now};
pub(crate) use neighbour::Frames;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::measure::cpu;

/// What the load is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// Whether connections begin with a PROXY header.
    pub(crate) proxy_header: bool,
    /// The process whose CPU is measured.
    pub(crate) proxy: Option<u32>,
    pub(crate) connections: usize,
    pub(crate) work: Work,
    pub(crate) until: Until,
}

/// What is done on the connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// One message of so many bytes under way on each connection, always.
    Echo { size: usize, protocol: String },
    /// So many messages of 64 bytes a second over all connections, whatever comes back.
    Paced { rate: u32 },
    /// Messages that the application pushes are taken.
    Push,
    /// One request for a page under way on each connection, always.
    Get { is_large: bool },
    /// One request with a large body under way on each connection, always.
    Upload,
    /// So many handshakes at once, each connection ended when it is open.
    Handshakes,
    /// The same from another client, which has used up what it may: each is refused.
    Refusals,
    /// The same until standard input ends, with what is left of the core.
    Flood,
    /// A client sends frames until standard input ends, as fast as they are taken, with what is left of the core.
    Frames(Frames),
    /// Connections with half of a request head are held until standard input ends.
    SlowHeads,
    /// Connections with one response behind them are held until standard input ends.
    Kept,
    /// Connections are held and Pings answered until standard input ends.
    Hold,
    /// The same, and whoever got a Close comes back at once.
    Return,
    /// A message and its echo now and then on each, and a handshake now and then, until standard input ends.
    Witness,
}

/// When it is enough.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Until {
    /// After `warm_up`, which is not measured, for `measured`. Milliseconds.
    Time { warm_up: u64, measured: u64 },
    /// After so many messages or handshakes.
    Count(u64),
}

/// What the load saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Round trips, messages, requests or handshakes that were completed in the window.
    pub(crate) count: u64,
    /// Length of the window, in nanoseconds.
    pub(crate) elapsed: u64,
    /// CPU time of the proxy in the window, in nanoseconds.
    pub(crate) cpu: u64,
    /// From when a message was due until it came back, or until the end. Only of [`Work::Paced`] and [`Work::Witness`].
    pub(crate) latency: Option<Latency>,
    /// How long handshakes took. Only of [`Work::Witness`].
    #[serde(default)]
    pub(crate) handshakes: Option<Latency>,
    /// Handshakes that were not answered with 101. Only of [`Work::Witness`].
    #[serde(default)]
    pub(crate) failed: u64,
    /// Connections that ended before it was time. Only of [`Work::Hold`] and [`Work::Witness`].
    #[serde(default)]
    pub(crate) ended: u64,
    /// Pings that were answered. Only of [`Work::Hold`].
    pub(crate) pings: u64,
    /// When Closes came, in nanoseconds of `CLOCK_MONOTONIC`. Only of [`Work::Hold`].
    pub(crate) closes: Vec<u64>,
}

/// How long messages took, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    fn of(mut all: Vec<u64>) -> Option<Self> {
        all.sort_unstable();
        // The smallest value that this share of all is not above.
        let at = |per_mille: usize| {
            all.get((all.len() * per_mille).div_ceil(1000).saturating_sub(1)).copied()
        };
        Some(Self { p50: at(500)?, p99: at(990)?, p999: at(999)?, max: at(1000)? })
    }
}

/// Does the job.
pub(crate) fn run(job: &Job) -> io::Result<Outcome> {
    match &job.work {
        Work::Handshakes | Work::Refusals | Work::Flood => handshakes::run(job),
        Work::Frames(frames) => neighbour::run(job, *frames),
        Work::Hold | Work::Return => hold::run(job),
        Work::Witness => witness::run(job),
        Work::Kept => hold::kept(job),
        Work::SlowHeads => hold::slow_heads(job),
        work => messages::run(job, work),
    }
}

/// The window in which things are counted.
struct Window {
    proxy: Option<u32>,
    start: Instant,
    end: Option<Instant>,
    /// Counted from here on.
    began: Option<(Instant, u64)>,
    count: u64,
    enough: u64,
}

impl Window {
    fn new(job: &Job) -> Self {
        let now = Instant::now();
        let (start, end, enough) = match job.until {
            Until::Time { warm_up, measured } => {
                let start = now + Duration::from_millis(warm_up);
                (start, Some(start + Duration::from_millis(measured)), u64::MAX)
            }
            Until::Count(enough) => (now, None, enough),
        };
        Self { proxy: job.proxy, start, end, began: None, count: 0, enough }
    }

    /// One thing was completed.
    fn add(&mut self) {
        if self.began.is_some() {
            self.count += 1;
        }
    }

    /// To be called once a wake-up, before events are looked at: true when the window is over.
    fn is_over(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        if self.began.is_none() && now >= self.start {
            self.began = Some((now, self.cpu()?));
        }
        Ok(self.count >= self.enough || self.end.is_some_and(|end| now >= end))
    }

    fn cpu(&self) -> io::Result<u64> {
        self.proxy.map_or(Ok(0), cpu::of)
    }

    /// What was measured. To be called when the window is over.
    fn close(&self) -> io::Result<Outcome> {
        let Some((began, cpu)) = self.began else { return Ok(Outcome::default()) };
        let elapsed = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let cpu = self.cpu()?.saturating_sub(cpu);
        Ok(Outcome { count: self.count, elapsed, cpu, ..Outcome::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::Latency;

    #[test]
    fn percentile_is_a_value_that_occurred() {
        let all: Vec<u64> = (1..=1000).rev().collect();
        assert_eq!(Latency::of(all), Some(Latency { p50: 500, p99: 990, p999: 999, max: 1000 }));
        assert_eq!(Latency::of(vec![7]), Some(Latency { p50: 7, p99: 7, p999: 7, max: 7 }));
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
