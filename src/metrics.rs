//! What happened since the start, as numbers: for the summary in the log, and for a scrape.
//!
//! Counters here are the process's, added to by all threads: each is about a connection, a request or a tunnel, never
//! about a message. What happens more often is counted by each worker alone (`worker`, `own`), and what passes in
//! tunnels is in the tunnels, and added up when somebody asks (`traffic`, `workers/worker/looks.rs`). `families` lists
//! every metric, `exposition` gives each its numbers, `text` writes them.

pub(crate) mod exemplars;
pub(crate) mod exposition;
pub mod families;
pub(crate) mod labels;
pub(crate) mod own;
pub(crate) mod process;
pub(crate) mod sizes;
pub(crate) mod text;
pub(crate) mod traffic;
pub(crate) mod tunnels;
pub(crate) mod worker;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::tunnels::TunnelEnds;
use crate::http::head;
use crate::limits::Over;
use crate::proxy_protocol;
use crate::websocket::frame;

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter {
    here: AtomicU64,
    /// What processes before this one have counted: it is not to look as if it had just happened.
    elsewhere: AtomicU64,
}

impl Counter {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { here: AtomicU64::new(0), elsewhere: AtomicU64::new(0) }
    }

    /// Adds `number`.
    pub fn add(&self, number: u64) {
        self.here.fetch_add(number, Ordering::Relaxed);
    }

    /// Adds what another process has counted.
    pub(crate) fn add_elsewhere(&self, number: u64) {
        self.elsewhere.fetch_add(number, Ordering::Relaxed);
    }

    /// The number so far, with what came by a handoff.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.here().wrapping_add(self.elsewhere.load(Ordering::Relaxed))
    }

    /// What this process has counted.
    #[must_use]
    pub fn here(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

impl own::Number for Counter {
    fn add(&self, number: u64) {
        self.add(number);
    }

    fn get(&self) -> u64 {
        self.here()
    }
}

/// Lets one of many through: for faults of ours that a client can cause again and again.
#[derive(Debug)]
pub struct Seldom {
    start: Instant,
    /// Milliseconds from the start; from then on one is let through again.
    next: AtomicU64,
}

impl Seldom {
    /// How long it is silent after each, in milliseconds.
    const SILENCE: u64 = 10_000;

    /// Whether this one is let through.
    pub fn lets_through(&self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let then = now.saturating_add(Self::SILENCE);
        // Of several at once, one.
        next <= now
            && self.next.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self { start: Instant::now(), next: AtomicU64::new(0) }
    }
}

/// Of these rules those that were broken, and how often.
fn broken<'c>(
    rules: impl Iterator<Item = (&'static str, &'c Counter)>,
) -> impl Iterator<Item = (&'static str, u64)> {
    rules.map(|(rule, counter)| (rule, counter.get())).filter(|(_, number)| *number > 0)
}

/// Faults of PROXY headers, by rule.
#[derive(Debug, Default)]
pub struct ProxyFaults([Counter; proxy_protocol::Fault::COUNT]);

impl ProxyFaults {
    /// Counts one.
    pub fn add(&self, fault: proxy_protocol::Fault) {
        if let Some(counter) = self.0.get(fault.index()) {
            counter.add(1);
        }
    }

    /// The rules that were broken, and how often.
    pub fn broken(&self) -> impl Iterator<Item = (&'static str, u64)> {
        broken(self.rules())
    }

    fn rules(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        proxy_protocol::Fault::ALL.iter().map(|fault| fault.as_str()).zip(&self.0)
    }
}

/// Faults of WebSocket frames, by rule.
#[derive(Debug, Default)]
pub struct FrameFaults([Counter; frame::Fault::COUNT]);

impl FrameFaults {
    /// Counts one.
    pub(crate) fn add(&self, fault: frame::Fault) {
        if let Some(counter) = self.0.get(fault.index()) {
            counter.add(1);
        }
    }

    /// Counts several, each at its fault's place.
    pub(crate) fn add_all(&self, faults: &[u32; frame::Fault::COUNT]) {
        for (counter, number) in self.0.iter().zip(faults) {
            if *number > 0 {
                counter.add((*number).into());
            }
        }
    }

    /// The rules that were broken, and how often.
    pub fn broken(&self) -> impl Iterator<Item = (&'static str, u64)> {
        broken(self.rules())
    }

    fn rules(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        frame::Fault::ALL.iter().map(|fault| fault.as_str()).zip(&self.0)
    }
}

/// Faults of HTTP messages, by rule.
#[derive(Debug, Default)]
pub struct HttpFaults([Counter; head::Fault::COUNT]);

impl HttpFaults {
    /// Counts one.
    pub(crate) fn add(&self, fault: head::Fault) {
        if let Some(counter) = self.0.get(fault.index()) {
            counter.add(1);
        }
    }

    /// The rules that were broken, and how often.
    pub fn broken(&self) -> impl Iterator<Item = (&'static str, u64)> {
        broken(self.rules())
    }

    fn rules(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        head::Fault::ALL.iter().map(|fault| fault.as_str()).zip(&self.0)
    }
}

/// Faults of an upstream's responses.
#[derive(Debug, Default)]
pub struct ResponseFaults {
    /// By the rule that they break.
    pub by_rule: HttpFaults,
    /// Changes to a protocol that was not offered.
    pub unasked_upgrades: Counter,
}

impl ResponseFaults {
    /// The rules that were broken, and how often.
    pub fn broken(&self) -> impl Iterator<Item = (&'static str, u64)> {
        broken(self.rules())
    }

    fn rules(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        self.by_rule.rules().chain([("unasked_upgrade", &self.unasked_upgrades)])
    }
}

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections that closed without a byte beyond a PROXY header: TCP health checks.
    pub probes: Counter,
    /// Times that accepting paused because descriptors or memory ran out.
    pub accept_pauses: Counter,
    /// Requests that found no descriptor, port or memory for their upstream connection.
    pub no_room: Counter,
    /// Says in the log, now and then, that there is no room.
    pub no_room_told: Seldom,
    /// PROXY headers that break a rule.
    pub proxy_faults: ProxyFaults,
    /// Connections that ended in the middle of a PROXY header.
    pub proxy_headers_cut: Counter,
    /// Connections whose PROXY header was not complete in time.
    pub proxy_header_timeouts: Counter,
    /// Requests that came without a required PROXY header.
    pub proxy_headers_missing: Counter,
    /// Request heads that were no HTTP or too long.
    pub refused_heads: Counter,
    /// Request heads that had begun and were not whole in time.
    pub slow_heads: Counter,
    /// The same, and bodies, by the rule that they break.
    pub http_faults: HttpFaults,
    /// Of those, the ones above `MAX_HEADER_SIZE` or `MAX_HEADERS`.
    pub large_heads: Counter,
    /// Responses that break a rule.
    pub response_faults: ResponseFaults,
    /// Connections refused for `MAX_CONNECTIONS`.
    pub over_connections: Counter,
    /// Connections refused for `MAX_CONNECTIONS_PER_CLIENT`.
    pub over_connections_per_client: Counter,
    /// Handshakes refused for `HANDSHAKE_RATE_PER_CLIENT`.
    pub over_handshake_rate: Counter,
    /// Requests whose body is above `MAX_BODY_SIZE`.
    pub large_bodies: Counter,
    /// Handshakes refused for their `Origin`, or for none.
    pub refused_origins: Counter,
    /// Requests, health checks not among them.
    pub requests: Counter,
    /// Requests that elbows answered itself with a 4xx status.
    pub rejected_client: Counter,
    /// Requests that elbows answered itself with a 5xx status.
    pub rejected_upstream: Counter,
    /// Tunnels opened.
    pub tunnels: Counter,
    /// WebSocket streams that break a rule, by the first one.
    pub frame_faults: FrameFaults,
    /// Tunnels whose client answered the Close of the drain.
    pub drained: Counter,
    /// Tunnels whose client did not, in the time that it had.
    pub unanswered: Counter,
    /// Connections with a request under way, and tunnels, that the end of the drain cut.
    pub cut: Counter,
    /// Tunnels that came from another process.
    pub handed_in: Counter,
    /// Tunnels that another process took.
    pub handed_out: Counter,
    /// Tunnels that another process refused to take.
    pub handoff_refused: Counter,
    /// Handoffs that were given up, whatever they had moved by then.
    pub handoff_aborted: Counter,
    /// How tunnels ended here.
    pub(crate) ends: TunnelEnds,
}

impl Counters {
    /// Counts an answer of our own.
    pub(crate) fn rejected(&self, status: u16) {
        let counter = if status < 500 { &self.rejected_client } else { &self.rejected_upstream };
        counter.add(1);
    }

    /// Counts what was over a limit.
    pub(crate) fn over(&self, over: Over) {
        match over {
            Over::Connections => self.over_connections.add(1),
            Over::ConnectionsOfClient => self.over_connections_per_client.add(1),
            Over::HandshakeRate(_) => self.over_handshake_rate.add(1),
        }
    }

    /// Every counter by its name: `requests`, and `http_faults.RULE` where there is one for each rule. The names are those
    /// of the summary, and stay what they are: processes of other versions tell each other numbers by them.
    pub fn named(&self) -> impl Iterator<Item = (Cow<'static, str>, &Counter)> {
        let single = self.single().into_iter().map(|(name, counter)| (name.into(), counter));
        let by_rule = self.by_rule().into_iter().flat_map(|(group, rules)| {
            rules.map(move |(rule, counter)| (format!("{group}.{rule}").into(), counter))
        });
        single.chain(by_rule)
    }

    /// Adds what another process has counted. False: no counter here has that name.
    pub fn add_named(&self, name: &str, number: u64) -> bool {
        let counter = self.named().find(|(known, _)| known == name);
        counter.inspect(|(_, counter)| counter.add_elsewhere(number)).is_some()
    }

    /// Those that are one number, in the order of the summary.
    fn single(&self) -> [(&'static str, &Counter); 26] {
        [
            ("connections", &self.connections),
            ("requests", &self.requests),
            ("tunnels", &self.tunnels),
            ("probes", &self.probes),
            ("rejected_client", &self.rejected_client),
            ("rejected_upstream", &self.rejected_upstream),
            ("refused_heads", &self.refused_heads),
            ("slow_heads", &self.slow_heads),
            ("large_heads", &self.large_heads),
            ("large_bodies", &self.large_bodies),
            ("refused_origins", &self.refused_origins),
            ("over_connections", &self.over_connections),
            ("over_connections_per_client", &self.over_connections_per_client),
            ("over_handshake_rate", &self.over_handshake_rate),
            ("proxy_headers_cut", &self.proxy_headers_cut),
            ("proxy_header_timeouts", &self.proxy_header_timeouts),
            ("proxy_headers_missing", &self.proxy_headers_missing),
            ("accept_pauses", &self.accept_pauses),
            ("no_room", &self.no_room),
            ("drained", &self.drained),
            ("unanswered", &self.unanswered),
            ("cut", &self.cut),
            ("handed_in", &self.handed_in),
            ("handed_out", &self.handed_out),
            ("handoff_refused", &self.handoff_refused),
            ("handoff_aborted", &self.handoff_aborted),
        ]
    }

    /// Those that are one number for each rule.
    fn by_rule(&self) -> [(&'static str, Rules<'_>); 4] {
        [
            ("proxy_faults", Box::new(self.proxy_faults.rules())),
            ("http_faults", Box::new(self.http_faults.rules())),
            ("response_faults", Box::new(self.response_faults.rules())),
            ("frame_faults", Box::new(self.frame_faults.rules())),
        ]
    }
}

/// Counters by the rule that they are of.
type Rules<'c> = Box<dyn Iterator<Item = (&'static str, &'c Counter)> + 'c>;

impl fmt::Display for Counters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, counter) in self.single() {
            write!(out, "{separator}{name}={}", counter.get())?;
            separator = " ";
        }
        for (group, rules) in self.by_rule() {
            write!(out, " {group}=")?;
            let mut separator = "";
            for (rule, number) in broken(rules) {
                write!(out, "{separator}{rule}:{number}")?;
                separator = ",";
            }
            if separator.is_empty() {
                write!(out, "0")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn counters_of_another_process_are_added_by_their_names() {
        let (old, new) = (Counters::default(), Counters::default());
        for (number, (_, counter)) in (1..).zip(old.named()) {
            counter.add(number);
        }
        new.requests.add(1_000);
        for (name, counter) in old.named() {
            assert!(new.add_named(&name, counter.get()), "{name}");
        }
        assert_eq!(new.requests.get(), old.requests.get() + 1_000);
        assert_eq!((new.requests.here(), new.tunnels.here()), (1_000, 0));
        old.requests.add(1_000);
        assert_eq!(new.to_string(), old.to_string());
        for unknown in ["", "request", "http_faults", "http_faults.", "http_faults.nonsense"] {
            assert!(!new.add_named(unknown, 1), "{unknown}");
        }
        assert_eq!(new.to_string(), old.to_string());
    }

    #[test]
    fn each_counter_of_the_summary_has_one_name() {
        let counters = Counters::default();
        let names: Vec<_> = counters.named().map(|(name, _)| name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for group in counters.to_string().split(' ').filter_map(|pair| pair.split('=').next()) {
            let is_its = |name: &&Cow<str>| name.split('.').next() == Some(group);
            assert!(names.iter().any(|name| is_its(&name)), "{group}");
        }
        assert!(names.contains(&"response_faults.unasked_upgrade".into()));
    }

    #[test]
    fn summary_names_the_rules_that_were_broken() {
        let counters = Counters::default();
        let text = counters.to_string();
        assert!(text.starts_with("connections=0 requests=0 "), "{text}");
        assert!(
            text.ends_with(
                " handoff_aborted=0 proxy_faults=0 http_faults=0 response_faults=0 frame_faults=0"
            ),
            "{text}"
        );
        counters.response_faults.unasked_upgrades.add(2);
        counters.http_faults.add(head::Fault::ALL[0]);
        counters.http_faults.add(head::Fault::ALL[1]);
        let rules = [head::Fault::ALL[0].as_str(), head::Fault::ALL[1].as_str()];
        let text = counters.to_string();
        assert!(text.contains(&format!(" http_faults={}:1,{}:1 ", rules[0], rules[1])), "{text}");
        assert!(text.contains(" response_faults=unasked_upgrade:2 "), "{text}");
    }
}
