//! The summary that `SIGUSR1` asks for: what is open, how fast things go, what it takes, what happened.
//!
//! Rates are of the time since the summary before, or since the start: two in a row tell what goes on
//! now.

use std::fmt;
use std::time::{Duration, Instant};

use crate::log;
use crate::metrics::Counters;
use crate::panics;
use crate::proxy::Proxy;
use crate::workers::Workers;

/// The file in which Linux tells a process of its memory (proc(5)).
const STATUS: &str = "/proc/self/status";

/// What the next summary is compared with.
pub(crate) struct Summary {
    at: Instant,
    before: Totals,
}

/// What rates are made of: what happened in this process.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    connections: u64,
    requests: u64,
    tunnels: u64,
}

impl Totals {
    fn of(counters: &Counters) -> Self {
        Self {
            connections: counters.connections.here(),
            requests: counters.requests.here(),
            tunnels: counters.tunnels.here(),
        }
    }
}

impl Summary {
    /// The first rates are counted from here.
    pub(crate) fn start() -> Self {
        Self { at: Instant::now(), before: Totals::default() }
    }

    /// Writes one to the log.
    pub(crate) fn write(&mut self, proxy: &Proxy, workers: &Workers) {
        let now = Instant::now();
        let totals = Totals::of(&proxy.counters);
        let rates = Rates { over: now - self.at, before: self.before, now: totals };
        let memory = std::fs::read_to_string(STATUS).unwrap_or_default();
        let (counted, clients) = proxy.limits.counts().unwrap_or_default();
        tracing::info!(
            "open={} tunnels_open={} counted={counted} clients_counted={clients} {rates} {} \
             access_log_lines_dropped={} log_lines_dropped={} panics={} {}",
            proxy.limits.census().open(),
            workers.open(),
            Memory::of(&memory),
            proxy.access_log.dropped(),
            log::dropped(),
            panics::count(),
            proxy.counters
        );
        *self = Self { at: now, before: totals };
    }
}

/// How often things happened in a time.
struct Rates {
    over: Duration,
    before: Totals,
    now: Totals,
}

impl fmt::Display for Rates {
    #[expect(clippy::cast_precision_loss, reason = "a rate is for the eye")]
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.over.as_secs_f64();
        let rate = |before: u64, now: u64| match now.saturating_sub(before) {
            // Nothing in no time at all is no rate either.
            0 => 0.0,
            number => number as f64 / seconds.max(0.001),
        };
        write!(
            out,
            "rates_over={seconds:.3} connections_per_second={:.1} requests_per_second={:.1} \
             tunnels_per_second={:.1}",
            rate(self.before.connections, self.now.connections),
            rate(self.before.requests, self.now.requests),
            rate(self.before.tunnels, self.now.tunnels),
        )
    }
}

/// Memory of the process, in KiB.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    /// What it holds in memory now (`VmRSS`).
    resident: Option<u64>,
    /// The most that it has held (`VmHWM`).
    peak: Option<u64>,
}

impl Memory {
    /// Reads what [`STATUS`] says.
    fn of(status: &str) -> Self {
        let field = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Self { resident: field("VmRSS"), peak: field("VmHWM") }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in [("memory", self.resident), ("memory_peak", self.peak)] {
            let separator = if name == "memory" { "" } else { " " };
            match value {
                Some(value) => write!(out, "{separator}{name}={value}KiB")?,
                // No /proc here: that is no reason to say nothing else.
                None => write!(out, "{separator}{name}=-")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_since_the_summary_before() {
        let rates = Rates {
            over: Duration::from_millis(2500),
            before: Totals { connections: 10, requests: 5, tunnels: 7 },
            now: Totals { connections: 35, requests: 5, tunnels: 8 },
        };
        assert_eq!(
            rates.to_string(),
            "rates_over=2.500 connections_per_second=10.0 requests_per_second=0.0 \
             tunnels_per_second=0.4"
        );
    }

    #[test]
    fn summary_at_the_instant_of_the_one_before_has_finite_rates() {
        let now = Totals { connections: 3, ..Totals::default() };
        let rates = Rates { over: Duration::ZERO, before: Totals::default(), now }.to_string();
        assert!(rates.contains("requests_per_second=0.0"), "{rates}");
        assert!(!rates.contains("inf") && !rates.contains("NaN"), "{rates}");
    }

    #[test]
    fn memory_is_what_proc_says() {
        let memory = Memory::of("VmPeak:\t  99 kB\nVmHWM:\t    5120 kB\nVmRSS:\t    4096 kB\n");
        assert_eq!(memory.to_string(), "memory=4096KiB memory_peak=5120KiB");
    }

    #[test]
    fn memory_that_nobody_tells_is_a_dash() {
        assert_eq!(Memory::of("").to_string(), "memory=- memory_peak=-");
    }
}
