//! The process in a few numbers, for `/api/summary` and the events of each second.

use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::control::server::Server;
use crate::metrics::process::Process;
use crate::panics;
use crate::peer::Peer;

/// The process at one moment. Counters begin at 0 with it.
#[derive(Serialize)]
pub(super) struct Summary {
    version: &'static str,
    pid: u32,
    /// Seconds since 1970.
    started: f64,
    /// Seconds.
    uptime: f64,
    draining: bool,
    workers: usize,
    connections_open: usize,
    tunnels_open: usize,
    connections: u64,
    requests: u64,
    tunnels_opened: u64,
    tunnels_closed: u64,
    messages_from_client: u64,
    messages_from_upstream: u64,
    payload_from_client: u64,
    payload_from_upstream: u64,
    handed_in: u64,
    handed_out: u64,
    panics: u64,
    drain: Drain,
    ends: Vec<Ends>,
    closes: Vec<Closes>,
    cpu_seconds: f64,
    resident_memory_bytes: u64,
    open_fds: u64,
    max_fds: Option<u64>,
}

#[derive(Serialize)]
struct Drain {
    answered: u64,
    unanswered: u64,
    cut: u64,
}

/// Tunnels that ended in one way.
#[derive(Serialize)]
struct Ends {
    by: &'static str,
    during: &'static str,
    why: &'static str,
    number: u64,
}

/// First Closes of one code and sender.
#[derive(Serialize)]
struct Closes {
    code: String,
    by: &'static str,
    number: u64,
}

impl Summary {
    pub(super) async fn now(server: &Server) -> Self {
        let traffic = server.scrape.traffic(server).await.0;
        let process = Process::now();
        let counters = &server.proxy.counters;
        let ends: Vec<_> = counters
            .ends
            .closed()
            .filter(|(_, number)| *number > 0)
            .map(|(end, number)| Ends {
                by: end.by.as_str(),
                during: end.during.as_str(),
                why: end.why.as_str(),
                number,
            })
            .collect();
        let closes = counters.ends.closes().map(|(code, by, number)| Closes {
            code: code.text(),
            by: by.as_str(),
            number,
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: process.started.as_secs_f64(),
            uptime: server.started.elapsed().as_secs_f64(),
            draining: !server.is_healthy.load(Ordering::Relaxed),
            workers: server.workers.count(),
            connections_open: server.workers.connections(),
            tunnels_open: server.workers.open(),
            connections: counters.connections.here(),
            requests: counters.requests.here(),
            tunnels_opened: counters.tunnels.here(),
            tunnels_closed: ends.iter().map(|ends| ends.number).sum(),
            messages_from_client: traffic[Peer::Client].messages,
            messages_from_upstream: traffic[Peer::Upstream].messages,
            payload_from_client: traffic[Peer::Client].payload,
            payload_from_upstream: traffic[Peer::Upstream].payload,
            handed_in: counters.handed_in.here(),
            handed_out: counters.handed_out.here(),
            panics: panics::here(),
            drain: Drain {
                answered: counters.drained.here(),
                unanswered: counters.unanswered.here(),
                cut: counters.cut.here(),
            },
            closes: closes.collect(),
            ends,
            cpu_seconds: process.cpu.as_secs_f64(),
            resident_memory_bytes: process.resident,
            open_fds: process.open_descriptors,
            max_fds: process.most_descriptors,
        }
    }
}
