//! One thread of the workers: its poll, its slab of tunnels, its read buffer.
//!
//! A round is: wait for events, serve the tunnels they name, serve those whose turn was over too
//! early, carry out orders, give connections their turns, look at those whose time has come, end what has
//! delivered its last bytes. Slots are only filled while orders are carried out, or connections have become
//! tunnels, after the events of the round: an event of a tunnel that ended earlier in the round
//! finds its slot empty, never with another tunnel in it. A tunnel that ends takes its two
//! registrations with it, since its sockets are closed where its end is told, and one that leaves has them taken away, so
//! that no later round hears of it either.

mod delivery;
mod draining;
mod endpoint_counts;
mod looks;
mod moving;
mod registration;
mod rounds;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem;
use std::num::NonZeroU32;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};
use slab::Slab;
use socket2::SockRef;

use super::connections::{Connections, NewTunnel};
use super::origin::{elapsed, start};
use super::room;
use super::slot::{Mark, Slot, from_token};
use super::sockets::Kernel;
use super::user_agents::UserAgents;
use super::wheel::Wheel;
use super::{Door, OnEnd, Order, Position, STOPPED};
use crate::clock::{Now, until};
use crate::end::{End, Phase, Reason, Side};
use crate::metrics::traffic::{Ledger, Traffic};
use crate::tunnel::flow::READ_BUFFER;
use crate::tunnel::rules::{Rulebook, Rulebooks};
use crate::tunnel::{Next, Tunnel};
use crate::upstream::Loads;
use crate::websocket::keepalive::Secret;
use delivery::Delivery;
use endpoint_counts::EndpointCounts;
use moving::Cursor;
use registration::{deregister, register};
use rounds::Rounds;

/// How long connections that are no tunnels may keep a round: less where a tunnel may wait for its end. The same for
/// tunnels whose turn was over.
const ROUND: Duration = Duration::from_millis(1);
const ROUND_BESIDE_TUNNELS: Duration = Duration::from_micros(50);

/// The token of the waker. No tunnel has it: keys of the slab are far below half of it.
pub(super) const WOKEN: Token = Token(usize::MAX);

/// Events that one call brings at most: 12 KiB of them. A guess; with more at once, the rest come
/// with the next call.
const EVENTS: usize = 1024;

/// Places that are kept when the last tunnel has gone: 128 KiB. Giving them back takes four system
/// calls, and a fault for each page when they are taken again.
const KEPT: usize = 256;

/// The end of a tunnel in which a panic happened.
const MISTAKE: End = End::new(Side::Elbows, Phase::Relay, Reason::Mistake);

pub(super) struct Worker {
    poll: Poll,
    number: usize,
    door: Arc<Door>,
    on_end: Arc<OnEnd>,
    connections: Connections,
    slots: Slab<Slot>,
    user_agents: UserAgents,
    cursor: Cursor,
    /// The first key that no tunnel had yet since the slab was new.
    reach: usize,
    /// Read into by every tunnel; empty between two calls.
    buffer: Box<[u8]>,
    kernel: Kernel,
    /// Tunnels whose turn was over before there was nothing left to do, the first to go on first.
    again: VecDeque<usize>,
    /// Tunnels that are over but for their last bytes, the earliest first.
    deliveries: VecDeque<Delivery>,
    deliveries_begun: NonZeroU32,
    rulebooks: Rulebooks,
    wheel: Wheel,
    /// The time of this wake-up, and its tick: the clock is asked once.
    woken_at: Duration,
    now: Now,
    /// When the period of the drain is over, once there is one.
    drained_at: Option<u32>,
    /// What passed in tunnels here.
    ledger: Ledger,
    endpoints: EndpointCounts,
    rounds: Rounds,
}

impl Worker {
    pub(super) fn new(
        poll: Poll,
        door: Arc<Door>,
        on_end: Arc<OnEnd>,
        rulebook: Rulebook,
        loads: Loads,
    ) -> Self {
        let rulebooks = Rulebooks::new(rulebook.with(Arc::clone(&door.metrics)));
        let woken_at = elapsed();
        let now = Now::at(woken_at);
        Self {
            woken_at,
            rulebooks,
            wheel: Wheel::new(now.tick),
            now,
            drained_at: None,
            poll,
            connections: Connections::new(Arc::clone(&door), start(), now.tick),
            number: door.number,
            door,
            on_end,
            slots: Slab::new(),
            user_agents: UserAgents::default(),
            cursor: Cursor::default(),
            reach: 0,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            kernel: Kernel::default(),
            again: VecDeque::new(),
            deliveries: VecDeque::new(),
            deliveries_begun: NonZeroU32::MIN,
            ledger: Ledger::default(),
            endpoints: EndpointCounts::new(loads),
            rounds: Rounds::default(),
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut next_delivery = None;
        loop {
            let timeout = self.timeout(next_delivery);
            if let Err(fault) = self.poll.poll(&mut events, timeout) {
                if fault.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // None of the others goes away by itself: going on would be a spin.
                tracing::error!(%fault, "a worker cannot poll and ends its tunnels");
                return;
            }
            self.begin_round();
            let mut woken = false;
            let begun = self.again.len();
            for event in &events {
                if event.token() == WOKEN {
                    woken = true;
                } else {
                    self.serve(event);
                }
            }
            self.serve_again(begun);
            if woken && !self.carry_out_orders() {
                return;
            }
            self.see_to_connections();
            self.look_at_due();
            next_delivery = self.end_deliveries();
            self.end_round();
        }
    }

    /// How long to wait for events at most.
    fn timeout(&mut self, next_delivery: Option<Duration>) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        // Too long by what this round took, which is far less than a tick.
        let next_look = self.wheel.next_tick().map(|at| until(at, self.woken_at));
        let connections = self.connections.timeout(self.woken_at);
        [next_delivery, next_look, connections].into_iter().flatten().min()
    }

    fn see_to_connections(&mut self) {
        // Mostly nothing has happened to any, and then the clock is not asked.
        if !self.connections.wants_turns(self.woken_at) {
            return;
        }
        let served = elapsed().saturating_sub(self.woken_at);
        let budget = if self.slots.is_empty() { ROUND } else { served.max(ROUND_BESIDE_TUNNELS) };
        let registry = self.poll.registry();
        let ended = self.connections.go_on(budget, registry, Instant::now, &mut self.buffer);
        self.end_turns(ended);
        while let Some(opened) = self.connections.opened() {
            self.rounds.goes_on();
            self.door.open.fetch_add(1, Ordering::Relaxed);
            let key = self.take_in(opened, Slot::begin);
            if let Some((key, slot)) = key.and_then(|key| Some((key, self.slots.get(key)?))) {
                self.connections.tell_opened(&slot.tunnel.state, self.position(key));
            }
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
            let (rulebook, now) = (self.rulebooks.of(slot.route), self.now);
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
            let rulebook = self.rulebooks.of(slot.route);
            self.wheel.insert(key, slot.at(rulebook, self.now).next_look());
        }
    }

    fn serve(&mut self, event: &Event) {
        let (key, peer) = from_token(event.token());
        let Some(slot) = self.slots.get_mut(key) else {
            return self.connections.note(event, self.poll.registry());
        };
        if slot.delivery.is_some() {
            if slot.is_delivery_over(peer, event) {
                self.end(key);
            }
            return;
        }
        let (kernel, buffer) = (&self.kernel, &mut self.buffer);
        let (rulebook, now) = (self.rulebooks.of(slot.route), self.now);
        let is_listed = slot.marks.has(Mark::Listed);
        let next = guarded(|| {
            slot.at(rulebook, now).note(peer, event.into());
            // One turn in a round: it has one behind those that only now have something.
            if is_listed { Next::Wait } else { slot.turn(kernel, buffer, rulebook, now) }
        });
        if next != Next::Wait || slot.local.rearm {
            self.follow(key, next);
        }
    }

    /// Gives the first `count` of those whose turn was over another one: one of them, and more as long as they take no
    /// longer than the events did. The others stay the first, so that a message waits for few of those who always have
    /// more. Who was listed in this round has had a turn in it.
    fn serve_again(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let begun = elapsed();
        let budget = begun.saturating_sub(self.woken_at).max(ROUND_BESIDE_TUNNELS);
        for _ in 0..count {
            let Some(key) = self.again.pop_front() else { return };
            if let Some(slot) = self.slots.get_mut(key) {
                slot.marks.put(Mark::Listed, false);
                if slot.delivery.is_none() {
                    let (kernel, buffer) = (&self.kernel, &mut self.buffer);
                    let (rulebook, now) = (self.rulebooks.of(slot.route), self.now);
                    let next = guarded(|| slot.turn(kernel, buffer, rulebook, now));
                    self.follow(key, next);
                }
            }
            if elapsed().saturating_sub(begun) >= budget {
                return;
            }
        }
    }

    fn follow(&mut self, key: usize, next: Next) {
        self.rounds.goes_on();
        match next {
            Next::Wait => self.rearm(key),
            Next::Again => {
                self.list(key);
                self.rearm(key);
            }
            Next::End => self.end(key),
            Next::Failed => self.fail(key),
            Next::AwaitDelivery => self.begin_delivery(key),
        }
    }

    fn list(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && !slot.marks.put(Mark::Listed, true)
        {
            self.again.push_back(key);
        }
    }

    /// Whether to go on.
    fn carry_out_orders(&mut self) -> bool {
        self.rounds.goes_on();
        let mut goes_on = true;
        for order in self.door.take_orders() {
            match order {
                Order::Adopt { tunnel, stays } => self.adopt(tunnel, stays),
                Order::Resume(batch) => self.resume(batch),
                Order::Take(request) => self.take(request),
                Order::Enter(connection) => self.connections.enter(connection, Instant::now()),
                Order::Serve(proxy, ids) => {
                    self.rulebooks.add(proxy.routes.named());
                    self.connections.serve(proxy, ids);
                }
                Order::Listen(listening) => {
                    self.connections.listen(*listening, self.poll.registry());
                }
                Order::StopListening => self.connections.stop_listening(self.poll.registry()),
                Order::Stage(stage) => {
                    self.connections.drain(stage, self.poll.registry(), Instant::now());
                }
                Order::AddressesAreKnown { key, number } => {
                    self.connections.addresses_are_known(key, number);
                }
                Order::TakeAll(to) => {
                    // Nobody may be waiting any more; then the tunnels close.
                    drop(to.send(self.take_all()));
                }
                Order::Look(look) => self.answer(look),
                Order::Drain(period) => self.drain(period),
                Order::Stop => goes_on = false,
            }
        }
        goes_on
    }

    /// The place of the tunnel, unless it has ended.
    fn take_in(
        &mut self,
        mut new: NewTunnel,
        begin: impl FnOnce(&mut Slot, &Rulebook, Now, Secret),
    ) -> Option<usize> {
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(room::places::<Slot>());
        }
        if let Some(agent) = new.tunnel.state.identity.user_agent() {
            self.user_agents.share(agent);
        }
        let entry = self.slots.vacant_entry();
        if let Err(fault) = register(self.poll.registry(), &new, entry.key()) {
            tracing::error!(%fault, "cannot register a tunnel");
            self.left();
            self.tell(new.tunnel, End::new(Side::Elbows, Phase::Relay, Reason::NoRoom), None);
            return None;
        }
        // The first event of each socket comes at once and says what it is ready for.
        let key = entry.key();
        self.reach = self.reach.max(key + 1);
        let route = self.rulebooks.number(new.tunnel.state.identity.route());
        let (rulebook, now) = (self.rulebooks.of(route), self.now);
        self.ledger.came(key, Traffic::of(&new.tunnel.state));
        self.endpoints.came(key, &new.tunnel.state);
        let slot = entry.insert(Slot::new(new.tunnel, route));
        let next = guarded(|| {
            begin(slot, rulebook, now, secret(key));
            Next::Wait
        });
        if next == Next::Failed {
            self.fail(key);
            return None;
        }
        self.drain_late(key);
        self.rearm(key);
        Some(key)
    }

    fn end(&mut self, key: usize) {
        let Some(mut slot) = self.remove(key) else { return };
        if slot.marks.has(Mark::HasCopies) {
            deregister(self.poll.registry(), &slot.tunnel);
        }
        slot.cut();
        let end = slot.tunnel.state.end();
        self.tell(slot.tunnel, end, Some(self.position(key)));
    }

    /// The poll still tells of it, until its sockets are closed.
    fn remove(&mut self, key: usize) -> Option<Slot> {
        let slot = self.slots.try_remove(key)?;
        self.wheel.remove(key);
        self.ledger.left(key, Traffic::of(&slot.tunnel.state));
        self.endpoints.left(key, &slot.tunnel.state);
        if self.slots.is_empty() && self.reach > KEPT {
            self.give_back();
        }
        self.left();
        Some(slot)
    }

    /// Gives back the memory of many tunnels, once all are gone.
    fn give_back(&mut self) {
        self.slots = Slab::new();
        self.user_agents.clear();
        self.wheel = Wheel::new(self.now.tick);
        self.again = VecDeque::new();
        self.deliveries = VecDeque::new();
        self.reach = 0;
        self.cursor = Cursor::default();
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

    const fn position(&self, key: usize) -> Position {
        Position { worker: self.number, key }
    }

    fn left(&self) {
        self.door.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A panic in there is one tunnel's bad luck and must not be that of all others.
    fn tell(&self, tunnel: Tunnel, end: End, position: Option<Position>) {
        let told = panic::catch_unwind(AssertUnwindSafe(|| (self.on_end)(tunnel, end, position)));
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
                Order::Adopt { tunnel, .. } => {
                    self.left();
                    self.tell(tunnel, STOPPED, None);
                }
                Order::Resume(batch) => {
                    for tunnel in batch.tunnels {
                        self.left();
                        self.tell(tunnel, STOPPED, None);
                    }
                }
                // Whoever waits hears from the closed channel that there are none.
                Order::Take(_)
                | Order::TakeAll(_)
                | Order::Look(_)
                | Order::StopListening
                | Order::Drain(_)
                | Order::Enter(_)
                | Order::Serve(..)
                | Order::Listen(_)
                | Order::Stage(_)
                | Order::AddressesAreKnown { .. }
                | Order::Stop => {}
            }
        }
        for tunnel in self.take_all() {
            self.tell(tunnel, STOPPED, None);
        }
    }
}

/// What nobody else can know of a tunnel.
fn secret(key: usize) -> Secret {
    Secret::new(RandomState::new().hash_one(key))
}
