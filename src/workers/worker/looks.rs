//! A worker answers what control asks of its tunnels, a part of them in a round.

use super::{Slot, Worker, guarded};
use crate::admin::listing::PLACES;
use crate::admin::view::{Id, Moment, View};
use crate::end::Reason;
use crate::metrics::traffic::Traffic;
use crate::workers::looks::{Closed, Look};
use crate::workers::origin::elapsed;

impl Worker {
    /// Answers a question. Nobody may be waiting any more.
    pub(super) fn answer(&mut self, look: Look) {
        match look {
            Look::IsThere(answer) => {
                let _ = answer.send(());
            }
            Look::Traffic { begins, answer } => drop(answer.send(self.add_up(begins))),
            Look::Tunnels { question, answer } => {
                let tunnel = |key| {
                    let slot: &Slot = self.slots.get(key)?;
                    Some((&slot.tunnel.state, slot.is_closing()))
                };
                drop(answer.send(question.answer(self.reach, tunnel, self.moment())));
            }
            Look::Tunnel { id, answer } => {
                let at = self.moment();
                let slot = self.named(id);
                let view = slot.map(|slot| View::of(id, &slot.tunnel.state, slot.is_closing(), at));
                drop(answer.send(view));
            }
            Look::Close { id, close, answer } => {
                let is_there = self.named(id).is_some();
                let closed = is_there.then(|| self.close(id.key, close.code, &close.reason));
                let _ = answer.send(closed);
            }
            Look::Quietest { search, answer } => {
                let tunnel = |key| {
                    let slot: &Slot = self.slots.get(key)?;
                    Some((&slot.tunnel.state, slot.is_closing()))
                };
                let found = search.answer(self.number, self.reach, tunnel, self.now.tick);
                drop(answer.send(found));
            }
            Look::Leave { tunnels, answer } => {
                let closed = tunnels.into_iter().filter(|(id, why)| self.leave(*id, *why));
                let _ = answer.send(closed.count());
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, elapsed: elapsed() }
    }

    /// The place of the tunnel with this id, and of no other that was there before or came after it.
    fn named(&self, id: Id) -> Option<&Slot> {
        self.slots.get(id.key).filter(|slot| slot.tunnel.state.name() == id.name)
    }

    /// Adds up what passed, a part of the tunnels at a time.
    fn add_up(&mut self, begins: bool) -> Option<Traffic> {
        if begins {
            self.ledger.begin();
            self.rulebooks.default().metrics.links_idle.set(self.connections.idle_links() as u64);
        }
        for _ in 0..PLACES {
            let key = self.ledger.next();
            if key >= self.reach {
                return Some(self.ledger.end());
            }
            let slot = self.slots.get(key);
            self.ledger.look(slot.map(|slot| Traffic::of(&slot.tunnel.state)));
        }
        None
    }

    /// Closes a tunnel.
    fn close(&mut self, key: usize, code: u16, reason: &str) -> Closed {
        let Some(slot) = self.slots.get_mut(key) else { return Closed::Already };
        let (kernel, buffer) = (&self.kernel, &mut self.buffer);
        let (rulebook, now) = (self.rulebooks.of(slot.route), self.now);
        if slot.is_closing() || !slot.at(rulebook, now).close_by_order(code, reason) {
            return Closed::Already;
        }
        let is_websocket = slot.tunnel.state.is_websocket();
        let next = guarded(|| slot.turn(kernel, buffer, rulebook, now));
        self.follow(key, next);
        Closed::Begun { is_websocket }
    }

    /// Closes a tunnel because of its endpoint. Whether it was open.
    fn leave(&mut self, id: Id, why: Reason) -> bool {
        if self.named(id).is_none() {
            return false;
        }
        let Some(slot) = self.slots.get_mut(id.key) else { return false };
        let (kernel, buffer) = (&self.kernel, &mut self.buffer);
        let (rulebook, now) = (self.rulebooks.of(slot.route), self.now);
        if slot.is_closing() || !slot.at(rulebook, now).close_for_endpoint(why) {
            return false;
        }
        self.endpoints.leaves(id.key, &slot.tunnel.state);
        let next = guarded(|| slot.turn(kernel, buffer, rulebook, now));
        self.follow(id.key, next);
        true
    }
}
