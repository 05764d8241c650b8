//! A tunnel: one upgraded connection as plain data.
//!
//! Two sockets, two flows, who it is. Everything that must be known to go on with it elsewhere is
//! in here, half-closed and broken sides included, so that a tunnel can be taken out of the relay
//! whole and given to another engine or another process. What a socket is ready for is not in here:
//! the kernel tells that again wherever the socket is registered.

mod identity;
mod waiting;

use std::net::TcpStream;
use std::time::Duration;

use crate::end::{End, Phase, Reason, Side};
use crate::relay::keepalive::Keepalive;
use crate::relay::scanner::Scanner;

pub use identity::Identity;
pub use waiting::Waiting;

/// One upgraded connection.
#[derive(Debug)]
pub struct Tunnel {
    /// The socket towards the client, non-blocking.
    pub client: TcpStream,
    /// The socket towards the upstream, non-blocking.
    pub upstream: TcpStream,
    /// What goes from the client to the upstream.
    pub from_client: Flow,
    /// What goes from the upstream to the client.
    pub from_upstream: Flow,
    /// Who it is.
    pub identity: Identity,
    pub(crate) protocol: Protocol,
    /// What is known of the client's being there.
    pub(crate) client_alive: Keepalive,
    /// The same of the upstream, where it is pinged.
    pub(crate) upstream_alive: Option<Box<Keepalive>>,
    /// Who sent the first Close, and its code.
    pub(crate) close: Option<Close>,
    /// How elbows ended it.
    pub(crate) ended: Option<End>,
}

/// What is spoken in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket (RFC 6455): its frames are followed.
    WebSocket,
    /// Anything else: bytes.
    Other,
}

/// The first Close of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) by: Side,
    /// 1005 where it has none (RFC 6455, section 7.1.5).
    pub(crate) code: u16,
}

/// One direction of a tunnel.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each may hold with any other.
pub struct Flow {
    /// Bytes read from the source that the sink has not taken yet. They go before anything else.
    pub waiting: Waiting,
    /// Bytes that the sink has taken.
    pub passed: u64,
    /// What can still come from the source.
    pub source: Source,
    /// What the sink can still take.
    pub sink: Sink,
    /// The source ended, or broke, before the source of the other direction did.
    pub ended_first: bool,
    /// What waits was read before the tunnel opened, and its frames have not been followed.
    pub(crate) is_unscanned: bool,
    /// Some of what waited was taken, since somebody last looked.
    pub(crate) has_moved: bool,
    /// Bytes came that were thrown away, since somebody last looked.
    pub(crate) has_come: bool,
    /// What the source sends behind its Close does not pass.
    pub(crate) ends_behind_close: bool,
    /// Follows the frames of what passes.
    pub(crate) scanner: Scanner,
    /// What becomes of what the source sends.
    pub(crate) course: Course,
    /// What of ours is to be put in.
    pub(crate) wants: Wants,
    /// Bytes of ours that were put in; they are among those that pass.
    pub(crate) own: u32,
}

/// What becomes of what the source sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Course {
    /// It passes.
    #[default]
    Passes,
    /// It is read and thrown away; what waits still goes out. The sink got a Close of ours.
    Discards,
    /// The same, and the sink is told that no more will come.
    Finishes,
}

/// What of ours is to be put into a flow, as soon as it is where that may stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing.
    #[default]
    Nothing,
    /// A Ping.
    Ping,
    /// A Close; nothing else passes behind it.
    Close {
        /// Its code.
        code: u16,
        /// It waits for the end of an unfinished message, not only of a frame.
        after_message: bool,
        /// Behind it the flow does this.
        then: Course,
    },
}

/// The reading end of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Bytes may come.
    #[default]
    Open,
    /// The connection is broken. What came before that is still to be read.
    Broken {
        /// The kernel reports a reset once. It has done so, so that the end of the stream that it
        /// reports from now on is not one that the source sent.
        told: bool,
    },
    /// It has sent its last byte, and said so (FIN).
    Ended,
    /// It broke off without saying so (RST, or no answer). All that came before has been read.
    Reset,
}

/// The writing end of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// It may take bytes.
    #[default]
    Open,
    /// It has been told that no more will come (FIN).
    Ended,
    /// Its connection is broken: it takes nothing any more.
    Broken,
}

impl Tunnel {
    /// A tunnel of two sockets, non-blocking, each with the bytes that were read from it before the
    /// tunnel opened.
    #[must_use]
    pub fn new(
        protocol: Protocol,
        client: (TcpStream, Vec<u8>),
        upstream: (TcpStream, Vec<u8>),
        identity: Identity,
    ) -> Self {
        let flow = |waiting: Vec<u8>, side| {
            let scanner = match protocol {
                Protocol::WebSocket => Scanner::new(side),
                Protocol::Other => Scanner::off(),
            };
            Flow { waiting: waiting.into(), scanner, is_unscanned: true, ..Flow::default() }
        };
        Self {
            from_client: flow(client.1, Side::Client),
            from_upstream: flow(upstream.1, Side::Upstream),
            client: client.0,
            upstream: upstream.0,
            identity,
            protocol,
            client_alive: Keepalive::new(0),
            upstream_alive: None,
            close: None,
            ended: None,
        }
    }

    /// The last and the longest round trip of our pings to the client, once there was one.
    #[must_use]
    pub fn ping_round_trips(&self) -> Option<(Duration, Duration)> {
        self.client_alive.round_trips().map(|trips| (trips.last, trips.worst))
    }

    /// Whether it speaks frames, broken ones included.
    pub(crate) fn is_websocket(&self) -> bool {
        self.protocol == Protocol::WebSocket
    }

    /// Nothing more can go either way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.from_client.is_over() && self.from_upstream.is_over()
    }

    /// How it ended, once it is over.
    ///
    /// A reset ended it, by the side that did it, even where the other side had half-closed before:
    /// half a tunnel still worked. Without a reset it was the side that ended first. A side that had
    /// sent all and its end, and refuses bytes after that, has closed: no byte of its own was lost.
    #[must_use]
    pub fn end(&self) -> End {
        if let Some(end) = self.ended {
            return end;
        }
        let (client, upstream) = (&self.from_client, &self.from_upstream);
        let (side, why) = match (client.source.is_cut(), upstream.source.is_cut()) {
            (false, true) => (Side::Upstream, Reason::Reset),
            (true, true) if upstream.ended_first => (Side::Upstream, Reason::Reset),
            (true, _) => (Side::Client, Reason::Reset),
            (false, false) if upstream.ended_first => (Side::Upstream, Reason::Closed),
            (false, false) => (Side::Client, Reason::Closed),
        };
        End::new(side, Phase::Relay, why)
    }
}

impl Flow {
    /// Bytes that came from the source and that the sink has taken: without ours.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.passed.saturating_sub(self.own.into())
    }

    /// What passed so far could be all: it ends with a whole message, or a Close.
    pub(crate) fn ends_well(&self) -> bool {
        let is_whole = self.scanner.at_boundary() && !self.scanner.in_message();
        is_whole || self.scanner.is_behind_close()
    }

    /// Its sink is gone and it is read on, to see the source's Close.
    pub(crate) fn is_deaf(&self) -> bool {
        self.ends_behind_close && self.sink == Sink::Broken
    }

    /// Nothing more can go this way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        if self.course != Course::Passes {
            // Closing a socket with bytes unread resets it, and what was sent to it may be lost.
            return self.sink != Sink::Open && matches!(self.source, Source::Ended | Source::Reset);
        }
        self.sink != Sink::Open || (self.source == Source::Reset && self.waiting.is_empty())
    }
}

impl Source {
    /// It stopped without an end of the stream.
    const fn is_cut(self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Reset)
    }
}
