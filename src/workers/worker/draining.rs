//! How the tunnels of a worker leave: each at its moment of the drain, or all at once, to go on elsewhere.

use std::hash::{BuildHasher, Hash, RandomState};
use std::mem;
use std::time::Duration;

use super::Worker;
use super::registration::deregister;
use crate::clock::{is_reached, ticks};
use crate::metrics::traffic::Traffic;
use crate::tunnel::Tunnel;

impl Worker {
    /// A tunnel that opens during the drain has what is left of it.
    pub(super) fn drain_late(&mut self, key: usize) {
        let Some(until) = self.drained_at else { return };
        let Some(slot) = self.slots.get_mut(key) else { return };
        let now = self.now;
        let left = if is_reached(until, now.tick) { 0 } else { until.wrapping_sub(now.tick) };
        let can_send_close = slot.tunnel.state.can_send_close();
        let wait = if can_send_close { share(left, random(&key), 1 << 32) } else { left };
        let rulebook = self.rulebooks.of(slot.route);
        slot.at(rulebook, now).drain_at(now.tick.wrapping_add(wait));
    }

    /// Gives each tunnel its moment: the period has as many parts as there are tunnels, and each has
    /// a part of its own, in any order, so that the rate is even from the first to the last. One that
    /// cannot be told of it has the whole period.
    pub(super) fn drain(&mut self, period: Duration) {
        let period = ticks(period);
        let drained_at = self.now.tick.wrapping_add(period);
        self.drained_at = Some(drained_at);
        self.rulebooks.drains(period, self.now.tick);
        let (mut keys, others): (Vec<_>, Vec<_>) = self
            .slots
            .iter()
            .map(|(key, slot)| (key, slot.tunnel.state.can_send_close()))
            .partition(|(_, can_send_close)| *can_send_close);
        for (key, _) in others {
            if let Some(slot) = self.slots.get_mut(key) {
                let rulebook = self.rulebooks.of(slot.route);
                slot.at(rulebook, self.now).drain_at(drained_at);
            }
            self.rearm(key);
        }
        keys.sort_by_cached_key(random);
        let parts = (keys.len() as u64) << 32;
        for (place, (key, _)) in (0_u64..).zip(keys) {
            if let Some(slot) = self.slots.get_mut(key) {
                let moment = (place << 32) + random(&(key, period));
                let at = self.now.tick.wrapping_add(share(period, moment, parts));
                let rulebook = self.rulebooks.of(slot.route);
                slot.at(rulebook, self.now).drain_at(at);
            }
            self.rearm(key);
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<Tunnel> {
        let slots = mem::take(&mut self.slots);
        self.give_back();
        let mut taken = Vec::with_capacity(slots.len());
        for (key, mut slot) in slots {
            self.ledger.left(key, Traffic::of(&slot.tunnel.state));
            self.endpoints.left(key, &slot.tunnel.state);
            deregister(self.poll.registry(), &slot.tunnel);
            self.left();
            if slot.is_closing() {
                slot.cut();
                let end = slot.tunnel.state.end();
                self.tell(slot.tunnel, end, Some(self.position(key)));
            } else {
                taken.push(slot.tunnel);
            }
        }
        taken
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
