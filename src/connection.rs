//! One connection of a client, from accept until it is a tunnel or has ended.
//!
//! ```text
//! Identify ──PROXY header──▶ Head ──whole──▶ admission ─┬─▶ own response ──▶ Head, or Closing
//!     │                       ▲                         └─▶ Exchange ─┬─ over ─▶ Head, or Closing
//!     │ over a limit          └──────────────────────────────────────┤
//!     ▼                                                              └─ 101 ──▶ Switching ──▶ tunnel
//!  Refused ──request line──▶ Closing ──all taken, and the client has closed, or its time is over──▶ Over
//! ```
//!
//! The machine has no sockets and no clock. Whoever drives it tells it what the client sent
//! ([`Connection::client_sent`]), what the upstream sent, ends, faults and time; writes what waits in
//! [`Connection::client_out`] and [`Exchange::upstream_out`]; and does what [`Connection::wish`] and
//! [`Connection::lifecycle`] say. A request that comes byte by byte and one that comes whole take the same way.

mod closing;
mod ending;
mod events;
mod identify;
mod request;
#[cfg(test)]
mod tests;
mod times;
mod wishes;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use self::closing::{Closing, Linger};
pub(crate) use self::ending::Switching;
pub(crate) use self::wishes::Lifecycle;
use crate::client::Client;
use crate::exchange::Exchange;
use crate::exchange::link::Release;
use crate::http::head::Reader;
use crate::limits::{Over, Seat};
use crate::outgoing::Outgoing;
use crate::proxy::Context;

/// The most that is kept of what a client sends before it is its turn. Whoever has sent so much is not read.
const MOST_UNREAD: usize = 64 * 1024;

/// A connection.
pub(crate) struct Connection {
    state: ConnectionState,
    /// Who it is, once that is known.
    client: Option<Box<Client>>,
    /// The limit that there is no room under, if there is one.
    over: Option<Over>,
    balancer: SocketAddr,
    /// What the client sent that nobody has dealt with.
    unread: BytesMut,
    reader: Reader,
    /// What the client has not taken yet.
    to_client: Outgoing,
    /// When it came to its state.
    since: Instant,
    /// Since when as much is unread as is kept.
    full_since: Option<Instant>,
    /// How long the client may take no byte of what waits for it, once a request of it has a route.
    stall_timeout: Option<Duration>,
    /// A request was read before.
    is_used: bool,
    /// The client will send no more.
    has_ended: bool,
    /// What becomes of the link to the upstream that an exchange had.
    release: Option<Release>,
    /// Its place in the counts. Dropped last: whoever waits for it finds the log line written.
    seat: Seat,
}

enum ConnectionState {
    /// The PROXY header is read, or waited for.
    Identify,
    /// A request head is read, or waited for.
    Head,
    /// It is over a limit: its request line is waited for.
    Refused,
    Exchange(Box<Exchange>),
    /// The client is to take a 101.
    Switching(Box<Switching>),
    Closing(Closing),
    /// It is over.
    Over {
        with_reset: bool,
    },
}

impl Connection {
    /// A connection that was accepted at `now`, from `balancer`. `over` is the limit that it is over already.
    pub(crate) fn new(balancer: SocketAddr, seat: Seat, over: Option<Over>, now: Instant) -> Self {
        Self {
            state: ConnectionState::Identify,
            client: None,
            over,
            balancer,
            unread: BytesMut::new(),
            reader: Reader::default(),
            to_client: Outgoing::default(),
            since: now,
            full_since: None,
            stall_timeout: None,
            is_used: false,
            has_ended: false,
            release: None,
            seat,
        }
    }

    /// The client sent these bytes.
    pub(crate) fn client_sent(&mut self, bytes: &[u8], context: &Context<'_>) {
        if let ConnectionState::Closing(closing) = &mut self.state {
            closing.client_sent(bytes.len(), context.now);
            return self.see_end_of_closing(context);
        }
        if self.unread.is_empty() {
            let used = self.read(bytes, context);
            self.unread.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            self.unread.extend_from_slice(bytes);
            self.read_on(context);
        }
    }

    /// Reads what is there, as far as it is its turn.
    pub(crate) fn read_on(&mut self, context: &Context<'_>) {
        if self.unread.is_empty() {
            return;
        }
        let mut unread = std::mem::take(&mut self.unread);
        let used = self.read(&unread, context);
        if used < unread.len() {
            unread.advance(used);
            self.unread = unread;
        }
    }

    /// Reads `bytes`, the first that are unread, as far as it is their turn; says how many were dealt with.
    fn read(&mut self, bytes: &[u8], context: &Context<'_>) -> usize {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let used = match &mut self.state {
                _ if rest.is_empty() => None,
                ConnectionState::Identify => self.identify(rest, context),
                // An answer that waits comes first: who does not read is not read.
                ConnectionState::Head if !self.to_client.is_empty() => None,
                ConnectionState::Head => self.read_head(rest, context),
                ConnectionState::Refused => self.read_refused(rest, context),
                ConnectionState::Exchange(exchange) if !exchange.is_request_over() => {
                    let (used, passed) = exchange.client_sent(rest, context);
                    if let Err(stop) = passed {
                        self.stop(stop, context);
                        return bytes.len();
                    }
                    self.see_end_of_exchange(context);
                    (used > 0).then_some(used)
                }
                ConnectionState::Closing(_) | ConnectionState::Over { .. } => return bytes.len(),
                ConnectionState::Exchange(_) | ConnectionState::Switching(_) => None,
            };
            match used {
                Some(used) => at += used,
                None => return at,
            }
        }
    }

    /// Whether the exchange has passed both ways, and what comes behind it.
    fn see_end_of_exchange(&mut self, context: &Context<'_>) {
        let exchange = match std::mem::replace(&mut self.state, ConnectionState::Head) {
            ConnectionState::Exchange(exchange) if exchange.is_over() => exchange,
            other => {
                self.state = other;
                return;
            }
        };
        let closes = exchange.closes() || !exchange.is_request_over();
        self.release = Some(exchange.release());
        let (entry, memory) = exchange.into_memory();
        context.spare.leave(memory);
        self.log(&entry, Exchange::complete(), context);
        self.since = context.now;
        if closes || context.stage.is_finishing() {
            self.close(Linger::Long, context);
        } else if self.to_client.is_empty() {
            // The next request may have come already.
            self.read_on(context);
        }
    }
}
