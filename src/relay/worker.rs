//! One thread of the relay: its poll, its slab of tunnels, its read buffer.
//!
//! A round is: wait for events, serve the tunnels they name, serve those whose turn was over too
//! early, carry out orders, have arrivals go on, look at those whose time has come, end what has
//! said farewell. Slots are only filled while orders are carried out, or arrivals have become
//! tunnels, after the events of the round: an event of a tunnel that ended earlier in the round
//! finds its slot empty, never with another tunnel in it. A tunnel that leaves takes its two
//! registrations away, so that no later round hears of it either.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::mem;
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Poll, Registry, Token};
use slab::Slab;
use socket2::SockRef;

use super::arrivals::{ALL, Arrivals, Opened};
use super::room;
use super::slot::Slot;
use super::sockets::Kernel;
use super::wheel::Wheel;
use super::{Door, OnEnd, Order, STOPPED};
use crate::clock::{Now, is_reached, ticks, until};
use crate::end::{End, Phase, Reason, Side};
use crate::tunnel::flow::READ_BUFFER;
use crate::tunnel::rules::Rulebook;
use crate::tunnel::{Next, Peer, Tunnel};
use crate::websocket::keepalive::Secret;

/// The token of the waker. No tunnel has it: keys of the slab are far below half of it.
pub(super) const WOKEN: Token = Token(usize::MAX);

/// Events that one call brings at most: 12 KiB of them. A guess; with more at once, the rest come
/// with the next call.
const EVENTS: usize = 1024;

/// How long the last bytes have to arrive before the reset that follows them.
///
/// A reset (`SO_LINGER` 0) throws away what is in the send queue, and one that overtakes lost data
/// makes it lost for good; some systems drop unread data when one arrives. Whether all has been
/// acknowledged cannot be asked without `unsafe` (`SIOCOUTQ`), so that every reset that is passed on
/// waits. A FIN would not lose anything, but it would call a stream complete that was cut. One
/// second covers one retransmission on a long way (RFC 6298 starts with 1 s, Linux with 200 ms above
/// the round trip), and nobody waits for a reset. It is cut short where the other side is reset, too.
const FAREWELL: Duration = Duration::from_secs(1);

/// Places that are kept when the last tunnel has gone: 128 KiB. Giving them back takes four system
/// calls, and a fault for each page when they are taken again.
const KEPT: usize = 256;

/// The end of a tunnel in which a panic happened.
const MISTAKE: End = End::new(Side::Elbows, Phase::Relay, Reason::Mistake);

pub(super) struct Worker {
    poll: Poll,
    door: Arc<Door>,
    on_end: Arc<OnEnd>,
    arrivals: Arrivals,
    slots: Slab<Slot>,
    /// The first key that no tunnel had yet since the slab was new.
    reach: usize,
    /// Read into by every tunnel; empty between two calls.
    buffer: Box<[u8]>,
    kernel: Kernel,
    /// Tunnels whose turn was over before there was nothing left to do.
    again: Vec<usize>,
    /// Tunnels that are over but for their last bytes, the earliest first.
    farewells: VecDeque<Farewell>,
    farewells_said: NonZeroU32,
    rulebook: Rulebook,
    wheel: Wheel,
    /// The time of this wake-up, and its tick: the clock is asked once.
    woken_at: Duration,
    now: Now,
    /// When the period of the drain is over, once there is one.
    drained_at: Option<u32>,
}

/// The slot may have ended early and been filled again: it is meant if it has the same number.
struct Farewell {
    until: Instant,
    key: usize,
    number: NonZeroU32,
}

impl Worker {
    pub(super) fn new(poll: Poll, door: Arc<Door>, on_end: Arc<OnEnd>, rulebook: Rulebook) -> Self {
        let woken_at = elapsed();
        let now = Now::at(woken_at);
        Self {
            woken_at,
            rulebook,
            wheel: Wheel::new(now.tick),
            now,
            drained_at: None,
            poll,
            arrivals: Arrivals::new(Arc::clone(&door)),
            door,
            on_end,
            slots: Slab::new(),
            reach: 0,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            kernel: Kernel::default(),
            again: Vec::new(),
            farewells: VecDeque::new(),
            farewells_said: NonZeroU32::MIN,
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut next_farewell = None;
        loop {
            let timeout = self.timeout(next_farewell);
            if let Err(fault) = self.poll.poll(&mut events, timeout) {
                if fault.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // None of the others goes away by itself: going on would be a spin.
                tracing::error!(%fault, "a relay thread cannot poll and ends its tunnels");
                return;
            }
            self.woken_at = elapsed();
            self.now = Now::at(self.woken_at);
            let mut woken = false;
            for event in &events {
                if event.token() == WOKEN {
                    woken = true;
                } else {
                    self.serve(event);
                }
            }
            self.serve_again();
            if woken && !self.carry_out_orders() {
                return;
            }
            self.see_to_arrivals();
            self.look_at_due();
            next_farewell = self.end_farewells();
        }
    }

    /// How long to wait for events at most.
    fn timeout(&mut self, next_farewell: Option<Duration>) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        // Too long by what this round took, which is far less than a tick.
        let next_look = self.wheel.next_tick().map(|at| until(at, self.woken_at));
        let arrivals = self.arrivals.timeout(self.woken_at);
        [next_farewell, next_look, arrivals].into_iter().flatten().min()
    }

    fn see_to_arrivals(&mut self) {
        // Nearly always there are none, and then the clock is not asked.
        if self.arrivals.timeout(self.woken_at) != Some(Duration::ZERO) {
            return;
        }
        let served = elapsed().saturating_sub(self.woken_at);
        self.arrivals.go_on(served, self.poll.registry(), elapsed, &mut self.buffer);
        while let Some(opened) = self.arrivals.opened() {
            self.door.open.fetch_add(1, Ordering::Relaxed);
            self.take_in(opened, Slot::begin);
        }
    }

    /// Looks at those whose time has come.
    fn look_at_due(&mut self) {
        while let Some(key) = self.wheel.pop(self.now.tick) {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            if slot.delivery.is_some() {
                continue;
            }
            let (kernel, buffer) = (&self.kernel, &mut self.buffer);
            let (rulebook, now) = (&self.rulebook, self.now);
            let next = guarded(|| match slot.at(rulebook, now).look() {
                Next::Wait => slot.turn(kernel, buffer, rulebook, now),
                next => next,
            });
            self.follow(key, next);
        }
    }

    /// Sets its time in the wheel, where that has changed.
    fn rearm(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && mem::replace(&mut slot.local.rearm, false)
        {
            self.wheel.insert(key, slot.at(&self.rulebook, self.now).next_look());
        }
    }

    fn serve(&mut self, event: &Event) {
        let (key, peer) = from_token(event.token());
        let Some(slot) = self.slots.get_mut(key) else {
            return self.arrivals.note(event.token());
        };
        if slot.delivery.is_some() {
            if slot.is_delivery_over(peer, event) {
                self.end(key);
            }
            return;
        }
        let (kernel, buffer) = (&self.kernel, &mut self.buffer);
        let (rulebook, now) = (&self.rulebook, self.now);
        let next = guarded(|| {
            slot.at(rulebook, now).note(peer, event.into());
            slot.turn(kernel, buffer, rulebook, now)
        });
        if next != Next::Wait || slot.local.rearm {
            self.follow(key, next);
        }
    }

    fn serve_again(&mut self) {
        // Those that are put on the list from here on have their turn after the next events.
        let mut served = mem::take(&mut self.again);
        for key in served.drain(..) {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.listed = false;
                if slot.delivery.is_none() {
                    let (kernel, buffer) = (&self.kernel, &mut self.buffer);
                    let (rulebook, now) = (&self.rulebook, self.now);
                    let next = guarded(|| slot.turn(kernel, buffer, rulebook, now));
                    self.follow(key, next);
                }
            }
        }
        if self.again.is_empty() {
            self.again = served;
        }
    }

    fn follow(&mut self, key: usize, next: Next) {
        match next {
            Next::Wait => self.rearm(key),
            Next::Again => {
                self.list(key);
                self.rearm(key);
            }
            Next::End => self.end(key),
            Next::Failed => self.fail(key),
            Next::AwaitDelivery => self.say_farewell(key),
        }
    }

    fn list(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && !mem::replace(&mut slot.listed, true)
        {
            self.again.push(key);
        }
    }

    fn say_farewell(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        self.farewells_said = self.farewells_said.checked_add(1).unwrap_or(NonZeroU32::MIN);
        slot.delivery = Some(self.farewells_said);
        self.farewells.push_back(Farewell {
            until: Instant::now() + FAREWELL,
            key,
            number: self.farewells_said,
        });
    }

    /// Ends those whose time has come; the time to the next one. Without any, no clock is asked.
    fn end_farewells(&mut self) -> Option<Duration> {
        self.farewells.front()?;
        let now = Instant::now();
        while let Some(&Farewell { until, key, number }) = self.farewells.front() {
            if now < until {
                return Some(until - now);
            }
            self.farewells.pop_front();
            let slot = self.slots.get(key);
            if slot.is_some_and(|slot| slot.delivery == Some(number)) {
                self.end(key);
            }
        }
        None
    }

    /// Whether to go on.
    fn carry_out_orders(&mut self) -> bool {
        let mut goes_on = true;
        for order in self.door.take_orders() {
            match order {
                Order::Adopt(tunnel) => self.adopt(tunnel),
                Order::Arrive(arrival, patience) => {
                    let registry = self.poll.registry();
                    self.arrivals.enter(arrival, patience, registry, self.woken_at);
                }
                Order::Listen(listening) => {
                    self.arrivals.listen(*listening, self.poll.registry());
                }
                Order::Shut => self.arrivals.shut(self.poll.registry()),
                Order::TakeAll(to) => {
                    // Nobody may be waiting any more; then the tunnels close.
                    drop(to.send(self.take_all()));
                }
                Order::Drain(period) => self.drain(period),
                Order::Stop => goes_on = false,
            }
        }
        goes_on
    }

    fn adopt(&mut self, mut tunnel: Tunnel) {
        tunnel.state.identity.settle();
        let opened = Opened { tunnel, hears_client: false, hears_upstream: false };
        self.take_in(opened, Slot::begin);
    }

    fn take_in(&mut self, opened: Opened, begin: impl FnOnce(&mut Slot, &Rulebook, Now, Secret)) {
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(room::places::<Slot>());
        }
        let entry = self.slots.vacant_entry();
        if let Err(fault) = register(self.poll.registry(), &opened, entry.key()) {
            tracing::error!(%fault, "cannot register a tunnel");
            self.left();
            return self.tell(opened.tunnel, End::new(Side::Elbows, Phase::Relay, Reason::NoRoom));
        }
        // The first event of each socket comes at once and says what it is ready for.
        let key = entry.key();
        self.reach = self.reach.max(key + 1);
        let (rulebook, now) = (&self.rulebook, self.now);
        let slot = entry.insert(Slot::new(opened.tunnel));
        let next = guarded(|| {
            begin(slot, rulebook, now, secret(key));
            Next::Wait
        });
        if next == Next::Failed {
            return self.fail(key);
        }
        if let Some(until) = self.drained_at {
            let left = if is_reached(until, now.tick) { 0 } else { until.wrapping_sub(now.tick) };
            let can_send_close = slot.tunnel.state.can_send_close();
            let wait = if can_send_close { share(left, random(&key), 1 << 32) } else { left };
            slot.at(rulebook, now).drain_at(now.tick.wrapping_add(wait));
        }
        self.rearm(key);
    }

    /// Gives each tunnel its moment: the period has as many parts as there are tunnels, and each has
    /// a part of its own, in any order, so that the rate is even from the first to the last. One that
    /// cannot be told of it has the whole period.
    fn drain(&mut self, period: Duration) {
        let period = ticks(period);
        let drained_at = self.now.tick.wrapping_add(period);
        self.drained_at = Some(drained_at);
        self.rulebook.drains(period, self.now.tick);
        let (mut keys, others): (Vec<_>, Vec<_>) = self
            .slots
            .iter()
            .map(|(key, slot)| (key, slot.tunnel.state.can_send_close()))
            .partition(|(_, can_send_close)| *can_send_close);
        for (key, _) in others {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.at(&self.rulebook, self.now).drain_at(drained_at);
            }
            self.rearm(key);
        }
        keys.sort_by_cached_key(random);
        let parts = (keys.len() as u64) << 32;
        for (place, (key, _)) in (0_u64..).zip(keys) {
            if let Some(slot) = self.slots.get_mut(key) {
                let moment = (place << 32) + random(&(key, period));
                let at = self.now.tick.wrapping_add(share(period, moment, parts));
                slot.at(&self.rulebook, self.now).drain_at(at);
            }
            self.rearm(key);
        }
    }

    fn take_all(&mut self) -> Vec<Tunnel> {
        let slots = mem::take(&mut self.slots);
        self.give_back();
        let mut taken = Vec::with_capacity(slots.len());
        for (_, slot) in slots {
            deregister(self.poll.registry(), &slot.tunnel);
            self.left();
            if slot.is_closing() {
                let tunnel = slot.into_ended();
                let end = tunnel.state.end();
                self.tell(tunnel, end);
            } else {
                taken.push(slot.tunnel);
            }
        }
        taken
    }

    fn end(&mut self, key: usize) {
        let Some(slot) = self.slots.try_remove(key) else {
            return;
        };
        self.wheel.remove(key);
        deregister(self.poll.registry(), &slot.tunnel);
        if self.slots.is_empty() && self.reach > KEPT {
            self.give_back();
        }
        self.left();
        let tunnel = slot.into_ended();
        let end = tunnel.state.end();
        self.tell(tunnel, end);
    }

    /// Gives back the memory of many tunnels, once all are gone.
    fn give_back(&mut self) {
        self.slots = Slab::new();
        self.wheel = Wheel::new(self.now.tick);
        self.again = Vec::new();
        self.farewells = VecDeque::new();
        self.reach = 0;
    }

    /// Ends a tunnel in which a panic happened. Both sides are reset: what was under way is lost, and
    /// must not look complete.
    fn fail(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        for socket in [&slot.tunnel.client, &slot.tunnel.upstream] {
            // Fails only on what is no socket.
            drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
        }
        slot.tunnel.state.fail(MISTAKE);
        self.end(key);
    }

    fn left(&self) {
        self.door.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A panic in there is one tunnel's bad luck and must not be that of all others.
    fn tell(&self, tunnel: Tunnel, end: End) {
        let told = panic::catch_unwind(AssertUnwindSafe(|| (self.on_end)(tunnel, end)));
        if told.is_err() {
            tracing::error!(%end, "panic while the end of a tunnel was told");
        }
    }
}

/// What a tunnel does in its turn. A panic in there is its own bad luck and must not be that of all
/// others.
#[inline]
fn guarded(turn: impl FnOnce() -> Next) -> Next {
    panic::catch_unwind(AssertUnwindSafe(turn)).unwrap_or(Next::Failed)
}

/// The thread is over, by order or by a fault: whatever is in it or on its way to it ends.
impl Drop for Worker {
    fn drop(&mut self) {
        self.door.is_gone.store(true, Ordering::Relaxed);
        for order in self.door.close() {
            match order {
                Order::Adopt(tunnel) => {
                    self.left();
                    self.tell(tunnel, STOPPED);
                }
                // Whoever waits hears from the closed channel that there are none.
                Order::TakeAll(_)
                | Order::Drain(_)
                | Order::Arrive(..)
                | Order::Listen(_)
                | Order::Shut
                | Order::Stop => {}
            }
        }
        for tunnel in self.take_all() {
            self.tell(tunnel, STOPPED);
        }
    }
}

/// `part` of `parts` of a time in ticks.
#[allow(clippy::cast_possible_truncation)] // No more than the time.
fn share(time: u32, part: u64, parts: u64) -> u32 {
    (u128::from(time) * u128::from(part) / u128::from(parts.max(1))) as u32
}

/// 32 bits that nobody can foresee.
fn random(of: &impl Hash) -> u64 {
    RandomState::new().hash_one(of) >> 32
}

/// What nobody else can know of a tunnel.
fn secret(key: usize) -> Secret {
    Secret::new(RandomState::new().hash_one(key))
}

/// The start of the count of ticks and stamps: one for the process, so that a tunnel can go from one
/// worker to another.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since the start of the count.
fn elapsed() -> Duration {
    START.elapsed()
}

/// Once, for everything there is to hear: with an edge-triggered poll no message needs a change. What is
/// registered already, for its arrival, is heard anew all the same.
fn register(registry: &Registry, opened: &Opened, key: usize) -> io::Result<()> {
    let Opened { tunnel, hears_client, hears_upstream } = opened;
    let hear = |socket: &TcpStream, side, is_heard| {
        let (socket, token) = (socket.as_raw_fd(), to_token(key, side));
        let socket = &mut SourceFd(&socket);
        if is_heard {
            registry.reregister(socket, token, ALL)
        } else {
            registry.register(socket, token, ALL)
        }
    };
    let registered = hear(&tunnel.client, Peer::Client, *hears_client)
        .and_then(|()| hear(&tunnel.upstream, Peer::Upstream, *hears_upstream));
    if registered.is_err() {
        deregister(registry, tunnel);
    }
    registered
}

/// Needed even where the sockets are closed next: a copy of a descriptor would keep it registered.
fn deregister(registry: &Registry, tunnel: &Tunnel) {
    for socket in [&tunnel.client, &tunnel.upstream] {
        // Fails only on what is not registered.
        drop(registry.deregister(&mut SourceFd(&socket.as_raw_fd())));
    }
}

fn to_token(key: usize, side: Peer) -> Token {
    Token(key << 1 | usize::from(side == Peer::Upstream))
}

fn from_token(token: Token) -> (usize, Peer) {
    let side = if token.0 & 1 == 0 { Peer::Client } else { Peer::Upstream };
    (token.0 >> 1, side)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Mutex;

    use mio::Waker;

    use super::*;
    use crate::tunnel::{Identity, Options, Protocol};

    /// Both ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (far, listener.accept().unwrap().0)
    }

    /// A tunnel, and the far ends of its client and its upstream.
    fn tunnel() -> (Tunnel, TcpStream, TcpStream) {
        let ((client, near_client), (upstream, near_upstream)) = (connection(), connection());
        let address = client.local_addr().unwrap();
        let identity = Identity::new(address, address, address, "", "", Instant::now());
        for socket in [&near_client, &near_upstream] {
            socket.set_nonblocking(true).unwrap();
        }
        let sides = ((near_client, Vec::new()), (near_upstream, Vec::new()));
        (Tunnel::new(Protocol::Other, sides.0, sides.1, identity), client, upstream)
    }

    #[test]
    fn panic_in_one_tunnel_ends_that_one_alone() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WOKEN).unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&ends);
        let on_end = Arc::new(move |_, end| told.lock().unwrap().push(end));
        let rulebook = Rulebook::new(&Options::default());
        let mut worker = Worker::new(poll, Arc::new(Door::new(waker)), on_end, rulebook);
        worker.door.open.store(3, Ordering::Relaxed);
        let (unlucky, client, upstream) = tunnel();
        let (lucky, mut talker, mut listener) = tunnel();
        // One in its turn, one while it is taken in.
        worker.adopt(unlucky);
        worker.adopt(lucky);
        let (stillborn, other_client, other_upstream) = tunnel();
        let stillborn = Opened { tunnel: stillborn, hears_client: false, hears_upstream: false };
        worker.take_in(stillborn, |_, _, _, _| panic!("another, made on purpose"));
        assert_eq!(*ends.lock().unwrap(), [MISTAKE]);

        let next = guarded(|| panic!("a mistake, made on purpose by a test"));
        assert_eq!(next, Next::Failed);
        worker.follow(0, next);
        assert_eq!(*ends.lock().unwrap(), [MISTAKE; 2]);
        for mut socket in [client, upstream, other_client, other_upstream] {
            assert_eq!(socket.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }

        talker.write_all(b"hello").unwrap();
        let mut events = Events::with_capacity(8);
        let mut heard = Vec::<u8>::new();
        while heard.len() < 5 {
            worker.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty());
            for event in &events {
                worker.serve(event);
            }
            listener.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut bytes = [0; 8];
            let read = listener.read(&mut bytes).unwrap_or(0);
            heard.extend(bytes.iter().take(read));
        }
        assert_eq!(heard, b"hello");
        assert_eq!(worker.door.open.load(Ordering::Relaxed), 1);
    }
}
