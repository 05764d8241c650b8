//! The upstream: its name, its addresses, connections to it.
//!
//! The one door to the application. Whoever needs a connection calls [`Upstream::connect`] (a fresh
//! one, for a handshake) or sends a request through `Upstream::pool` (kept alive between plain
//! requests). Several endpoints and the choice between them come behind the same door.

#[allow(dead_code)] // The front still asks `resolve`.
mod addresses;
mod pool;
mod resolve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use self::pool::{Answered, Pool, SendError, Sendable, Streamed};
use self::resolve::Resolver;
use crate::config::Destination;
use crate::end::Reason;
use crate::socket;

/// The least that one address gets of the time for all of them.
const LEAST_PER_ADDRESS: Duration = Duration::from_millis(250);

/// The most that is read ahead of a slow client, per connection; also the longest response head.
pub(crate) const MAX_BUFFER: usize = 64 * 1024;

/// Why there is no connection to the upstream.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The name has no address now.
    #[error("{host} does not resolve: {source}")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's words.
        source: Arc<io::Error>,
    },
    /// No address took the connection; the last one's error.
    #[error("no connection to {address}: {source}")]
    Unreachable {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// No address answered in time.
    #[error("no connection to {address} within {limit:?}")]
    Timeout {
        /// The address that was tried last.
        address: SocketAddr,
        /// `CONNECT_TIMEOUT`.
        limit: Duration,
    },
    /// This machine has no descriptor or port left.
    #[error("no room for a connection to {address}: {source}")]
    NoRoom {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The same, before the name had an address.
    #[error("no room to resolve {host}: {source}")]
    NoRoomToAsk {
        /// The name.
        host: String,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
}

impl Fault {
    /// The address that was tried last, if one was.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unresolved { .. } | Self::NoRoomToAsk { .. } => None,
            Self::Unreachable { address, .. }
            | Self::Timeout { address, .. }
            | Self::NoRoom { address, .. } => Some(*address),
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Unresolved { .. } => Reason::Unresolved,
            Self::Unreachable { .. } => Reason::Unreachable,
            Self::Timeout { .. } => Reason::Timeout,
            Self::NoRoom { .. } | Self::NoRoomToAsk { .. } => Reason::NoRoom,
        }
    }
}

/// The upstream. Clones share addresses.
#[derive(Clone, Debug)]
pub struct Upstream {
    resolver: Arc<Resolver>,
    connect_timeout: Duration,
    stall_timeout: Duration,
}

impl Upstream {
    /// The upstream at `destination`; nothing is resolved yet. Bytes wait for it for `stall_timeout`
    /// at most.
    #[must_use]
    pub fn new(
        destination: &Destination,
        connect_timeout: Duration,
        stall_timeout: Duration,
    ) -> Self {
        Self { resolver: Arc::new(Resolver::new(destination)), connect_timeout, stall_timeout }
    }

    /// Its addresses now.
    ///
    /// # Errors
    /// [`Fault::Unresolved`], also if the resolver takes longer than `CONNECT_TIMEOUT`, or
    /// [`Fault::NoRoomToAsk`].
    pub async fn addresses(&self) -> Result<Arc<[SocketAddr]>, Fault> {
        timeout(self.connect_timeout, self.resolver.addresses())
            .await
            .unwrap_or_else(|_| Err(self.resolver.too_slow()))
    }

    /// The first of its addresses, where that takes no waiting.
    pub(crate) fn address_at_hand(&self) -> Option<SocketAddr> {
        self.resolver.at_hand()
    }

    /// Begins a connection to `address`: non-blocking, and mostly under way when this returns.
    ///
    /// # Errors
    /// The kernel refused at once.
    pub(crate) fn begin(&self, address: SocketAddr) -> io::Result<std::net::TcpStream> {
        let socket = mio::net::TcpStream::connect(address)?.into();
        socket::tune(&socket, self.stall_timeout);
        Ok(socket)
    }

    /// A new connection: each address in turn until one takes it, `CONNECT_TIMEOUT` from now on.
    ///
    /// # Errors
    /// The name has no address, or the fault of the last address.
    pub async fn connect(&self) -> Result<(TcpStream, SocketAddr), Fault> {
        self.connect_since(Instant::now()).await
    }

    /// The same, where the time for it began earlier.
    pub(crate) async fn connect_since(
        &self,
        begun: Instant,
    ) -> Result<(TcpStream, SocketAddr), Fault> {
        let deadline = begun + self.connect_timeout;
        let addresses = self.addresses().await?;
        let mut last = None;
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses.iter().copied() {
            // What is left is shared between the addresses left: a dead one cannot use it all up.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / left.max(1);
            let until = now + share.max(LEAST_PER_ADDRESS.min(self.connect_timeout));
            left = left.saturating_sub(1);
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    socket::tune(&socket, self.stall_timeout);
                    return Ok((socket, address));
                }
                Ok(Err(source)) if socket::is_no_room(&source) => {
                    // No other address would change that.
                    return Err(Fault::NoRoom { address, source: Arc::new(source) });
                }
                Ok(Err(source)) => {
                    last = Some(Fault::Unreachable { address, source: Arc::new(source) });
                }
                Err(_) => last = Some(Fault::Timeout { address, limit: self.connect_timeout }),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        // A name without an address was told before.
        Err(last.unwrap_or_else(|| self.resolver.too_slow()))
    }

    /// Connections for plain requests, kept alive between them.
    pub(crate) fn pool<B: Sendable>(&self) -> Pool<B> {
        Pool::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const DEAD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    fn upstream(host: &str, connect_timeout: Duration, resolver: Resolver) -> Upstream {
        let destination = Destination { host: host.to_owned(), port: 1 };
        let resolver = Arc::new(resolver);
        Upstream {
            resolver,
            ..Upstream::new(&destination, connect_timeout, Duration::from_secs(60))
        }
    }

    /// A resolver whose answer is in the name: ports of 127.0.0.1.
    fn ports(host: &str) -> Resolver {
        let destination = Destination { host: host.to_owned(), port: 1 };
        Resolver::asking(&destination, |host, _| {
            Box::pin(async move {
                let port = |port: &str| SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
                Ok(host.split(',').map(port).collect())
            })
        })
    }

    /// A listener whose queue is full: it drops what knocks.
    fn deaf() -> (Socket, std::net::TcpStream) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let first = std::net::TcpStream::connect(address).unwrap();
        (listener, first)
    }

    #[tokio::test]
    async fn each_address_is_tried_in_turn() {
        let alive = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = alive.local_addr().unwrap();
        let (_listener, first) = deaf();
        let deaf = first.peer_addr().unwrap().port();
        let name = format!("{},{deaf},{}", DEAD.port(), address.port());
        let upstream = upstream(&name, Duration::from_secs(1), ports(&name));
        assert_eq!(upstream.connect().await.unwrap().1, address);
    }

    #[tokio::test]
    async fn fault_is_that_of_the_last_address() {
        let (_listener, first) = deaf();
        let deaf = first.peer_addr().unwrap().port();
        for (name, reason) in [
            (format!("{deaf},{}", DEAD.port()), Reason::Unreachable),
            (format!("{},{deaf}", DEAD.port()), Reason::Timeout),
        ] {
            let upstream = upstream(&name, Duration::from_millis(600), ports(&name));
            assert_eq!(upstream.connect().await.unwrap_err().reason(), reason, "{name}");
        }
    }

    #[tokio::test]
    async fn resolver_that_hangs_is_a_fault_in_time() {
        let destination = Destination { host: String::from("app"), port: 1 };
        let resolver = Resolver::asking(&destination, |_, _| Box::pin(std::future::pending()));
        let upstream = upstream("app", Duration::from_millis(50), resolver);
        let fault = upstream.connect().await.unwrap_err();
        assert_eq!(fault.reason(), Reason::Unresolved);
    }
}
