//! The state of a tunnel: everything beside its two sockets, as one value of plain data.

use std::time::Duration;

use super::close_handshake::{Close, CloseHandshake, CloseReason};
use super::flow::{Bulk, Context, Flow};
use super::identity::Identity;
use super::rules::Rulebook;
use super::times::Mark;
use super::{Pair, Peer, Protocol};
use crate::clock::Now;
use crate::end::{End, Phase, Reason, Side};
use crate::websocket::keepalive::{Keepalive, Secret};
use crate::words::words;

words! {
    /// How far a tunnel has come.
    pub enum Condition {
        /// It is open both ways.
        Open = "open",
        /// One side has ended its stream.
        HalfClosed = "half_closed",
        /// Its end is under way: a Close has passed, or elbows ends it.
        Closing = "closing",
    }
}

/// All that must be known to go on with a tunnel.
#[derive(Debug, PartialEq)]
pub struct State {
    /// Who it is.
    pub identity: Identity,
    /// What each side sends.
    pub flows: Pair<Flow>,
    pub(super) protocol: Protocol,
    /// It is there since a worker took the tunnel in and set its times.
    pub(super) secret: Option<Secret>,
    /// What is known of the client's being there.
    pub(super) client_alive: Keepalive,
    /// The same of the upstream, where it is pinged.
    pub(super) upstream_alive: Option<Box<Keepalive>>,
    /// Who sent the first Close, and its code.
    pub(super) close: Option<Close>,
    pub(super) close_handshake: CloseHandshake,
    /// What the Close that was ordered says, until it goes out.
    pub(super) close_reason: Option<Box<CloseReason>>,
    /// The side that ended, or broke, before the other did.
    pub(super) ended_first: Option<Peer>,
    /// Since when no data passed; where one side has ended, since when no byte did.
    pub(super) idle: Mark,
    /// Since when each side takes nothing.
    pub(super) stalled: Pair<u32>,
    /// How often it was handed to another process.
    pub(super) handoffs: u16,
}

impl State {
    /// A tunnel that opens now, with the bytes that each side sent before.
    #[must_use]
    pub fn new(protocol: Protocol, early: Pair<Vec<u8>>, identity: Identity) -> Self {
        let Pair { client, upstream } = early;
        Self {
            identity,
            flows: Pair {
                client: Flow::new(protocol, Peer::Client, client),
                upstream: Flow::new(protocol, Peer::Upstream, upstream),
            },
            protocol,
            secret: None,
            client_alive: Keepalive::new(0),
            upstream_alive: None,
            close: None,
            close_handshake: CloseHandshake::Open { due: None },
            close_reason: None,
            ended_first: None,
            idle: Mark::default(),
            stalled: Pair::default(),
            handoffs: 0,
        }
    }

    /// Counts that this process got it from another one. At 65,535 the count stays.
    pub const fn count_handoff(&mut self) {
        self.handoffs = self.handoffs.saturating_add(1);
    }

    /// How often it was handed from one process to another.
    #[must_use]
    pub const fn handoffs(&self) -> u16 {
        self.handoffs
    }

    /// The last and the longest round trip of our pings to the client, once there was one.
    #[must_use]
    pub fn ping_round_trips(&self) -> Option<(Duration, Duration)> {
        self.client_alive.round_trips().map(|trips| (trips.last, trips.worst))
    }

    /// Whether it speaks frames, broken ones included.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.protocol == Protocol::WebSocket
    }

    /// The first Close: its code, 1005 where it had none (RFC 6455, section 7.1.5), and who sent it.
    #[must_use]
    pub fn close(&self) -> Option<(u16, Side)> {
        self.close.map(|close| (close.code, close.by))
    }

    /// Nothing more can go either way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.flows.client.is_over() && self.flows.upstream.is_over()
    }

    /// How it ended, once it is over.
    ///
    /// A reset ended it, by the side that did it, even where the other side had half-closed before:
    /// half a tunnel still worked. Without a reset it was the side that ended first. A side that had
    /// sent all and its end, and refuses bytes after that, has closed: no byte of its own was lost.
    #[must_use]
    pub fn end(&self) -> End {
        if let Some(end) = self.close_handshake.end() {
            return end;
        }
        let first = self.ended_first.unwrap_or(Peer::Client);
        let (side, why) = match self.flows.both().map(|flow| flow.source.is_cut()) {
            [false, true] => (Peer::Upstream, Reason::Reset),
            [true, false] => (Peer::Client, Reason::Reset),
            [true, true] => (first, Reason::Reset),
            [false, false] => (first, Reason::Closed),
        };
        End::new(side.into(), Phase::Relay, why)
    }

    /// What names it among the tunnels of its worker, without telling its secret. Another tunnel with the same place has
    /// another name.
    pub(crate) fn name(&self) -> u64 {
        self.secret.unwrap_or_default().name()
    }

    /// How far it has come.
    pub(crate) fn condition(&self) -> Condition {
        let flows = self.flows.both();
        let is_open = matches!(self.close_handshake, CloseHandshake::Open { .. });
        if !is_open || self.close.is_some() {
            Condition::Closing
        } else if flows.iter().any(|flow| flow.source != super::Source::Open) {
            Condition::HalfClosed
        } else {
            Condition::Open
        }
    }

    /// Its end is under way because of its endpoint.
    pub(crate) fn is_leaving_endpoint(&self) -> bool {
        self.close_handshake.aim().is_some_and(|end| end.why.is_of_endpoint())
    }

    /// Something is under way: a message, or bytes that wait for a side.
    pub(crate) fn is_busy(&self) -> bool {
        self.flows.both().iter().any(|flow| {
            let is_between = flow.scanner.at_boundary() && !flow.scanner.in_message();
            !flow.waiting.is_empty() || flow.scanner.is_on() && !is_between
        })
    }

    /// A Close could be sent to the client: it is known where its frames begin.
    pub(crate) fn can_send_close(&self) -> bool {
        self.flows.upstream.scanner.is_on()
    }

    /// The last of it is on its way: nothing more passes.
    pub(crate) fn is_closing(&self) -> bool {
        self.close_handshake.end().is_some()
    }

    /// What is known of a side's being there, where it is pinged.
    pub(super) fn alive(&mut self, peer: Peer) -> Option<&mut Keepalive> {
        match peer {
            Peer::Client => Some(&mut self.client_alive),
            Peer::Upstream => self.upstream_alive.as_deref_mut(),
        }
    }

    /// The flow from `source`, and what it has to know.
    pub(super) fn flow<'s>(
        &'s mut self,
        source: Peer,
        rules: &'s Rulebook,
        now: Now,
        rearm: &'s mut bool,
        bulk: Option<&'s mut dyn Bulk>,
    ) -> (&'s mut Flow, Context<'s>) {
        let Self { flows, client_alive, upstream_alive, close, close_reason, secret, .. } = self;
        let upstream = upstream_alive.as_deref_mut();
        let alive = Pair { client: Some(client_alive), upstream };
        let (source_alive, sink_alive) = alive.into_split(source);
        let secret = secret.unwrap_or_default();
        let context = Context {
            rules,
            now,
            secret,
            source,
            source_alive,
            sink_alive,
            close,
            close_reason,
            rearm,
            bulk,
        };
        (&mut flows[source], context)
    }

    /// `side` has no connection any more: nothing can be sent to it, or nothing more comes.
    pub(super) fn is_broken(&self, side: Peer) -> bool {
        self.flows[side.other()].sink == super::Sink::Broken
            || self.flows[side].source == super::Source::Reset
    }

    /// The side that still has a connection, where the other has not.
    pub(crate) fn survivor(&self) -> Option<Peer> {
        match Peer::BOTH.map(|side| self.is_broken(side)) {
            [true, false] => Some(Peer::Upstream),
            [false, true] => Some(Peer::Client),
            _ => None,
        }
    }
}
