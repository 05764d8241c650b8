//! What a connection asks of whoever has its sockets: what to write, what to read, what to connect.

use super::{Connection, ConnectionState, MOST_UNREAD};
use crate::exchange::Exchange;
use crate::exchange::link::{Release, Wish};
use crate::outgoing::Outgoing;

/// Where a connection is, for whoever has its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// It goes on.
    Open,
    /// Nothing more is sent to the client once it has taken what waits, and mostly it is told so.
    Closing { ends_well: bool },
    /// It is a tunnel as soon as the client has taken what waits.
    Switching,
    /// It is over.
    Over { with_reset: bool },
}

impl Connection {
    /// What waits for the client.
    pub(crate) const fn client_out(&mut self) -> &mut Outgoing {
        &mut self.to_client
    }

    /// Where it is.
    pub(crate) fn lifecycle(&self) -> Lifecycle {
        match &self.state {
            ConnectionState::Closing(closing) => {
                Lifecycle::Closing { ends_well: closing.ends_well() }
            }
            ConnectionState::Switching(_) => Lifecycle::Switching,
            ConnectionState::Over { with_reset } => Lifecycle::Over { with_reset: *with_reset },
            _ => Lifecycle::Open,
        }
    }

    /// The exchange under way, if one is.
    pub(crate) const fn exchange(&mut self) -> Option<&mut Exchange> {
        match &mut self.state {
            ConnectionState::Exchange(exchange) => Some(exchange),
            _ => None,
        }
    }

    /// What is to be done for its link to the upstream.
    pub(crate) fn wish(&self) -> Wish {
        match &self.state {
            ConnectionState::Exchange(exchange) => exchange.link.wish(),
            _ => Wish::Nothing,
        }
    }

    /// What is to be done with the link of an exchange that has ended.
    pub(crate) const fn take_release(&mut self) -> Option<Release> {
        self.release.take()
    }

    /// Whether the client is to be read. It is not where more would only have to be kept here.
    pub(crate) fn wants_client(&self) -> bool {
        if self.has_ended {
            return false;
        }
        match &self.state {
            ConnectionState::Identify | ConnectionState::Head | ConnectionState::Refused => {
                self.to_client.is_empty()
            }
            ConnectionState::Exchange(exchange) => {
                exchange.wants_body()
                    || exchange.drops_body()
                    || self.unread.len() < MOST_UNREAD && !exchange.waits_for_room()
            }
            ConnectionState::Switching(_) => self.unread.len() < MOST_UNREAD,
            ConnectionState::Closing(closing) => closing.reads(),
            ConnectionState::Over { .. } => false,
        }
    }

    /// How many bytes of the client are kept.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn kept(&self) -> usize {
        self.unread.len()
    }

    /// Whether the upstream is to be read. It is not while the client has not taken what came before.
    pub(crate) fn wants_upstream(&self) -> bool {
        matches!(&self.state, ConnectionState::Exchange(exchange) if exchange.link.is_established())
            && self.to_client.is_empty()
    }

    /// Bytes that may pass from the client to the upstream without a look at them.
    pub(crate) fn unseen_from_client(&self) -> u64 {
        match &self.state {
            ConnectionState::Exchange(exchange) if self.unread.is_empty() => {
                exchange.unseen_from_client()
            }
            _ => 0,
        }
    }
}
