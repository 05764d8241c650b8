//! Every metric: its name, type, labels, ranges and meaning. Pure.
//!
//! `docs/admin.md` has the same table, and a test holds the two together.

/// What kind of number a metric is, as `OpenMetrics` calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins at 0 with each process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Values in ranges, each with all below it.
    Histogram,
    /// Text in labels; the value is 1.
    Info,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What the names of its samples end with, behind the name of the metric; a histogram's are more.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge | Self::Histogram => "",
            Self::Info => "_info",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name as `OpenMetrics` has it: without the suffix of its samples.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit, which its name ends with; empty where it is a number of things.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The upper bounds of its ranges: bytes, or microseconds where the unit is seconds.
    pub ranges: &'static [u64],
    /// What it means.
    pub help: &'static str,
}

/// In microseconds.
const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// Times of requests and handshakes: a page of the application's, up to what waits for a person.
pub(crate) const REQUEST_TIMES: [u64; 14] = [
    MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
];

/// Ages of tunnels: a second, up to 30 days.
pub(crate) const TUNNEL_TIMES: [u64; 11] = [
    SECOND,
    10 * SECOND,
    60 * SECOND,
    300 * SECOND,
    1_800 * SECOND,
    3_600 * SECOND,
    21_600 * SECOND,
    86_400 * SECOND,
    259_200 * SECOND,
    604_800 * SECOND,
    2_592_000 * SECOND,
];

/// Sizes of messages, in bytes. The first is the most that a head of two bytes can announce (RFC 6455, section 5.2): the
/// path of such a message counts it once, in its tunnel, and no range.
pub(crate) const MESSAGE_SIZES: [u64; 8] =
    [125, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20];

/// Round trips to clients: a machine beside this one, up to a phone without a net.
pub(crate) const ROUND_TRIP_TIMES: [u64; 12] = [
    MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
];

/// Rounds of a worker: a few messages, up to what everybody notices.
pub(crate) const ROUND_TIMES: [u64; 10] = [
    50,
    100,
    250,
    500,
    MILLISECOND,
    2_500,
    5 * MILLISECOND,
    10 * MILLISECOND,
    50 * MILLISECOND,
    SECOND,
];

macro_rules! families {
    ($(
        $(#[doc = $help:literal])+
        $name:ident: $kind:ident, $text:literal, unit $unit:literal, labels $labels:expr, ranges $ranges:expr;
    )+) => {
        $(
            $(#[doc = $help])+
            pub(crate) const $name: Family = Family {
                name: $text,
                kind: Kind::$kind,
                unit: $unit,
                labels: &$labels,
                ranges: &$ranges,
                help: concat!($($help),+).trim_ascii(),
            };
        )+

        /// Every metric, in the order of a scrape.
        pub const ALL: &[Family] = &[$($name,)+];
    };
}

families! {
    /// The version that runs
    BUILD: Info, "elbows_build", unit "", labels ["version"], ranges [];
    /// Connections that were accepted
    CONNECTIONS: Counter, "elbows_connections", unit "", labels [], ranges [];
    /// Connections that are open and are no tunnels
    CONNECTIONS_OPEN: Gauge, "elbows_connections_open", unit "", labels [], ranges [];
    /// Requests that have ended or opened a tunnel, by method and status of the answer; those whose head breaks a rule, too, which requests of the summary leaves out
    REQUESTS: Counter, "elbows_requests", unit "", labels ["method", "code"], ranges [];
    /// From the head of a request to the end of its response; never a tunnel
    REQUEST_DURATION: Histogram, "elbows_request_duration_seconds", unit "seconds", labels [], ranges REQUEST_TIMES;
    /// From the head of a handshake until its client had the 101
    HANDSHAKE_DURATION: Histogram, "elbows_handshake_duration_seconds", unit "seconds", labels [], ranges REQUEST_TIMES;
    /// Tunnels that were opened
    TUNNELS_OPENED: Counter, "elbows_tunnels_opened", unit "", labels [], ranges [];
    /// Tunnels that are open
    TUNNELS_OPEN: Gauge, "elbows_tunnels_open", unit "", labels [], ranges [];
    /// Tunnels that ended, by who ended them, when, and why
    TUNNELS_CLOSED: Counter, "elbows_tunnels_closed", unit "", labels ["by", "during", "why"], ranges [];
    /// First Closes of tunnels that ended, by code and sender
    CLOSES: Counter, "elbows_closes", unit "", labels ["code", "by"], ranges [];
    /// Ages of tunnels that ended
    TUNNEL_DURATION: Histogram, "elbows_tunnel_duration_seconds", unit "seconds", labels [], ranges TUNNEL_TIMES;
    /// Messages, by sender, each counted when the head of its last frame came
    MESSAGES: Counter, "elbows_messages", unit "", labels ["from"], ranges [];
    /// Payload of messages, as on the wire, by sender
    MESSAGE_SIZE: Histogram, "elbows_message_size_bytes", unit "bytes", labels ["from"], ranges MESSAGE_SIZES;
    /// Payload that passed, as on the wire, that of unfinished messages too, by sender
    PAYLOAD: Counter, "elbows_payload_bytes", unit "bytes", labels ["from"], ranges [];
    /// From a Ping to a client until its Pong
    PING_RTT: Histogram, "elbows_ping_rtt_seconds", unit "seconds", labels [], ranges ROUND_TRIP_TIMES;
    /// Pings after which nothing came in time, so that the tunnel ended
    PINGS_UNANSWERED: Counter, "elbows_pings_unanswered", unit "", labels [], ranges [];
    /// What broke a rule or was over a limit, by the rule; what passes all the same is counted too
    REJECTED: Counter, "elbows_rejected", unit "", labels ["rule"], ranges [];
    /// Addresses of the upstream that took no connection, by reason
    CONNECT_FAILURES: Counter, "elbows_upstream_connect_failures", unit "", labels ["reason"], ranges [];
    /// Requests that went out on a connection that had been used before
    LINKS_REUSED: Counter, "elbows_upstream_connections_reused", unit "", labels [], ranges [];
    /// Connections to the upstream that are idle
    POOL_IDLE: Gauge, "elbows_pool_idle", unit "", labels [], ranges [];
    /// Handshakes and requests that were sent to another endpoint, since the one before closed without an answer
    RETRIES: Counter, "elbows_upstream_retries", unit "", labels [], ranges [];
    /// Endpoints of the application, by state
    ENDPOINTS: Gauge, "elbows_endpoints", unit "", labels ["state"], ranges [];
    /// How often a connection, an answer or a check brought an endpoint to a state
    ENDPOINT_CHANGES: Counter, "elbows_endpoint_changes", unit "", labels ["state"], ranges [];
    /// Checks of endpoints, by result
    ENDPOINT_CHECKS: Counter, "elbows_endpoint_checks", unit "", labels ["result"], ranges [];
    /// 1 while tunnels are evened out over their endpoints
    REBALANCING: Gauge, "elbows_rebalancing", unit "", labels [], ranges [];
    /// 1 where the process took over from one before it
    TOOK_OVER: Gauge, "elbows_took_over", unit "", labels [], ranges [];
    /// 1 from the order to stop on
    DRAINING: Gauge, "elbows_draining", unit "", labels [], ranges [];
    /// What the drain ended: tunnels whose client answered its Close, or did not in time, and tunnels and requests that were cut
    DRAIN_CLOSES: Counter, "elbows_drain_closes", unit "", labels ["result"], ranges [];
    /// Rounds of workers: the first of each 20 ms, and each that did more than pass messages
    ROUND: Histogram, "elbows_worker_round_seconds", unit "seconds", labels [], ranges ROUND_TIMES;
    /// Mistakes of elbows itself: panics, in connections, in tunnels and in what control does; the log says where
    PANICS: Counter, "elbows_panics", unit "", labels [], ranges [];
    /// Lines of both logs that were dropped, since their reader was too slow or gone
    LINES_DROPPED: Counter, "elbows_log_lines_dropped", unit "", labels [], ranges [];
    /// Descriptors that are open
    OPEN_FDS: Gauge, "elbows_open_fds", unit "", labels [], ranges [];
    /// Descriptors that may be open
    MAX_FDS: Gauge, "elbows_max_fds", unit "", labels [], ranges [];
    /// Time on a processor, of user and system
    PROCESS_CPU: Counter, "process_cpu_seconds", unit "seconds", labels [], ranges [];
    /// Descriptors that are open
    PROCESS_OPEN_FDS: Gauge, "process_open_fds", unit "", labels [], ranges [];
    /// Descriptors that may be open
    PROCESS_MAX_FDS: Gauge, "process_max_fds", unit "", labels [], ranges [];
    /// Memory that is resident
    PROCESS_RESIDENT: Gauge, "process_resident_memory_bytes", unit "bytes", labels [], ranges [];
    /// Address space
    PROCESS_VIRTUAL: Gauge, "process_virtual_memory_bytes", unit "bytes", labels [], ranges [];
    /// When the process started, since 1970
    PROCESS_START: Gauge, "process_start_time_seconds", unit "seconds", labels [], ranges [];
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_with_their_units() {
        let names: HashSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Family { name, unit, help, .. } in ALL {
            assert!(unit.is_empty() || name.ends_with(&format!("_{unit}")), "{name}");
            assert!(help.len() > 10 && !help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn ranges_ascend_and_histograms_alone_have_them() {
        for Family { name, kind, ranges, .. } in ALL {
            assert_eq!(!ranges.is_empty(), *kind == Kind::Histogram, "{name}");
            assert!(ranges.is_sorted_by(|one, next| one < next), "{name}");
        }
    }
}
