//! How many connections there may be, in all and of each client, and how often each client may shake
//! hands; and how many there are.
//!
//! A connection is counted from accept to its end; of its client, from its PROXY header on. What it is
//! counted by is its [`Seat`]. A tunnel has no room for a seat: it is [kept](Seat::keep), and the tunnel's end
//! calls [`Limits::leave`] with the addresses that the tunnel knows anyway.
//!
//! Where no limit is set nothing but the number is counted, and nobody takes a lock.

mod network;
mod rate;
mod table;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::network::Network;
use self::rate::{Rates, TooOften};
use self::table::Table;
use crate::config::{Config, ProxyProtocol};
use crate::drain::Census;

/// The limits of one server. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    counted: Option<Arc<Counted>>,
    census: Census,
}

#[derive(Debug)]
struct Counted {
    most: Option<NonZeroUsize>,
    open: AtomicUsize,
    clients: Option<Mutex<Table>>,
    rates: Option<Mutex<Rates>>,
    /// Without a PROXY header, a socket's address is a client's.
    sockets_are_clients: bool,
    /// Rates count from here.
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
    /// It is among those that the limits count.
    is_limited: bool,
    client: Option<Network>,
    /// Somebody else will give it up.
    is_kept: bool,
}

impl Limits {
    /// The limits of the settings. Rates count from `start`.
    pub(crate) fn new(config: &Config, start: Instant) -> Self {
        let most = config.max_connections;
        let clients = config.max_connections_per_client.map(|most| Mutex::new(Table::new(most)));
        let rates = config.handshake_rate_per_client.map(|rate| Mutex::new(Rates::new(rate)));
        let is_limited = most.is_some() || clients.is_some() || rates.is_some();
        let counted = Counted {
            most,
            open: AtomicUsize::new(0),
            clients,
            rates,
            sockets_are_clients: config.proxy_protocol != ProxyProtocol::Required,
            start,
        };
        Self { counted: is_limited.then(|| Arc::new(counted)), census: Census::default() }
    }

    /// Everything that is open, whatever the limits say of it.
    pub(crate) const fn census(&self) -> &Census {
        &self.census
    }

    /// The place of a connection whose client is not known yet, and the limit that there is no room under.
    pub(crate) fn enter(&self) -> (Seat, Option<Over>) {
        self.census.enter();
        let has_room = self.counted.as_ref().is_none_or(|counted| {
            let most = counted.most.map_or(usize::MAX, NonZeroUsize::get);
            let one_more = |open| (open < most).then_some(open + 1);
            counted.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
        });
        let limits = self.clone();
        let seat = Seat { limits, is_limited: has_room, client: None, is_kept: false };
        (seat, (!has_room).then_some(Over::Connections))
    }

    /// Gives up a seat that was [kept](Seat::keep), that of the connection from `client` over
    /// `balancer`.
    pub(crate) fn leave(&self, client: SocketAddr, balancer: SocketAddr) {
        let client = self.counted.as_ref().and_then(|counted| counted.client(client, balancer));
        self.give_up(client);
        self.census.leave();
    }

    /// Counts in the tunnel of a client that came over `balancer`, with all that another process had counted it by. It is
    /// open already, so that no limit refuses it. Its end, or another handoff, calls [`Limits::leave`].
    pub(crate) fn adopt(&self, client: SocketAddr, balancer: SocketAddr) {
        self.census.enter();
        let Some(counted) = &self.counted else { return };
        if let (Some(clients), Some(client)) = (&counted.clients, counted.client(client, balancer))
        {
            locked(clients).adopt(client);
        }
        counted.open.fetch_add(1, Ordering::Relaxed);
    }

    /// The clients whose allowance of handshakes is not full, each with how long it takes until it is.
    pub(crate) fn live_rates(&self, now: Instant) -> Vec<(Network, Duration)> {
        self.rates(now, |rates, elapsed| rates.live(elapsed).collect()).unwrap_or_default()
    }

    /// Takes over what another process knew of clients by [`Limits::live_rates`].
    pub(crate) fn restore_rates(
        &self,
        live: impl IntoIterator<Item = (Network, Duration)>,
        now: Instant,
    ) {
        self.rates(now, |rates, elapsed| {
            for (client, remaining) in live {
                rates.restore(client, remaining, elapsed);
            }
        });
    }

    /// What is to be done with the rates, if there are any, and with the time that they count.
    fn rates<R>(&self, now: Instant, with: impl FnOnce(&mut Rates, Duration) -> R) -> Option<R> {
        let counted = self.counted.as_ref()?;
        let mut rates = locked(counted.rates.as_ref()?);
        Some(with(&mut rates, now.saturating_duration_since(counted.start)))
    }

    fn give_up(&self, client: Option<Network>) {
        let Some(counted) = &self.counted else { return };
        if let (Some(clients), Some(client)) = (&counted.clients, client) {
            locked(clients).leave(client);
        }
        counted.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a handshake from `client` over `balancer` at `now`.
    pub(crate) fn handshake(
        &self,
        client: SocketAddr,
        balancer: SocketAddr,
        now: Instant,
    ) -> Result<(), Over> {
        let Some(counted) = &self.counted else { return Ok(()) };
        let Some(rates) = &counted.rates else { return Ok(()) };
        let Some(client) = counted.client(client, balancer) else { return Ok(()) };
        let elapsed = now.saturating_duration_since(counted.start);
        locked(rates).take(client, elapsed).map_err(|TooOften(wait)| Over::HandshakeRate(wait))
    }

    /// Connections counted now, and the clients that they are of, if anything is counted.
    pub(crate) fn counts(&self) -> Option<(usize, usize)> {
        let counted = self.counted.as_ref()?;
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
    /// Counts the connection as one of `client`, that came over `balancer`. Where that is over the limit, it is
    /// counted by no limit any more.
    pub(crate) fn of_client(
        &mut self,
        client: SocketAddr,
        balancer: SocketAddr,
    ) -> Result<(), Over> {
        let Some(counted) = &self.limits.counted else { return Ok(()) };
        let client = counted.client(client, balancer);
        if let (Some(clients), Some(network)) = (&counted.clients, client)
            && !locked(clients).enter(network)
        {
            self.limits.give_up(None);
            self.is_limited = false;
            return Err(Over::ConnectionsOfClient);
        }
        self.client = client;
        Ok(())
    }

    /// Lets the seat outlive this value: somebody else will call [`Limits::leave`].
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if self.is_limited {
            self.limits.give_up(self.client);
        }
        self.limits.census.leave();
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
        let config = Config {
            max_connections: NonZeroUsize::new(most),
            max_connections_per_client: std::num::NonZeroU32::new(of_client),
            ..Config::for_destination(LISTEN.parse().unwrap(), "app", 45490)
        };
        Limits::new(&config, Instant::now())
    }

    fn client(number: u16) -> SocketAddr {
        SocketAddr::new("2001:db8::7".parse().unwrap(), number)
    }

    fn balancer() -> SocketAddr {
        "10.0.0.5:3321".parse().unwrap()
    }

    /// A seat, and the limit that there is no room under.
    fn seat(limits: &Limits, port: u16) -> (Seat, Option<Over>) {
        let (mut seat, over) = limits.enter();
        let over = over.or_else(|| seat.of_client(client(port), balancer()).err());
        (seat, over)
    }

    #[test]
    fn a_seat_is_given_up_once_whoever_does_it() {
        let limits = limits(3, 2);
        let (dropped, _) = seat(&limits, 1);
        let (kept, _) = seat(&limits, 2);
        assert_eq!(limits.counts(), Some((2, 1)));
        let (refused, over) = seat(&limits, 3);
        assert_eq!(over, Some(Over::ConnectionsOfClient));
        assert_eq!(limits.counts(), Some((2, 1)), "the refused one holds nothing");
        assert_eq!(limits.census().open(), 3, "and is open all the same");

        kept.keep();
        assert_eq!(limits.counts(), Some((2, 1)), "its tunnel still has it");
        limits.leave(client(2), balancer());
        drop((dropped, refused));
        assert_eq!(limits.counts(), Some((0, 0)));
        assert_eq!(limits.census().open(), 0);
    }

    #[test]
    fn all_connections_count_before_their_client_is_known() {
        let limits = limits(2, 2);
        let (first, _second) = (limits.enter(), limits.enter());
        assert_eq!(limits.enter().1, Some(Over::Connections));
        drop(first);
        assert_eq!(limits.enter().1, None);
    }

    #[test]
    fn balancer_itself_is_no_client() {
        let limits = limits(9, 1);
        let mut seats: Vec<_> = (0..3).map(|_| limits.enter().0).collect();
        assert!(seats.iter_mut().all(|seat| seat.of_client(balancer(), balancer()).is_ok()));
        assert_eq!(limits.counts(), Some((3, 0)));
    }

    #[test]
    fn a_tunnel_of_another_process_counts_and_is_never_refused() {
        let limits = limits(1, 1);
        let (first, over) = seat(&limits, 1);
        assert_eq!(over, None);
        limits.adopt(client(2), balancer());
        limits.adopt(balancer(), balancer());
        assert_eq!((limits.counts(), limits.census().open()), (Some((3, 1)), 3));
        drop(first);
        limits.leave(balancer(), balancer());
        assert_eq!(seat(&limits, 3).1, Some(Over::Connections), "the tunnel is counted");
        limits.leave(client(2), balancer());
        assert_eq!((limits.counts(), limits.census().open()), (Some((0, 0)), 0));
        assert_eq!(seat(&limits, 3).1, None);
    }

    #[test]
    fn rates_go_on_in_another_process() {
        let config = Config {
            handshake_rate_per_client: Some(crate::config::rate::parse("1/min").unwrap()),
            ..Config::for_destination(LISTEN.parse().unwrap(), "app", 45490)
        };
        let then = Instant::now();
        let (old, new) = (Limits::new(&config, then), Limits::new(&config, then));
        assert_eq!(old.handshake(client(1), balancer(), then), Ok(()));
        let now = then + Duration::from_secs(20);
        new.restore_rates(old.live_rates(now), now);
        let left = Over::HandshakeRate(Duration::from_secs(40));
        assert_eq!(new.handshake(client(1), balancer(), now), Err(left));
        // Where there is no limit there is nothing to tell.
        let without = limits(1, 1);
        without.restore_rates(old.live_rates(now), now);
        assert_eq!(without.live_rates(now), []);
    }

    #[test]
    fn nothing_but_the_number_is_counted_without_a_limit() {
        let limits = limits(0, 0);
        assert!(limits.counted.is_none());
        let (seat, over) = seat(&limits, 1);
        assert_eq!(over, None);
        assert_eq!(limits.handshake(client(1), balancer(), Instant::now()), Ok(()));
        seat.keep();
        limits.leave(client(1), balancer());
        assert_eq!(limits.census().open(), 0);
    }
}
