//! What the load says at its end, as one JSON value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The report of one process of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// From the first connection to the end of the last.
    pub seconds: f64,
    /// What was on tunnels, by kind.
    pub kinds: BTreeMap<String, KindReport>,
    /// All kinds together.
    pub all: KindReport,
    /// From connect(2) to the 101, of the tunnels that were there first.
    pub opening: Spread,
    /// The same of those that came while the load ran.
    pub handshakes: Spread,
    /// Handshakes that were due and not begun, since 100 were under way already.
    pub handshakes_left_out: u64,
    /// Plain requests on kept connections.
    pub requests: RequestReport,
    /// The download, from its first byte to its last; repeated when it is over.
    pub downloads: DownloadReport,
    /// How much later than it asked for this process was woken: no pause that is as short says anything.
    pub own_delay: Spread,
    /// The tunnels with the longest gaps, 20 at most, the longest first.
    pub worst: Vec<Gap>,
    /// What went wrong; one for each tunnel at most, and 20 in all.
    pub failures: Vec<Failure>,
    /// How many there were.
    pub failed: u64,
    /// One for each tunnel, with `--each`.
    pub tunnels: Vec<TunnelReport>,
}

/// Tunnels of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KindReport {
    /// How many were opened.
    pub tunnels: u64,
    /// Messages and bytes of payload that clients sent.
    pub messages_sent: u64,
    /// See `messages_sent`.
    pub bytes_sent: u64,
    /// Messages and bytes of payload that clients got.
    pub messages_received: u64,
    /// See `messages_received`.
    pub bytes_received: u64,
    /// Tunnels that were reset.
    pub resets: u64,
    /// Tunnels whose stream ended too early.
    pub ends: u64,
    /// Tunnels with bytes that were lost, doubled or changed, or whose hashes or clients differ.
    pub mismatches: u64,
    /// Everything else: Closes of others, ends that never came, handshakes that were not answered with 101.
    pub others: u64,
    /// Pings of both ends.
    pub pings: u64,
    /// Pongs that they got.
    pub pongs: u64,
    /// Pings that the proxy sent to clients.
    pub proxy_pings: u64,
    /// How often a socket took no more.
    pub blocked: u64,
    /// Messages: the round trip where they come back, else the way.
    pub delay: Spread,
    /// The longest of these of each tunnel.
    pub gap: Spread,
}

/// How long things took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there were.
    pub count: u64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

impl Spread {
    /// The spread of microseconds.
    pub(crate) fn of(mut all: Vec<u32>) -> Self {
        all.sort_unstable();
        let at = |per_cent: usize| {
            let place = (all.len() * per_cent).div_ceil(100).saturating_sub(1);
            all.get(place).map_or(0.0, |time| f64::from(*time) / 1_000.0)
        };
        let count = all.len() as u64;
        Self { count, p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

/// The longest delay of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Its number.
    pub tunnel: u64,
    /// Its kind.
    pub kind: String,
    /// In milliseconds.
    pub gap_ms: f64,
    /// When it was over, in seconds of `CLOCK_MONOTONIC`, which all processes of a machine share.
    pub at: f64,
}

/// Plain requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestReport {
    /// Connections, without those that replaced others.
    pub connections: u64,
    /// From a request to the end of its response.
    pub delay: Spread,
    /// Connections that had ended, or were announced to end, between two requests: that is allowed at any time.
    pub renewed: u64,
    /// Requests whose connection ended before a byte of the response: they met such an end, and went out again.
    pub unanswered: u64,
}

/// Downloads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DownloadReport {
    /// How many were completed.
    pub count: u64,
    /// Bytes that came.
    pub bytes: u64,
}

/// Something that should not have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The tunnel's number. Requests and downloads have numbers, too.
    pub tunnel: u64,
    /// Its kind, or `request` or `download`.
    pub kind: String,
    /// `client` or `application`.
    pub seen_by: String,
    /// `lost`, `doubled`, `changed`, `framing`, `control`, `hash`, `client`; `reset`, `end`; `close`, `late`,
    /// `handshake`; or what the kernel says.
    pub what: String,
    /// Where in the stream of payload.
    pub offset: u64,
    /// Bytes, where that can be told.
    pub length: u64,
    /// Which message of its direction, from 0.
    pub message: u64,
    /// The rest.
    pub text: String,
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Its number.
    pub tunnel: u64,
    /// Its kind.
    pub kind: String,
    /// The client's address and port of its PROXY header.
    pub client: String,
    /// Bytes behind the heads, from the client.
    pub wire_sent: u64,
    /// Bytes behind the heads, to the client, the proxy's own frames among them.
    pub wire_received: u64,
    /// The same at the application's end.
    pub application_received: u64,
    /// See `application_received`.
    pub application_sent: u64,
    /// Messages from the client.
    pub messages_sent: u64,
    /// Messages to the client.
    pub messages_received: u64,
    /// The largest delay of a message, in milliseconds.
    pub gap_ms: f64,
}
