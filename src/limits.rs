//! How many connections there may be, in all and of each client, and how often each client may shake
//! hands.
//!
//! A connection is counted from accept to its end; of its client, from its PROXY header on. What it is
//! counted by is its [`Seat`], which its [`Client`] carries, and so everything that belongs to it. A
//! tunnel has no room for a seat: it is [kept](Seat::keep), and the tunnel's end calls
//! [`Limits::leave`] with the addresses that the tunnel knows anyway.
//!
//! Where no limit is set nothing is counted, and nobody takes a lock.

mod network;
mod rate;
mod table;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::network::Network;
use self::rate::{Rates, TooOften};
use self::table::Table;
use crate::config::{Config, ProxyProtocol};

/// The limits of one server. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits(Option<Arc<Counted>>);

#[derive(Debug)]
struct Counted {
    most: Option<NonZeroUsize>,
    open: AtomicUsize,
    clients: Option<Mutex<Table>>,
    rates: Option<Mutex<Rates>>,
    /// Without a PROXY header, a socket's address is a client's.
    sockets_are_clients: bool,
    start: Instant,
}

/// The limit that there is no room under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// `MAX_CONNECTIONS`.
    Connections,
    /// `MAX_CONNECTIONS_PER_CLIENT`.
    ConnectionsOfClient,
    /// `HANDSHAKE_RATE_PER_CLIENT`; after so long there is room for one more.
    HandshakeRate(Duration),
}

/// The place of one connection in the counts. Given up when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    limits: Limits,
    client: Option<Network>,
    /// Somebody else will give it up.
    kept: AtomicBool,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        let most = config.max_connections;
        let clients = config.max_connections_per_client.map(|most| Mutex::new(Table::new(most)));
        let rates = config.handshake_rate_per_client.map(|rate| Mutex::new(Rates::new(rate)));
        if most.is_none() && clients.is_none() && rates.is_none() {
            return Self(None);
        }
        Self(Some(Arc::new(Counted {
            most,
            open: AtomicUsize::new(0),
            clients,
            rates,
            sockets_are_clients: config.proxy_protocol != ProxyProtocol::Required,
            start: Instant::now(),
        })))
    }

    /// A place for a connection whose client is not known yet.
    pub(crate) fn enter(&self) -> Result<Seat, Over> {
        if let Some(counted) = &self.0 {
            let most = counted.most.map_or(usize::MAX, NonZeroUsize::get);
            let one_more = |open| (open < most).then_some(open + 1);
            counted
                .open
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                .map_err(|_| Over::Connections)?;
        }
        Ok(Seat { limits: self.clone(), client: None, kept: AtomicBool::new(false) })
    }

    /// Gives up a seat that was [kept](Seat::keep), that of the connection from `client` over
    /// `balancer`.
    pub(crate) fn leave(&self, client: SocketAddr, balancer: SocketAddr) {
        let client = self.0.as_ref().and_then(|counted| counted.client(client, balancer));
        self.give_up(client);
    }

    fn give_up(&self, client: Option<Network>) {
        let Some(counted) = &self.0 else { return };
        if let (Some(clients), Some(client)) = (&counted.clients, client) {
            locked(clients).leave(client);
        }
        counted.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a handshake from `client` over `balancer`.
    pub(crate) fn handshake(&self, client: SocketAddr, balancer: SocketAddr) -> Result<(), Over> {
        self.rated(client, balancer, Rates::take)
    }

    /// Whether a handshake would be over the limit, without counting one.
    pub(crate) fn would_refuse(&self, client: SocketAddr, balancer: SocketAddr) -> Option<Over> {
        self.rated(client, balancer, Rates::look).err()
    }

    fn rated(
        &self,
        client: SocketAddr,
        balancer: SocketAddr,
        ask: impl Fn(&mut Rates, Network, Duration) -> Result<(), TooOften>,
    ) -> Result<(), Over> {
        let Some(counted) = &self.0 else { return Ok(()) };
        let Some(rates) = &counted.rates else { return Ok(()) };
        let Some(client) = counted.client(client, balancer) else { return Ok(()) };
        ask(&mut locked(rates), client, counted.start.elapsed())
            .map_err(|TooOften(wait)| Over::HandshakeRate(wait))
    }

    /// Connections counted now, and the clients that they are of, if anything is counted.
    pub(crate) fn counts(&self) -> Option<(usize, usize)> {
        let counted = self.0.as_ref()?;
        let clients = counted.clients.as_ref().map_or(0, |clients| locked(clients).len());
        Some((counted.open.load(Ordering::Relaxed), clients))
    }
}

impl Counted {
    /// The client to count, if `client` is one: where a PROXY header is required and names none
    /// (`LOCAL`, `UNKNOWN`), or is not there, the address is the balancer's own and stands for its health
    /// checks, or for many.
    fn client(&self, client: SocketAddr, balancer: SocketAddr) -> Option<Network> {
        (client != balancer || self.sockets_are_clients).then(|| client.ip().into())
    }
}

impl Seat {
    /// Counts the connection as one of `client`, that came over `balancer`.
    pub(crate) fn of_client(
        mut self,
        client: SocketAddr,
        balancer: SocketAddr,
    ) -> Result<Self, Over> {
        let Some(counted) = &self.limits.0 else { return Ok(self) };
        let client = counted.client(client, balancer);
        if let (Some(clients), Some(client)) = (&counted.clients, client)
            && !locked(clients).enter(client)
        {
            return Err(Over::ConnectionsOfClient);
        }
        self.client = client;
        Ok(self)
    }

    /// Lets the seat outlive this value: somebody else will call [`Limits::leave`].
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !*self.kept.get_mut() {
            self.limits.give_up(self.client);
        }
    }
}

/// What is under a lock here is whole after a panic too.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LISTEN: &str = "127.0.0.1:45400";

    fn limits(most: usize, of_client: u32) -> Limits {
        Limits::new(&Config {
            max_connections: NonZeroUsize::new(most),
            max_connections_per_client: std::num::NonZeroU32::new(of_client),
            ..Config::for_destination(LISTEN.parse().unwrap(), "app", 45490)
        })
    }

    fn client(number: u16) -> SocketAddr {
        SocketAddr::new("2001:db8::7".parse().unwrap(), number)
    }

    fn balancer() -> SocketAddr {
        "10.0.0.5:3321".parse().unwrap()
    }

    fn seat(limits: &Limits, port: u16) -> Result<Seat, Over> {
        limits.enter()?.of_client(client(port), balancer())
    }

    #[test]
    fn a_seat_is_given_up_once_whoever_does_it() {
        let limits = limits(3, 2);
        let dropped = seat(&limits, 1).unwrap();
        let kept = seat(&limits, 2).unwrap();
        assert_eq!(limits.counts(), Some((2, 1)));
        assert_eq!(seat(&limits, 3).err(), Some(Over::ConnectionsOfClient));
        assert_eq!(limits.counts(), Some((2, 1)), "the refused one holds nothing");

        kept.keep();
        drop(kept);
        assert_eq!(limits.counts(), Some((2, 1)), "its tunnel still has it");
        limits.leave(client(2), balancer());
        drop(dropped);
        assert_eq!(limits.counts(), Some((0, 0)));
    }

    #[test]
    fn all_connections_count_before_their_client_is_known() {
        let limits = limits(2, 2);
        let (first, _second) = (limits.enter().unwrap(), limits.enter().unwrap());
        assert_eq!(limits.enter().err(), Some(Over::Connections));
        drop(first);
        assert!(limits.enter().is_ok());
    }

    #[test]
    fn balancer_itself_is_no_client() {
        let limits = limits(9, 1);
        let seats: Vec<_> =
            (0..3).map(|_| limits.enter().unwrap().of_client(balancer(), balancer())).collect();
        assert!(seats.iter().all(Result::is_ok));
        assert_eq!(limits.counts(), Some((3, 0)));
    }

    #[test]
    fn nothing_is_counted_without_a_limit() {
        let limits = limits(0, 0);
        assert!(limits.0.is_none());
        let seat = seat(&limits, 1).unwrap();
        assert_eq!(limits.handshake(client(1), balancer()), Ok(()));
        drop(seat);
        limits.leave(client(1), balancer());
    }
}
