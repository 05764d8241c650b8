//! The connections of one worker that are not tunnels, with their sockets: what [`Connection`] is told by, and what
//! does what it says.
//!
//! A connection whose socket has something for it is put on a list, and has its turn after the tunnels of the round.
//! A turn writes what waits, then reads what is wanted, until nothing moves any more or the turn is over. The rounds of
//! a worker are bounded in time: see [`Connections::go_on`].

mod draining;
mod opening;
mod waiting;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Interest, Registry, Token};
use slab::Slab;
use socket2::SockRef;

use super::Door;
use super::accept::{LISTENER, Listening, NewConnection};
use super::bulk::Pipe;
use super::links::Links;
use super::readiness::Ready;
use super::turn::Turn;
use super::wheel::Wheel;
use crate::clock::tick;
use crate::connection::{Connection, Lifecycle};
use crate::drain::Stage;
use crate::http::request_id::RequestIds;
use crate::metrics::worker::WorkerMetrics;
use crate::proxy::{Context, Proxy, Spare};
use crate::tunnel::Tunnel;

/// What is kept of an array when nothing is in it any more.
pub(super) const KEPT: usize = 256;

/// Calls that read, which one connection has before others have their turn.
const READS_PER_TURN: u32 = 4;

/// Set in the token of a connection's socket, and in none of a tunnel.
const CONNECTION: usize = 1 << (usize::BITS - 1);

/// Set beside it in the token of a link.
const LINK: usize = 1 << (usize::BITS - 2);

/// A tunnel that opened here.
pub(super) struct NewTunnel {
    pub(super) tunnel: Tunnel,
    /// The poll knows its client's socket.
    pub(super) hears_client: bool,
    /// The same of its upstream's.
    pub(super) hears_upstream: bool,
}

/// The connections of one worker.
pub(super) struct Connections {
    door: Arc<Door>,
    /// What they share, once the worker serves connections.
    service: Option<Service>,
    all: Slab<Place>,
    /// Those that something happened to, in its order.
    ready: VecDeque<usize>,
    accepted: u64,
    links: Links,
    listening: Option<Listening>,
    stage: Stage,
    opened: Vec<NewTunnel>,
    wheel: Wheel,
    /// Ticks count from here.
    start: Instant,
    /// When something is to be done without an event, so long after the start.
    due: Option<Duration>,
    pipe: RefCell<Pipe>,
    /// Memory that connections use in their turns: for their clients, and for the upstream.
    to_clients: Vec<u8>,
    spare: Spare,
}

struct Service {
    proxy: Arc<Proxy>,
    ids: RequestIds,
    metrics: Arc<WorkerMetrics>,
}

/// A connection and its socket.
struct Place {
    connection: Connection,
    socket: TcpStream,
    ready: Ready,
    /// Its link to the upstream.
    link: Option<usize>,
    /// No other connection of this worker has the same.
    number: u64,
    /// It is on the list.
    is_listed: bool,
    /// It waits to be told the upstream's addresses.
    waits_for_addresses: bool,
    /// Nothing more is sent to the client.
    is_shut: bool,
    /// The tick at which the wheel has it.
    armed: Option<u32>,
}

/// What a turn came to.
enum Outcome {
    /// It waits for an event.
    Waits,
    /// There may be more to do.
    Again,
    /// It is a tunnel now.
    Switched,
    /// It is over.
    Over { with_reset: bool },
}

impl Connections {
    /// Ticks count from `start`, and it is tick `now`.
    pub(super) fn new(door: Arc<Door>, start: Instant, now: u32) -> Self {
        Self {
            door,
            service: None,
            all: Slab::new(),
            ready: VecDeque::new(),
            accepted: 0,
            links: Links::default(),
            listening: None,
            stage: Stage::Serving,
            opened: Vec::new(),
            wheel: Wheel::new(now),
            start,
            due: None,
            pipe: RefCell::default(),
            to_clients: Vec::new(),
            spare: Spare::default(),
        }
    }

    /// From now on connections can be served here.
    pub(super) fn serve(&mut self, proxy: Arc<Proxy>, ids: RequestIds) {
        let metrics = Arc::clone(&self.door.metrics);
        self.service = Some(Service { proxy, ids, metrics });
    }

    /// Begins to accept, on this worker.
    pub(super) fn listen(&mut self, mut listening: Listening, registry: &Registry) {
        self.stop_listening(registry);
        match listening.register(registry) {
            Ok(()) => self.listening = Some(listening),
            Err(fault) => tracing::error!(%fault, "cannot listen"),
        }
    }

    /// Something happened to the listener, or to a socket of a connection.
    pub(super) fn note(&mut self, event: &Event, registry: &Registry) {
        let token = event.token();
        if token == LISTENER {
            if let Some(listening) = &mut self.listening {
                listening.woke();
            }
            return;
        }
        let key = token.0 & !(CONNECTION | LINK);
        if token.0 & CONNECTION == 0 {
            // A tunnel that ended earlier in this round.
            return;
        }
        if token.0 & LINK == 0 {
            if let Some(place) = self.all.get_mut(key) {
                place.ready.note(event);
                self.list(key);
            }
            return;
        }
        let Some(link) = self.links.get_mut(key) else { return };
        link.ready.note(event);
        match link.owner {
            Some(owner) => self.list(owner),
            None => self.links.idle_woke(key, registry),
        }
    }

    fn list(&mut self, key: usize) {
        if let Some(place) = self.all.get_mut(key)
            && !place.is_listed
        {
            place.is_listed = true;
            self.ready.push_back(key);
        }
    }

    /// Gives connections their turns, accepts, and looks at those whose time has come. It is called after the events of
    /// a round, so that none of those is taken for one of a connection that comes in here.
    ///
    /// One turn, and as many more as fit into `budget`, by `clock`: others wait for no more than that, however many
    /// come. Says when they had had them.
    pub(super) fn go_on(
        &mut self,
        budget: Duration,
        registry: &Registry,
        clock: impl Fn() -> Instant,
        buffer: &mut [u8],
    ) -> Instant {
        let begun = clock();
        let mut now = begun;
        loop {
            let had_turn = self.turn_of_next(registry, buffer, now);
            // Beside each turn: there may always be somebody who is ready.
            let accepted = self.accept(now);
            let was_due = self.look_at_due(registry, buffer, now);
            now = clock();
            if !(had_turn || accepted || was_due) || now.saturating_duration_since(begun) >= budget
            {
                return now;
            }
        }
    }

    /// False if none is ready.
    fn turn_of_next(&mut self, registry: &Registry, buffer: &mut [u8], now: Instant) -> bool {
        while let Some(key) = self.ready.pop_front() {
            // Otherwise it has left, and perhaps another has its place.
            if let Some(place) = self.all.get_mut(key)
                && std::mem::take(&mut place.is_listed)
            {
                self.turn(key, registry, buffer, now, false);
                return true;
            }
        }
        false
    }

    /// False if there was nobody.
    fn accept(&mut self, now: Instant) -> bool {
        let (Some(listening), Some(service)) = (&mut self.listening, &self.service) else {
            return false;
        };
        let Some(accepted) = listening.accept(&service.proxy.counters, now) else { return false };
        let other = listening.door().filter(|door| !Arc::ptr_eq(door, &self.door));
        let mine = match other {
            None => Some(accepted),
            Some(other) => other.welcome(accepted),
        };
        if let Some(accepted) = mine {
            self.door.connections.fetch_add(1, Ordering::Relaxed);
            self.enter(accepted, now);
        }
        true
    }

    /// Takes in a connection that is counted already.
    pub(super) fn enter(&mut self, accepted: NewConnection, now: Instant) {
        let Some(service) = self.service.as_ref().filter(|_| self.stage != Stage::Over) else {
            self.door.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let NewConnection { socket, from } = accepted;
        let (seat, over) = service.proxy.limits.enter();
        self.accepted += 1;
        let key = self.all.insert(Place {
            connection: Connection::new(from, seat, over, now),
            socket,
            ready: Ready::unknown(),
            link: None,
            number: self.accepted,
            is_listed: false,
            waits_for_addresses: false,
            is_shut: false,
            armed: None,
        });
        self.list(key);
    }

    /// The upstream's addresses are known, or cannot be known, which the connection with this key and number waited
    /// for.
    pub(super) fn addresses_are_known(&mut self, key: usize, number: u64) {
        if let Some(place) = self.all.get_mut(key)
            && place.number == number
        {
            place.waits_for_addresses = false;
            self.list(key);
        }
    }

    /// Gives connections whose time has come a turn. False if there was none.
    fn look_at_due(&mut self, registry: &Registry, buffer: &mut [u8], now: Instant) -> bool {
        self.links.close_old(now, registry);
        let tick = self.tick(now);
        let Some(key) = self.wheel.pop(tick) else { return false };
        if let Some(place) = self.all.get_mut(key) {
            place.armed = None;
            self.turn(key, registry, buffer, now, true);
        }
        true
    }

    fn tick(&self, now: Instant) -> u32 {
        tick(now.saturating_duration_since(self.start))
    }

    /// Gives a connection its turn. A panic in there is its own bad luck and must not be that of all others.
    fn turn(
        &mut self,
        key: usize,
        registry: &Registry,
        buffer: &mut [u8],
        now: Instant,
        is_due: bool,
    ) {
        let guarded = AssertUnwindSafe(|| self.drive(key, registry, buffer, now, is_due));
        match panic::catch_unwind(guarded) {
            Ok(Outcome::Waits) => self.arm(key, now),
            Ok(Outcome::Again) => {
                self.list(key);
                self.arm(key, now);
            }
            Ok(Outcome::Switched) => self.switch(key, now),
            Ok(Outcome::Over { with_reset }) => self.remove(key, with_reset, registry),
            Err(_) => self.remove(key, true, registry),
        }
    }

    /// Sets its time in the wheel, where that has come nearer. One that is looked at too early is set anew then.
    fn arm(&mut self, key: usize, now: Instant) {
        let (Some(place), Some(service)) = (self.all.get_mut(key), &self.service) else { return };
        let Place { connection, socket, armed, .. } = place;
        let destination = destination_of(socket);
        let context = context(service, self.stage, now, &self.spare, &destination);
        let Some(deadline) = connection.deadline(&context) else { return };
        let at = tick(deadline.saturating_duration_since(self.start)).wrapping_add(1);
        let is_nearer = armed.is_none_or(|armed| (at.wrapping_sub(armed)).cast_signed() < 0);
        if is_nearer {
            *armed = Some(at);
            self.wheel.insert(key, at);
        }
    }

    /// The turn itself.
    fn drive(
        &mut self,
        key: usize,
        registry: &Registry,
        buffer: &mut [u8],
        now: Instant,
        is_due: bool,
    ) -> Outcome {
        let Self { all, service, links, door, stage, pipe, to_clients, spare, .. } = self;
        let (Some(place), Some(service)) = (all.get_mut(key), &*service) else {
            return Outcome::Waits;
        };
        let Place { connection, socket, ready, link, number, waits_for_addresses, is_shut, .. } =
            place;
        let destination = destination_of(socket);
        let context = context(service, *stage, now, spare, &destination);
        connection.client_out().borrow_memory(to_clients);
        let mut its =
            Turn { key, connection, socket, ready, link, links, registry, context: &context, pipe };
        if is_due {
            // The kernel tells of room when a third of its buffer is free: it may have taken some before that.
            its.offer();
            its.connection.time(&context);
        }
        let mut reads_left = READS_PER_TURN;
        let turn = loop {
            let mut moved = its.write_client();
            moved |= its.release();
            moved |= its.link_up(waits_for_addresses, door, *number);
            moved |= its.write_upstream();
            moved |= its.read_upstream(buffer);
            moved |= its.read_client(buffer);
            let is_all_taken = its.connection.client_out().is_empty();
            match its.connection.lifecycle() {
                Lifecycle::Over { with_reset } => break Outcome::Over { with_reset },
                Lifecycle::Switching if is_all_taken => break Outcome::Switched,
                Lifecycle::Closing { ends_well: true } if is_all_taken && !*is_shut => {
                    *is_shut = true;
                    // Who has left is told nothing more.
                    let _ = socket.shutdown(Shutdown::Write);
                }
                _ => {}
            }
            if !moved {
                break Outcome::Waits;
            }
            reads_left -= 1;
            if reads_left == 0 {
                break Outcome::Again;
            }
        };
        connection.client_out().return_memory(to_clients);
        if matches!(turn, Outcome::Over { .. } | Outcome::Switched) {
            return turn;
        }
        let token = Token(key | CONNECTION);
        let heard = ready
            .register(socket.as_raw_fd(), token, registry, Interest::READABLE)
            .and_then(|()| match *link {
                Some(link) => links.register(link, Token(link | CONNECTION | LINK), registry),
                None => Ok(()),
            });
        if let Err(fault) = heard {
            tracing::error!(%fault, "cannot register a connection");
            return Outcome::Over { with_reset: true };
        }
        turn
    }

    fn take_out(&mut self, key: usize) -> Option<Place> {
        let place = self.all.try_remove(key)?;
        self.wheel.remove(key);
        self.door.connections.fetch_sub(1, Ordering::Relaxed);
        Some(place)
    }

    fn remove(&mut self, key: usize, with_reset: bool, registry: &Registry) {
        let Some(place) = self.take_out(key) else { return };
        if let Some(link) = place.link {
            self.links.close(link, registry);
        }
        if with_reset {
            // Fails only on what is no socket.
            drop(SockRef::from(&place.socket).set_linger(Some(Duration::ZERO)));
        }
        // Closed here, where nobody has a copy, the poll forgets it by itself (epoll(7)).
        drop(place);
        if self.all.is_empty() && self.all.capacity() > KEPT {
            self.all = Slab::new();
            self.ready = VecDeque::new();
        }
    }
}

fn context<'a>(
    service: &'a Service,
    stage: Stage,
    now: Instant,
    spare: &'a Spare,
    destination: &'a dyn Fn() -> SocketAddr,
) -> Context<'a> {
    let Service { proxy, ids, metrics } = service;
    Context { now, stage, proxy, ids, metrics, random: &random, spare, destination }
}

/// A number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// The address of this machine that a socket is connected to. One that has none has lost its other end.
fn destination_of(socket: &TcpStream) -> impl Fn() -> SocketAddr + '_ {
    || socket.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
}
