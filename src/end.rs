//! Why something ended: by whom, in which phase, for what reason.
//!
//! One value feeds the access log, the counters and the HTTP status, so that they never tell
//! different stories. The words printed here are the words in `docs/operations.md`.

use std::fmt;

use crate::words::words;

words! {
    /// Who ended it.
    pub enum Side {
        /// The side that asked, behind the load balancer.
        Client = "client",
        /// The application.
        Upstream = "upstream",
        /// This process.
        Elbows = "elbows",
    }
}

words! {
    /// How far it had come when it ended.
    pub enum Phase {
        /// The PROXY header was read, or waited for.
        ProxyHeader = "proxy_header",
        /// The request was read and passed on; the head of the response had not come.
        Request = "request",
        /// The response was passed on.
        Response = "response",
        /// The upgrade was asked for and not yet granted.
        Handshake = "handshake",
        /// The tunnel was open.
        Relay = "relay",
        /// The tunnel was open and elbows was on its way out.
        Drain = "drain",
    }
}

words! {
    /// For what reason.
    pub enum Reason {
        /// All that there was to pass on has been passed on.
        Complete = "complete",
        /// The side closed its connection before that.
        Closed = "closed",
        /// The side reset its connection.
        Reset = "reset",
        /// The side sent something that breaks a rule of HTTP, WebSocket or the PROXY protocol.
        Malformed = "malformed",
        /// A PROXY header is required and there was none.
        NoProxyHeader = "no_proxy_header",
        /// A rule of the settings forbids it.
        Refused = "refused",
        /// The client, or all together, are as many or as often as the settings allow.
        OverLimit = "over_limit",
        /// The name of the upstream has no address.
        Unresolved = "unresolved",
        /// No address of the upstream took the connection.
        Unreachable = "unreachable",
        /// The side did not do its part in the time that it had.
        Timeout = "timeout",
        /// No descriptor, port or memory was left for it.
        NoRoom = "no_room",
        /// The side sent a head, a body, or a WebSocket frame or message above the limit.
        TooBig = "too_big",
        /// The side answered our Close in time.
        Drained = "drained",
        /// Nothing was said for as long as the settings allow.
        Idle = "idle",
        /// It was as old as the settings allow.
        Lifetime = "lifetime",
        /// The side took no byte for as long as the settings allow.
        Stalled = "stalled",
        /// The drain period was over.
        PeriodOver = "period_over",
        /// Whoever has the token of the admin port asked for it.
        Ordered = "ordered",
        /// Its endpoint had more tunnels than its share.
        Rebalanced = "rebalanced",
        /// No answer of a name server has its endpoint any more.
        EndpointGone = "endpoint_gone",
        /// A mistake of elbows itself: see [`crate::panics`].
        Mistake = "mistake",
    }
}

/// The codes of Close frames (RFC 6455, section 7.4.1) to both sides of a tunnel that ends because of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CloseCodes {
    /// To the side that is the reason, where there is a word for it.
    pub(crate) to_it: Option<u16>,
    /// To the other one.
    pub(crate) to_other: u16,
}

/// One ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Who ended it.
    pub by: Side,
    /// How far it had come.
    pub during: Phase,
    /// For what reason.
    pub why: Reason,
}

impl End {
    /// An end by `by`, in phase `during`, because of `why`.
    #[must_use]
    pub const fn new(by: Side, during: Phase, why: Reason) -> Self {
        Self { by, during, why }
    }
}

impl Reason {
    /// The client was sent to another endpoint.
    pub(crate) const fn is_of_endpoint(self) -> bool {
        matches!(self, Self::Rebalanced | Self::EndpointGone)
    }

    /// The codes that go out where a side of a tunnel does this. Where elbows ends one of its own
    /// accord, `DRAIN_CLOSE_CODE` goes to both; 1012 where the client is to go to another endpoint.
    pub(crate) const fn close_codes(self) -> CloseCodes {
        const GOING_AWAY: u16 = 1001;
        const PROTOCOL_ERROR: u16 = 1002;
        const MESSAGE_TOO_BIG: u16 = 1009;
        match self {
            Self::TooBig => CloseCodes { to_it: Some(MESSAGE_TOO_BIG), to_other: GOING_AWAY },
            Self::Malformed => CloseCodes { to_it: Some(PROTOCOL_ERROR), to_other: PROTOCOL_ERROR },
            _ => CloseCodes { to_it: None, to_other: GOING_AWAY },
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "by={} during={} why={}",
            self.by.as_str(),
            self.during.as_str(),
            self.why.as_str()
        )
    }
}
