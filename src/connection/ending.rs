//! How a connection ends: as a tunnel, behind an answer, or because the process ends.

use std::net::SocketAddr;

use super::closing::{Closing, Linger};
use super::{Connection, ConnectionState};
use crate::access_log::Entry;
use crate::client::Client;
use crate::end::{End, Phase, Reason, Side};
use crate::exchange::link::Release;
use crate::exchange::{Exchange, Stop};
use crate::limits::Seat;
use crate::proxy::Context;
use crate::tunnel::Protocol;

/// A handshake that has been granted.
pub(crate) struct Switching {
    pub(crate) protocol: Protocol,
    pub(crate) entry: Entry,
    pub(crate) client: Box<Client>,
    /// What the client sent behind its head.
    pub(crate) client_early: Vec<u8>,
    /// What the upstream sent behind its 101.
    pub(crate) upstream_early: Vec<u8>,
    pub(crate) upstream: Option<SocketAddr>,
}

impl Connection {
    /// The exchange does not go on.
    pub(super) fn stop(&mut self, stop: Stop, context: &Context<'_>) {
        let phase = std::mem::replace(&mut self.state, ConnectionState::Head);
        let ConnectionState::Exchange(exchange) = phase else {
            self.state = phase;
            return;
        };
        match stop {
            Stop::Switched { protocol, subprotocol } => {
                self.switch(exchange, protocol, &subprotocol, context);
            }
            Stop::Cut(end) => {
                self.release = Some(Release::Close);
                self.log(&exchange.entry, end, context);
                let has_left = matches!(end.why, Reason::Closed | Reason::Reset | Reason::Stalled);
                if end.by == Side::Client && has_left {
                    // Nobody is there any more to get what waits.
                    self.state = ConnectionState::Over { with_reset: false };
                } else if exchange.needs_reset() && end.why != Reason::Complete {
                    self.close(Linger::ThenReset, context);
                } else {
                    self.close(Linger::Long, context);
                }
            }
            Stop::Rejected(rejection) if exchange.has_begun() => {
                // Too late for another answer: what is under way is cut.
                rejection.count(&context.proxy.counters);
                self.state = ConnectionState::Exchange(exchange);
                self.stop(Stop::Cut(rejection.end(Phase::Response)), context);
            }
            Stop::Rejected(rejection) => {
                self.release = Some(Release::Close);
                let is_body_open = !exchange.is_request_over();
                let form = exchange.form();
                self.reject(&rejection, exchange.entry, form, is_body_open, context);
            }
        }
    }

    pub(super) fn switch(
        &mut self,
        exchange: Box<Exchange>,
        protocol: Protocol,
        subprotocol: &[u8],
        context: &Context<'_>,
    ) {
        let Some(client) = self.client.take() else { return };
        let (mut entry, upstream_early, memory) = exchange.into_early();
        context.spare.leave(memory);
        entry.status = Some(101);
        entry.chosen(subprotocol);
        self.state = ConnectionState::Switching(Box::new(Switching {
            protocol,
            upstream: entry.upstream,
            entry,
            client,
            client_early: Vec::new(),
            upstream_early,
        }));
    }

    /// The handshake that was granted, once the client has been told.
    pub(crate) fn into_switching(self) -> Option<(Box<Switching>, Seat)> {
        let ConnectionState::Switching(mut switching) = self.state else { return None };
        switching.client_early = self.unread.into();
        Some((switching, self.seat))
    }

    /// The client has left before it was told of its 101.
    pub(super) fn end_of_switching(&mut self, end: End, context: &Context<'_>) {
        let phase = std::mem::replace(&mut self.state, ConnectionState::Over { with_reset: false });
        self.release = Some(Release::Close);
        if let ConnectionState::Switching(switching) = phase {
            tell(&switching.entry, Some(&switching.client), end, context);
        }
    }

    /// Ends the connection once the client has taken what waits.
    pub(super) fn close(&mut self, linger: Linger, context: &Context<'_>) {
        self.forget_unread();
        let mut closing = Closing::new(linger);
        if self.to_client.is_empty() {
            closing.all_is_taken(context.now);
        }
        if self.has_ended {
            closing.client_ended(context.now);
        }
        self.state = ConnectionState::Closing(closing);
        self.see_end_of_closing(context);
    }

    pub(super) fn see_end_of_closing(&mut self, context: &Context<'_>) {
        if let ConnectionState::Closing(closing) = &self.state
            && closing.is_due(context.now)
        {
            self.state = ConnectionState::Over { with_reset: closing.with_reset() };
        }
    }

    /// The drain is over, and what is left is cut. Whether a request was under way.
    pub(crate) fn cut(&mut self, context: &Context<'_>) -> bool {
        let end = End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver);
        let was_asked =
            match std::mem::replace(&mut self.state, ConnectionState::Over { with_reset: false }) {
                ConnectionState::Exchange(exchange) => {
                    self.log(&exchange.entry, end, context);
                    self.release = Some(Release::Close);
                    true
                }
                ConnectionState::Switching(switching) => {
                    tell(&switching.entry, Some(&switching.client), end, context);
                    true
                }
                _ => false,
            };
        self.to_client.clear();
        was_asked
    }

    pub(super) fn log(&self, entry: &Entry, end: End, context: &Context<'_>) {
        tell(entry, self.client.as_deref(), end, context);
    }
}

/// Counts and logs a request that has ended without a tunnel.
fn tell(entry: &Entry, client: Option<&Client>, end: End, context: &Context<'_>) {
    let metrics = context.metrics;
    metrics.request(entry.method, entry.status);
    metrics.request_ended(context.now.saturating_duration_since(entry.started));
    if let Some(client) = client {
        context.proxy.access_log.request(entry, client, end, context.now);
    }
}
