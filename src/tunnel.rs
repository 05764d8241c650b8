//! A tunnel: one upgraded connection, as two sockets and the plain data that is needed to go on with it.
//!
//! ```text
//!            flows.client ──▶            `flow`: what a source sends goes to a sink
//!   client                    upstream   `close_handshake`: how it ends where elbows ends it
//!            ◀── flows.upstream          `times`: what is due because of time alone
//! ```
//!
//! [`State`] is all of that, half-closed and broken sides included, and can be written to bytes and read
//! back: so a tunnel can be taken out of a worker whole and given to another worker or another process.
//! A `Moment` is a state together with what its worker knows of the sockets, the rules and the time:
//! everything that happens to a tunnel is a method of it. What a socket is ready for is not in the state:
//! the kernel tells that again wherever the socket is registered.

pub(crate) mod close_handshake;
pub(crate) mod encoding;

pub(crate) mod flow;
mod identity;
mod moment;
pub(crate) mod rules;
#[cfg(any(test, fuzzing))]
pub(crate) mod schedule;
mod state;
mod times;
mod waiting;

use std::net::TcpStream;

pub use crate::clock::{Now, Since};
pub use crate::encoding::RecordFault;
pub use crate::peer::{Pair, Peer};
pub use flow::{Flow, Sink, Source};
pub(crate) use identity::UserAgent;
pub use identity::{Handshake, Identity};
pub(crate) use moment::{Local, Moment, Next, SocketEvents, Transports};
pub use rules::Options;
pub use state::{Condition, State};
pub use waiting::Waiting;

/// One upgraded connection.
#[derive(Debug)]
pub struct Tunnel {
    /// The socket towards the client, non-blocking.
    pub client: TcpStream,
    /// The socket towards the upstream, non-blocking.
    pub upstream: TcpStream,
    /// All else.
    pub state: State,
}

/// What is spoken in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket (RFC 6455): its frames are followed.
    WebSocket,
    /// Anything else: bytes.
    Other,
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
        let early = Pair { client: client.1, upstream: upstream.1 };
        Self {
            client: client.0,
            upstream: upstream.0,
            state: State::new(protocol, early, identity),
        }
    }
}
