//! The timer wheel of a worker: which tunnels, or connections, are to be looked at when.
//!
//! Pure: ticks in, keys of the slab out. One time per key; a new one replaces it. What a tunnel waits
//! for (a ping, a pong, its lifetime) and whether that was put off since is the tunnel's matter: a
//! message only stores when it came, and whoever is looked at too early asks for another look. So
//! nothing here is touched per message. Each key is a node of its slot's ring, 12 bytes in one array:
//! setting, moving, removing and firing take a few steps, whatever the number of tunnels; a heap
//! would take more, and one list per slot would keep the memory of its busiest moment.

use super::room;
use crate::clock::is_reached;

/// Slots: one turn is 20 s. What is due later stays in its slot for more turns, which costs a step
/// each. A power of two, so that slots stay in order where the tick number wraps around.
const SLOTS: u32 = 1024;

/// Slots that one word of the map stands for.
const PER_WORD: u32 = u64::BITS;

/// The node that heads the ring of what is taken out of its slot to be looked at.
const VISITED: u32 = SLOTS;

/// The node of the first key. Those before it head the rings.
const FIRST_KEY: u32 = VISITED + 1;

/// A wheel. Tick numbers wrap around (after 2.7 years) and are compared within half of that.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Heads of rings, then keys. It grows to the highest key, as the slab does.
    nodes: Vec<Node>,
    /// A bit per slot: clear if nothing is in it. One that was removed leaves it set.
    map: [u64; (SLOTS / PER_WORD) as usize],
    /// The last tick whose slot was visited.
    visited: u32,
}

/// A member of a ring, alone in its own if it is in no other.
#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    next: u32,
    at: u32,
}

impl Wheel {
    /// An empty one, at tick `now`.
    pub(crate) fn new(now: u32) -> Self {
        let mut nodes = Vec::with_capacity(room::places::<Node>());
        nodes.extend((0..FIRST_KEY).map(Node::alone));
        Self { nodes, map: [0; _], visited: now }
    }

    /// Has `key` fire at tick `at`, and not at the one it was to fire at before. A tick that is over
    /// means the next one.
    ///
    /// Keys are to be small, as those of a slab are: memory is proportional to the largest one. One
    /// that a `u32` cannot hold is ignored.
    pub(crate) fn insert(&mut self, key: usize, at: u32) {
        let Some(node) = to_node(key) else {
            return;
        };
        let known = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.extend((known..=node).map(Node::alone));
        self.unlink(node);
        let soonest = self.visited.wrapping_add(1);
        let at = if is_reached(at, soonest) { soonest } else { at };
        self.node(node).at = at;
        self.link(node);
    }

    /// `key` will not fire.
    pub(crate) fn remove(&mut self, key: usize) {
        if let Some(node) = to_node(key)
            && (node as usize) < self.nodes.len()
        {
            self.unlink(node);
        }
    }

    /// Takes out one key whose tick has come at tick `now`, in no order. To be called until there is
    /// none; what is inserted meanwhile takes part.
    pub(crate) fn pop(&mut self, now: u32) -> Option<usize> {
        loop {
            let node = self.node(VISITED).next;
            if node != VISITED {
                self.unlink(node);
                if is_reached(self.node(node).at, now) {
                    return Some((node - FIRST_KEY) as usize);
                }
                self.link(node);
                continue;
            }
            if is_reached(now, self.visited) {
                return None;
            }
            // Beyond one turn each slot would be visited again.
            let one_turn_ago = now.wrapping_sub(SLOTS);
            if is_reached(self.visited, one_turn_ago) {
                self.visited = one_turn_ago;
            }
            match self.next_in_map() {
                Some(tick) if is_reached(tick, now) => self.visit(tick),
                _ => self.visited = now,
            }
        }
    }

    /// The tick at which [`Wheel::pop`] is to be called next; `None` if nothing is in the wheel. Now
    /// and then there is nothing to pop: once per turn for a slot whose keys fire later.
    pub(crate) fn next_tick(&mut self) -> Option<u32> {
        if self.node(VISITED).next != VISITED {
            return Some(self.visited);
        }
        self.next_in_map()
    }

    /// Takes all that is in a tick's slot to be looked at.
    fn visit(&mut self, tick: u32) {
        self.visited = tick;
        let slot = tick % SLOTS;
        if let Some(word) = self.map.get_mut((slot / PER_WORD) as usize) {
            *word &= !(1 << (slot % PER_WORD));
        }
        let Node { previous: last, next: first, .. } = *self.node(slot);
        if first == slot {
            return;
        }
        // The ring of those is empty, or nothing would be visited.
        *self.node(slot) = Node::alone(slot);
        *self.node(VISITED) = Node { previous: last, next: first, at: 0 };
        self.node(first).previous = VISITED;
        self.node(last).next = VISITED;
    }

    /// The first tick behind the visited ones whose slot has something in it.
    fn next_in_map(&self) -> Option<u32> {
        let soonest = self.visited.wrapping_add(1);
        let start = soonest % SLOTS;
        let from_start = u64::MAX << (start % PER_WORD);
        let words = SLOTS / PER_WORD;
        // The word that the start is in comes first and last: what is before the start is last.
        (0..=words).find_map(|step| {
            let place = (start / PER_WORD + step) % words;
            let word = *self.map.get(place as usize)?;
            let word = match step {
                0 => word & from_start,
                _ => word,
            };
            let slot = place * PER_WORD + word.trailing_zeros();
            (word != 0).then(|| soonest.wrapping_add(slot.wrapping_sub(start) % SLOTS))
        })
    }

    /// Puts a node that is alone into the ring of its slot.
    fn link(&mut self, node: u32) {
        let slot = self.node(node).at % SLOTS;
        let last = self.node(slot).previous;
        self.node(node).previous = last;
        self.node(node).next = slot;
        self.node(slot).previous = node;
        self.node(last).next = node;
        if let Some(word) = self.map.get_mut((slot / PER_WORD) as usize) {
            *word |= 1 << (slot % PER_WORD);
        }
    }

    fn unlink(&mut self, node: u32) {
        let Node { previous, next, .. } = *self.node(node);
        self.node(previous).next = next;
        self.node(next).previous = previous;
        self.node(node).previous = node;
        self.node(node).next = node;
    }

    /// Numbers of nodes are made in this file, and none outlives its node.
    #[allow(clippy::indexing_slicing)]
    fn node(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize]
    }
}

impl Node {
    const fn alone(number: u32) -> Self {
        Self { previous: number, next: number, at: 0 }
    }
}

fn to_node(key: usize) -> Option<u32> {
    u32::try_from(key).ok()?.checked_add(FIRST_KEY)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert {
            key: usize,
            ticks: u32,
        },
        Remove {
            key: usize,
        },
        Advance {
            ticks: u32,
        },
        /// To the tick that the wheel says is next.
        AdvanceToNext,
    }

    fn some_ticks() -> impl Strategy<Value = u32> {
        prop_oneof![
            4 => 0..30_u32,
            2 => 0..3 * SLOTS,
            1 => (0..4_u32).prop_map(|turns| turns * SLOTS),
            1 => 0..100 * SLOTS,
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20_usize, some_ticks()).prop_map(|(key, ticks)| Step::Insert { key, ticks }),
            1 => (0..25_usize).prop_map(|key| Step::Remove { key }),
            2 => some_ticks().prop_map(|ticks| Step::Advance { ticks }),
            2 => Just(Step::AdvanceToNext),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        /// Held against a plain map: at each advance exactly those fire whose time has come, once.
        #[test]
        fn what_is_due_fires_and_nothing_else(
            start in prop_oneof![any::<u32>(), Just(0), u32::MAX - 3000..=u32::MAX],
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let mut wheel = Wheel::new(start);
            // Both without wrapping around.
            let mut now = 0_u64;
            let mut expected = BTreeMap::new();
            let at = |tick: u64| start.wrapping_add(u32::try_from(tick).unwrap());
            for step in steps {
                match step {
                    Step::Insert { key, ticks } => {
                        let due = now + u64::from(ticks);
                        wheel.insert(key, at(due));
                        // What is due already fires with the next tick.
                        expected.insert(key, due.max(now + 1));
                        continue;
                    }
                    Step::Remove { key } => {
                        wheel.remove(key);
                        expected.remove(&key);
                        continue;
                    }
                    Step::Advance { ticks } => now += u64::from(ticks),
                    Step::AdvanceToNext => match wheel.next_tick() {
                        Some(next) => {
                            let ahead = next.wrapping_sub(at(now));
                            prop_assert!(ahead <= SLOTS, "{ahead} is too far ahead");
                            let earliest = expected.values().min();
                            let by_then = now + u64::from(ahead);
                            prop_assert!(earliest.is_none_or(|&due| by_then <= due), "overslept");
                            now = by_then;
                        }
                        None => prop_assert!(expected.is_empty()),
                    },
                }
                let mut fired = BTreeSet::new();
                while let Some(key) = wheel.pop(at(now)) {
                    prop_assert!(fired.insert(key), "{key} fired twice");
                }
                let due: BTreeSet<_> =
                    expected.extract_if(.., |_, &mut due| due <= now).map(|(key, _)| key).collect();
                prop_assert_eq!(fired, due);
            }
        }

        /// Insertions, removals and moves while keys are popped: each key fires once, when due.
        #[test]
        fn what_changes_while_it_fires_is_heeded(
            keys in prop::collection::vec(some_ticks(), 2..20),
            ahead in some_ticks(),
            again in some_ticks(),
        ) {
            let mut wheel = Wheel::new(7);
            let now = 7 + ahead;
            for (key, ticks) in keys.iter().enumerate() {
                wheel.insert(key, 7 + ticks);
            }
            let Some(first) = wheel.pop(now) else {
                prop_assert!(keys.iter().all(|&ticks| ticks.max(1) > ahead));
                return Ok(());
            };
            // The next one goes, the first one comes again.
            let gone = (first + 1) % keys.len();
            wheel.remove(gone);
            wheel.insert(first, now.wrapping_add(1 + again));
            let mut fired = BTreeSet::new();
            while let Some(key) = wheel.pop(now) {
                prop_assert!(fired.insert(key));
            }
            let is_due = |key: &usize| keys[*key].max(1) <= ahead && *key != first && *key != gone;
            prop_assert_eq!(fired, (0..keys.len()).filter(is_due).collect::<BTreeSet<_>>());
            // It was inserted before the wheel had come to `now`.
            let later = now.wrapping_add(1 + again);
            prop_assert_eq!(wheel.pop(later.wrapping_sub(1)).filter(|&key| key == first), None);
            let all: Vec<_> = std::iter::from_fn(|| wheel.pop(later)).collect();
            prop_assert!(all.contains(&first));
        }
    }

    #[test]
    fn an_empty_wheel_has_no_next_tick() {
        let mut wheel = Wheel::new(0);
        assert_eq!(wheel.next_tick(), None);
        wheel.insert(3, 10);
        assert_eq!(wheel.next_tick(), Some(10));
        assert_eq!(wheel.pop(9), None);
        assert_eq!(wheel.pop(10), Some(3));
        assert_eq!(wheel.next_tick(), None);
        assert_eq!(wheel.pop(u32::MAX / 4), None);
    }

    #[test]
    fn a_key_costs_twelve_bytes() {
        assert_eq!(size_of::<Node>(), 12);
    }
}
