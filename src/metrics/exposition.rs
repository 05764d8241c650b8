//! The numbers of each metric, from those who count them. Pure.

use super::exemplars::latest;
use super::families::{self as all, Family};
use super::labels::{ConnectFailure, Method, Status};
use super::own::{Distribution, Own};
use super::process::Process;
use super::sizes::Sizes;
use super::text::{Form, Text};
use super::traffic::Traffic;
use super::worker::WorkerMetrics;
use super::{Counter, Counters};
use crate::end::{End, Phase, Reason, Side};
use crate::peer::Peer;
use crate::upstream::{Checked, EndpointCounts, EndpointState};

/// All that a scrape tells, at one moment.
pub(crate) struct Snapshot<'s> {
    pub(crate) counters: &'s Counters,
    pub(crate) workers: &'s [&'s WorkerMetrics],
    pub(crate) traffic: Traffic,
    pub(crate) connections_open: usize,
    pub(crate) tunnels_open: usize,
    pub(crate) is_draining: bool,
    pub(crate) is_rebalancing: bool,
    pub(crate) took_over: bool,
    pub(crate) panics: u64,
    pub(crate) lines_dropped: u64,
    /// Endpoints, and what checks of them came to.
    pub(crate) endpoints: EndpointCounts,
    pub(crate) process: Process,
}

/// Counters of what was refused or broke a rule, beside those that are one for each rule.
const RULES: [&str; 9] = [
    "slow_heads",
    "large_bodies",
    "refused_origins",
    "over_connections",
    "over_connections_per_client",
    "over_handshake_rate",
    "proxy_headers_cut",
    "proxy_header_timeouts",
    "proxy_headers_missing",
];

/// Statuses of GET, and ends of tunnels, that alerts are about: there from the start, since a number that comes out of
/// nowhere is no increase to Prometheus.
const WATCHED_STATUSES: [u16; 6] = [101, 200, 500, 502, 503, 504];
const WATCHED_ENDS: [(Side, Reason); 6] = [
    (Side::Client, Reason::Closed),
    (Side::Client, Reason::Timeout),
    (Side::Client, Reason::Stalled),
    (Side::Upstream, Reason::Timeout),
    (Side::Upstream, Reason::Stalled),
    (Side::Elbows, Reason::Mistake),
];

impl Snapshot<'_> {
    /// The text of the scrape; `sizes` has what the one before told.
    pub(crate) fn write(&self, form: Form, sizes: &mut Sizes) -> String {
        let mut out = Text::new(form);
        let out = &mut out;
        let one = |out: &mut Text, family: &Family, value: u64| {
            out.family(family);
            out.number(family, &[], value);
        };
        out.family(&all::BUILD);
        out.number(&all::BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.requests(out);
        one(out, &all::TUNNELS_OPENED, self.counters.tunnels.here());
        one(out, &all::TUNNELS_OPEN, self.tunnels_open as u64);
        self.ends(out);
        self.messages(out, sizes);
        self.pings(out);
        self.rejections(out);
        self.upstream(out);
        one(out, &all::REBALANCING, self.is_rebalancing.into());
        one(out, &all::TOOK_OVER, self.took_over.into());
        one(out, &all::DRAINING, self.is_draining.into());
        let Counters { drained, unanswered, cut, .. } = self.counters;
        out.family(&all::DRAIN_CLOSES);
        for (result, counter) in [("answered", drained), ("unanswered", unanswered), ("cut", cut)] {
            out.number(&all::DRAIN_CLOSES, &[("result", result)], counter.here());
        }
        out.family(&all::ROUND);
        let rounds = self.sum(|worker| worker.round_times.distribution());
        out.histogram(&all::ROUND, &[], &rounds);
        one(out, &all::PANICS, self.panics);
        one(out, &all::LINES_DROPPED, self.lines_dropped);
        self.process(out);
        std::mem::replace(out, Text::new(form)).end()
    }

    fn sum(&self, of: impl Fn(&WorkerMetrics) -> Distribution) -> Distribution {
        Distribution::of(self.workers.iter().map(|worker| of(worker)))
    }

    fn total(&self, of: impl Fn(&WorkerMetrics) -> &Own) -> u64 {
        self.workers.iter().map(|worker| of(worker).get()).fold(0, u64::wrapping_add)
    }

    fn requests(&self, out: &mut Text) {
        out.family(&all::CONNECTIONS);
        out.number(&all::CONNECTIONS, &[], self.counters.connections.here());
        out.family(&all::CONNECTIONS_OPEN);
        out.number(&all::CONNECTIONS_OPEN, &[], self.connections_open as u64);
        out.family(&all::REQUESTS);
        let mut sums = vec![[0_u64; Status::COUNT]; Method::COUNT];
        for (method, status, number) in self.workers.iter().flat_map(|worker| worker.requests()) {
            let sum = sums.get_mut(method.index()).and_then(|all| all.get_mut(status.index()));
            if let Some(sum) = sum {
                *sum = sum.wrapping_add(number);
            }
        }
        for (method, sums) in Method::ALL.into_iter().zip(&sums) {
            let is_watched = |status| {
                method == Method::Get
                    && WATCHED_STATUSES.iter().any(|watched| Status::of(Some(*watched)) == status)
            };
            let told = Status::all().zip(sums);
            for (status, sum) in told.filter(|(status, sum)| **sum > 0 || is_watched(*status)) {
                let labels = [("method", method.as_str()), ("code", &*status.text())];
                out.number(&all::REQUESTS, &labels, *sum);
            }
        }
        out.family(&all::REQUEST_DURATION);
        let times = self.sum(|worker| worker.request_times.distribution());
        out.histogram(&all::REQUEST_DURATION, &[], &times);
        out.family(&all::HANDSHAKE_DURATION);
        let times = self.sum(WorkerMetrics::handshake_times);
        let exemplars = latest(self.workers.iter().map(|worker| worker.handshake_exemplars()));
        out.histogram_with(&all::HANDSHAKE_DURATION, &[], &times, &exemplars);
    }

    fn ends(&self, out: &mut Text) {
        let ends = &self.counters.ends;
        out.family(&all::TUNNELS_CLOSED);
        let is_watched =
            |end: &End| end.during == Phase::Relay && WATCHED_ENDS.contains(&(end.by, end.why));
        for (end, number) in ends.closed().filter(|(end, number)| *number > 0 || is_watched(end)) {
            let labels = [
                ("by", end.by.as_str()),
                ("during", end.during.as_str()),
                ("why", end.why.as_str()),
            ];
            out.number(&all::TUNNELS_CLOSED, &labels, number);
        }
        out.family(&all::CLOSES);
        for (code, by, number) in ends.closes() {
            let labels = [("code", &*code.text()), ("by", by.as_str())];
            out.number(&all::CLOSES, &labels, number);
        }
        out.family(&all::TUNNEL_DURATION);
        out.histogram(&all::TUNNEL_DURATION, &[], &ends.durations.distribution());
    }

    fn messages(&self, out: &mut Text, sizes: &mut Sizes) {
        let from = |peer: Peer| [("from", Side::from(peer).as_str())];
        let passed = &self.traffic.0;
        out.family(&all::MESSAGES);
        for peer in Peer::BOTH {
            out.number(&all::MESSAGES, &from(peer), passed[peer].messages);
        }
        out.family(&all::MESSAGE_SIZE);
        for peer in Peer::BOTH {
            let large = self.workers.iter().map(|worker| Distribution {
                counts: worker.large_message_counts()[peer].to_vec(),
                sum: 0,
            });
            let Distribution { counts: large, .. } = Distribution::of(large);
            let counts = sizes.next(peer, passed[peer].messages, &large);
            let distribution = Distribution { counts, sum: passed[peer].sizes };
            out.histogram(&all::MESSAGE_SIZE, &from(peer), &distribution);
        }
        out.family(&all::PAYLOAD);
        for peer in Peer::BOTH {
            out.number(&all::PAYLOAD, &from(peer), passed[peer].payload);
        }
    }

    fn pings(&self, out: &mut Text) {
        out.family(&all::PING_RTT);
        let times = self.sum(|worker| worker.ping_times.distribution());
        out.histogram(&all::PING_RTT, &[], &times);
        out.family(&all::PINGS_UNANSWERED);
        out.number(&all::PINGS_UNANSWERED, &[], self.total(|worker| &worker.pings_unanswered));
    }

    fn rejections(&self, out: &mut Text) {
        out.family(&all::REJECTED);
        for (name, counter) in self.counters.named() {
            let is_rule = name.contains('.') || RULES.contains(&&*name);
            if is_rule {
                out.number(&all::REJECTED, &[("rule", &name)], Counter::here(counter));
            }
        }
    }

    fn upstream(&self, out: &mut Text) {
        out.family(&all::CONNECT_FAILURES);
        for reason in ConnectFailure::ALL {
            let failures = self.workers.iter().flat_map(|worker| worker.connect_failures());
            let number = failures.filter(|(why, _)| *why == reason).map(|(_, number)| number).sum();
            out.number(&all::CONNECT_FAILURES, &[("reason", reason.as_str())], number);
        }
        out.family(&all::LINKS_REUSED);
        out.number(&all::LINKS_REUSED, &[], self.total(|worker| &worker.links_reused));
        out.family(&all::POOL_IDLE);
        out.number(&all::POOL_IDLE, &[], self.total(|worker| &worker.links_idle));
        out.family(&all::RETRIES);
        out.number(&all::RETRIES, &[], self.total(|worker| &worker.retries));
        let EndpointCounts { now, changes, checks } = &self.endpoints;
        for (family, numbers) in [(&all::ENDPOINTS, now), (&all::ENDPOINT_CHANGES, changes)] {
            out.family(family);
            for (state, number) in EndpointState::ALL.iter().zip(numbers) {
                // Answers of name servers bring endpoints there, and no sign.
                let is_by_name = matches!(state, EndpointState::Held | EndpointState::Gone);
                if is_by_name && *family == all::ENDPOINT_CHANGES {
                    continue;
                }
                out.number(family, &[("state", state.as_str())], *number);
            }
        }
        out.family(&all::ENDPOINT_CHECKS);
        for (result, number) in Checked::ALL.iter().zip(checks) {
            out.number(&all::ENDPOINT_CHECKS, &[("result", result.as_str())], *number);
        }
    }

    fn process(&self, out: &mut Text) {
        let Process { cpu, open_descriptors, most_descriptors, resident, virtual_size, started } =
            self.process;
        let descriptors = |out: &mut Text, open: &Family, most: &Family| {
            out.family(open);
            out.number(open, &[], open_descriptors);
            out.family(most);
            match most_descriptors {
                Some(number) => out.number(most, &[], number),
                None => out.text(most, "+Inf"),
            }
        };
        descriptors(out, &all::OPEN_FDS, &all::MAX_FDS);
        out.family(&all::PROCESS_CPU);
        out.fraction(&all::PROCESS_CPU, &[], cpu.as_secs_f64());
        descriptors(out, &all::PROCESS_OPEN_FDS, &all::PROCESS_MAX_FDS);
        out.family(&all::PROCESS_RESIDENT);
        out.number(&all::PROCESS_RESIDENT, &[], resident);
        out.family(&all::PROCESS_VIRTUAL);
        out.number(&all::PROCESS_VIRTUAL, &[], virtual_size);
        out.family(&all::PROCESS_START);
        out.fraction(&all::PROCESS_START, &[], started.as_secs_f64());
    }
}
