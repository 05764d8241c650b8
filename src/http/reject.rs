//! What is answered when a request is not passed on, or its response is not to be had.
//!
//! Every status of our own is chosen here and nowhere else. Each answer is one line of plain text;
//! the reason in detail is in the log.

use std::net::SocketAddr;
use std::time::Instant;

use super::head::Fault;
use super::own::Own;
use super::request_id::RequestId;
use crate::end::{End, Phase, Reason, Side};
use crate::limits::Over;
use crate::metrics::Counters;
use crate::proxy::Proxy;
use crate::upstream;

/// Seconds until a client that found no room should try again. Connections last: at once is too soon.
const CROWDED: u64 = 5;

/// Why elbows answers in the upstream's place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    /// `PROXY_PROTOCOL=required`, and the connection began without.
    #[error("PROXY header required")]
    NoProxyHeader,
    /// A limit of connections or handshakes is reached.
    #[error("{}", over(*.0))]
    Over(Over),
    /// The page is not one of `ALLOWED_ORIGINS` (RFC 6455, section 10.2).
    #[error("origin not allowed")]
    Origin,
    /// No route takes it, and there is no default one.
    #[error("no route")]
    NoRoute,
    /// Which route takes it depends on how its path is read.
    #[error("the path can be read in two ways")]
    UnclearPath,
    /// Longer than `MAX_BODY_SIZE`.
    #[error("request body too long")]
    LongBody,
    /// The client stopped in the middle of its body.
    #[error("request body too slow")]
    SlowBody,
    /// The head of the request breaks a rule.
    #[error("{0}")]
    BadHead(Fault),
    /// The head of the request had begun and was not whole in time (RFC 9110, section 15.5.9).
    #[error("request head too slow")]
    SlowHead,
    /// The client's body breaks a rule.
    #[error("{0}")]
    BadBody(Fault),
    /// The client's body ended before its time.
    #[error("request body incomplete")]
    CutBody,
    /// There is no connection to the upstream.
    #[error(transparent)]
    Connection(upstream::Fault),
    /// No response head came in time.
    #[error("no response within RESPONSE_HEAD_TIMEOUT")]
    NoResponse,
    /// The upstream closed before it had answered.
    #[error("the upstream closed the connection without a response: {0}")]
    UpstreamClosed(&'static str),
    /// The upstream's answer breaks a rule.
    #[error("the upstream's response breaks a rule: {0}")]
    BadResponse(Fault),
    /// The upstream changes to a protocol that nobody offered (RFC 9110, section 7.8).
    #[error("the upstream changed to a protocol that was not offered")]
    UnaskedUpgrade,
}

impl Rejection {
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::BadHead(fault) => status_of(*fault),
            Self::NoProxyHeader | Self::BadBody(_) | Self::CutBody | Self::UnclearPath => 400,
            Self::NoRoute => 404,
            Self::Over(Over::Connections) | Self::Connection(upstream::Fault::AllDown { .. }) => {
                503
            }
            // RFC 6585, section 4.
            Self::Over(Over::ConnectionsOfClient | Over::HandshakeRate(_)) => 429,
            Self::Origin => 403,
            Self::LongBody => 413,
            Self::SlowBody | Self::SlowHead => 408,
            Self::NoResponse => 504,
            Self::Connection(_) => match self.why() {
                Reason::Timeout => 504,
                Reason::NoRoom => 503,
                _ => 502,
            },
            Self::UpstreamClosed(_) | Self::BadResponse(_) | Self::UnaskedUpgrade => 502,
        }
    }

    const fn by(&self) -> Side {
        match self {
            Self::Over(Over::Connections) => Side::Elbows,
            Self::Over(Over::ConnectionsOfClient | Over::HandshakeRate(_))
            | Self::NoProxyHeader
            | Self::BadHead(_)
            | Self::SlowHead
            | Self::BadBody(_)
            | Self::Origin
            | Self::NoRoute
            | Self::UnclearPath
            | Self::LongBody
            | Self::SlowBody
            | Self::CutBody => Side::Client,
            Self::Connection(_) => match self.why() {
                Reason::NoRoom => Side::Elbows,
                _ => Side::Upstream,
            },
            Self::NoResponse
            | Self::UpstreamClosed(_)
            | Self::BadResponse(_)
            | Self::UnaskedUpgrade => Side::Upstream,
        }
    }

    const fn why(&self) -> Reason {
        match self {
            Self::NoProxyHeader => Reason::NoProxyHeader,
            Self::BadHead(fault) => match status_of(*fault) {
                431 => Reason::TooBig,
                414 | 501 => Reason::Refused,
                _ => Reason::Malformed,
            },
            Self::BadBody(_) | Self::BadResponse(_) | Self::UnaskedUpgrade => Reason::Malformed,
            Self::Origin | Self::NoRoute | Self::UnclearPath => Reason::Refused,
            Self::Over(_) => Reason::OverLimit,
            Self::LongBody => Reason::TooBig,
            Self::SlowHead | Self::SlowBody | Self::NoResponse => Reason::Timeout,
            Self::CutBody | Self::UpstreamClosed(_) => Reason::Closed,
            Self::Connection(fault) => fault.reason(),
        }
    }

    /// Whether the connection ends behind the answer: what follows a fault of the client cannot be trusted to be
    /// what it seems, and a connection over a limit is refused whole.
    pub(crate) fn closes(&self) -> bool {
        matches!(self, Self::Over(_)) || self.by() == Side::Client
    }

    /// When the client should try again, in seconds, where that can help.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Over(Over::HandshakeRate(wait)) => {
                Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
            }
            Self::Over(_) => Some(CROWDED),
            Self::Connection(upstream::Fault::AllDown { retry_after }) => {
                Some(retry_after.as_secs().max(1))
            }
            _ => (self.status() == 503).then_some(1),
        }
    }

    /// What the client is told: nothing about names and addresses behind elbows.
    fn text(&self) -> String {
        match self.status() {
            _ if matches!(self, Self::Connection(upstream::Fault::AllDown { .. })) => {
                String::from("upstream unavailable\n")
            }
            502 => String::from("upstream unavailable\n"),
            504 => String::from("upstream too slow\n"),
            503 => String::from("no room for another connection\n"),
            _ => format!("{self}\n"),
        }
    }
}

/// The status of a head, or body, that breaks a rule.
const fn status_of(fault: Fault) -> u16 {
    match fault {
        Fault::LongTarget => 414,
        Fault::LongHead | Fault::ManyFields => 431,
        Fault::Connect | Fault::UnknownCoding => 501,
        Fault::Version => 505,
        _ => 400,
    }
}

/// The limit, in the words that the client gets: nothing of numbers.
const fn over(over: Over) -> &'static str {
    match over {
        Over::Connections => "no room for another connection",
        Over::ConnectionsOfClient => "too many connections",
        Over::HandshakeRate(_) => "too many handshakes",
    }
}

impl Rejection {
    /// The end of a request that is rejected in this phase.
    pub(crate) const fn end(&self, during: Phase) -> End {
        End::new(self.by(), during, self.why())
    }

    /// Gives `write` the answer.
    pub(crate) fn answer<R>(&self, write: impl FnOnce(&Own<'_>) -> R) -> R {
        let text = self.text();
        write(&Own {
            status: self.status(),
            content_type: "text/plain",
            retry_after: self.retry_after(),
            is_volatile: false,
            text: text.as_bytes(),
        })
    }

    /// Counts the rule or the limit that it is about.
    pub(crate) fn count(&self, counters: &Counters) {
        match self {
            Self::BadHead(fault) => {
                counters.http_faults.add(*fault);
                counters.refused_heads.add(1);
                if matches!(fault, Fault::LongHead | Fault::ManyFields) {
                    counters.large_heads.add(1);
                }
            }
            Self::SlowHead => counters.slow_heads.add(1),
            Self::NoProxyHeader => counters.proxy_headers_missing.add(1),
            Self::Over(over) => counters.over(*over),
            Self::Origin => counters.refused_origins.add(1),
            Self::LongBody => counters.large_bodies.add(1),
            Self::BadBody(fault) => counters.http_faults.add(*fault),
            Self::BadResponse(fault) => counters.response_faults.by_rule.add(*fault),
            Self::UnaskedUpgrade => counters.response_faults.unasked_upgrades.add(1),
            _ => {}
        }
    }

    /// The rule of HTTP that was broken, if one was.
    const fn rule(&self) -> Option<Fault> {
        match self {
            Self::BadHead(fault) | Self::BadBody(fault) | Self::BadResponse(fault) => Some(*fault),
            _ => None,
        }
    }

    /// Counts it, and tells the log: the fault of a peer at debug, one of ours as an error.
    pub(crate) fn note(&self, from: &From<'_>, proxy: &Proxy, now: Instant) {
        let (counters, From { client, request_id }) = (&proxy.counters, from);
        self.count(counters);
        let rule = self.rule().map(Fault::as_str);
        if matches!(self, Self::BadHead(_) | Self::SlowHead) {
            tracing::debug!(%client, rule, "refused: {self}");
            return;
        }
        counters.rejected(self.status());
        match self.by() {
            // A limit does what it is for.
            Side::Elbows if matches!(self, Self::Over(_)) => tracing::debug!(%client, "{self}"),
            Side::Elbows => {
                counters.no_room.add(1);
                if counters.no_room_told.lets_through() {
                    tracing::error!(%request_id, "{self}");
                }
            }
            // An operator wants to know, but a thousand requests to a dead upstream are no thousand
            // faults of this process.
            Side::Upstream => {
                proxy.warnings.upstream_failed(self.why(), self.status(), self, now);
                tracing::debug!(%request_id, rule, "{self}");
            }
            Side::Client => tracing::debug!(%client, rule, "{self}"),
        }
    }
}

/// Whose request is rejected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) request_id: &'a RequestId,
}
