//! Why something ended: by whom, in which phase, for what reason.
//!
//! One value feeds the access log, the counters and the HTTP status, so that they never tell
//! different stories. The words printed here are the words in `docs/operations.md`.

use std::fmt;

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that asked, behind the load balancer.
    Client,
    /// The application.
    Upstream,
    /// This process.
    Elbows,
}

/// How far it had come when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The PROXY header was read, or waited for.
    ProxyHeader,
    /// The request was read and passed on; the head of the response had not come.
    Request,
    /// The response was passed on.
    Response,
    /// The upgrade was asked for and not yet granted.
    Handshake,
    /// The tunnel was open.
    Relay,
    /// The tunnel was open and elbows was on its way out.
    Drain,
}

/// For what reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All that there was to pass on has been passed on.
    Complete,
    /// The side closed its connection before that.
    Closed,
    /// The side reset its connection.
    Reset,
    /// The side sent something that breaks a rule of HTTP, WebSocket or the PROXY protocol.
    Malformed,
    /// A PROXY header is required and there was none.
    NoProxyHeader,
    /// A rule of the settings forbids it.
    Refused,
    /// The client, or all together, are as many or as often as the settings allow.
    OverLimit,
    /// The name of the upstream has no address.
    Unresolved,
    /// No address of the upstream took the connection.
    Unreachable,
    /// The side did not do its part in the time that it had.
    Timeout,
    /// No descriptor, port or memory was left for it.
    NoRoom,
    /// The side sent a head, a body, or a WebSocket frame or message above the limit.
    TooBig,
    /// The side answered our Close in time.
    Drained,
    /// Nothing was said for as long as the settings allow.
    Idle,
    /// It was as old as the settings allow.
    Lifetime,
    /// The side took no byte for as long as the settings allow.
    Stalled,
    /// The drain period was over.
    PeriodOver,
    /// A mistake of elbows itself: see [`crate::panics`].
    Mistake,
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

impl Side {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Client, Self::Upstream, Self::Elbows];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Elbows => "elbows",
        }
    }
}

impl Phase {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::ProxyHeader,
        Self::Request,
        Self::Response,
        Self::Handshake,
        Self::Relay,
        Self::Drain,
    ];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy_header",
            Self::Request => "request",
            Self::Response => "response",
            Self::Handshake => "handshake",
            Self::Relay => "relay",
            Self::Drain => "drain",
        }
    }
}

impl Reason {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 18] = [
        Self::Complete,
        Self::Closed,
        Self::Reset,
        Self::Malformed,
        Self::NoProxyHeader,
        Self::Refused,
        Self::OverLimit,
        Self::Unresolved,
        Self::Unreachable,
        Self::Timeout,
        Self::NoRoom,
        Self::TooBig,
        Self::Drained,
        Self::Idle,
        Self::Lifetime,
        Self::Stalled,
        Self::PeriodOver,
        Self::Mistake,
    ];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::NoProxyHeader => "no_proxy_header",
            Self::Refused => "refused",
            Self::OverLimit => "over_limit",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::NoRoom => "no_room",
            Self::TooBig => "too_big",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Stalled => "stalled",
            Self::PeriodOver => "period_over",
            Self::Mistake => "mistake",
        }
    }

    /// The codes that go out where a side of a tunnel does this. Where elbows ends one of its own
    /// accord, `DRAIN_CLOSE_CODE` goes to both.
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
