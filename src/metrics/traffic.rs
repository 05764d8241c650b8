//! What passed in tunnels, added up when somebody asks. Pure.
//!
//! Each tunnel counts its own messages anyway, for its log line; nobody adds them to a sum as they pass. A worker goes
//! over its tunnels for a scrape instead, some at a time, while others come and go. So that each counts once, whenever
//! that is, and no sum ever gets smaller, a [`Ledger`] keeps what tunnels that have left had counted, less what those
//! that came from another process brought along.

use std::ops::{AddAssign, SubAssign};

use crate::peer::{Pair, Peer};
use crate::tunnel::State;

/// What passed in one direction. Each number wraps around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Messages whose last frame has begun.
    pub(crate) messages: u64,
    /// Their payload.
    pub(crate) sizes: u64,
    /// Payload that passed.
    pub(crate) payload: u64,
}

/// What passed in tunnels: what clients sent, and upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic(pub(crate) Pair<Passed>);

impl Traffic {
    /// What passed in a tunnel so far.
    pub(crate) fn of(state: &State) -> Self {
        Self(Pair::of(|peer| state.flows[peer].scanner.passed()))
    }
}

impl Passed {
    fn with(self, other: Self, merge: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            messages: merge(self.messages, other.messages),
            sizes: merge(self.sizes, other.sizes),
            payload: merge(self.payload, other.payload),
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        for peer in Peer::BOTH {
            self.0[peer] = self.0[peer].with(other.0[peer], u64::wrapping_add);
        }
    }
}

impl SubAssign for Traffic {
    fn sub_assign(&mut self, other: Self) {
        for peer in Peer::BOTH {
            self.0[peer] = self.0[peer].with(other.0[peer], u64::wrapping_sub);
        }
    }
}

/// What passed on a worker.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// In tunnels that have left, less what others brought.
    settled: Traffic,
    walk: Option<Walk>,
}

/// Tunnels are gone over, in the order of their keys.
#[derive(Debug)]
struct Walk {
    /// Those before this one have been looked at.
    next: usize,
    sum: Traffic,
}

impl Ledger {
    /// A tunnel came, with so much that was counted elsewhere.
    pub(crate) fn came(&mut self, key: usize, brought: Traffic) {
        self.settled -= brought;
        if let Some(walk) = self.walk.as_mut().filter(|walk| key >= walk.next) {
            walk.sum -= brought;
        }
    }

    /// A tunnel leaves, with so much in all.
    pub(crate) fn left(&mut self, key: usize, passed: Traffic) {
        self.settled += passed;
        if let Some(walk) = self.walk.as_mut().filter(|walk| key >= walk.next) {
            walk.sum += passed;
        }
    }

    /// Begins anew to go over the tunnels.
    pub(crate) fn begin(&mut self) {
        self.walk = Some(Walk { next: 0, sum: self.settled });
    }

    /// The first key that has not been looked at.
    pub(crate) fn next(&self) -> usize {
        self.walk.as_ref().map_or(0, |walk| walk.next)
    }

    /// Looks at the place behind those before: at its tunnel, if it has one.
    pub(crate) fn look(&mut self, passed: Option<Traffic>) {
        if let Some(walk) = &mut self.walk {
            walk.next += 1;
            if let Some(passed) = passed {
                walk.sum += passed;
            }
        }
    }

    /// All have been looked at: what passed on this worker, in this process.
    pub(crate) fn end(&mut self) -> Traffic {
        self.walk.take().map_or(self.settled, |walk| walk.sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn traffic(messages: u64) -> Traffic {
        let passed = Passed { messages, sizes: messages * 3, payload: messages * 5 };
        Traffic(Pair { client: passed, upstream: Passed { messages: messages / 2, ..passed } })
    }

    fn messages(traffic: Traffic) -> u64 {
        traffic.0.client.messages
    }

    #[derive(Clone, Debug)]
    enum Step {
        Come { key: usize, brought: u64 },
        Leave { key: usize },
        Pass { key: usize, more: u64 },
        Look { places: usize },
    }

    const PLACES: usize = 6;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..PLACES, 0..50_u64).prop_map(|(key, brought)| Step::Come { key, brought }),
            (0..PLACES).prop_map(|key| Step::Leave { key }),
            (0..PLACES, 0..50_u64).prop_map(|(key, more)| Step::Pass { key, more }),
            (1..4_usize).prop_map(|places| Step::Look { places }),
        ]
    }

    proptest! {
        /// Whatever comes, goes and passes between the parts of a walk, its sum is between what had passed at its
        /// beginning and what has at its end, and so no sum is smaller than the one before.
        #[test]
        fn sum_is_of_a_time_between_the_beginning_and_the_end_of_its_walk(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut ledger = Ledger::default();
            let mut tunnels = [None::<u64>; PLACES];
            let mut passed = 0;
            ledger.begin();
            let (mut at_beginning, mut last) = (0, 0);
            for step in steps {
                match step {
                    Step::Come { key, brought } if tunnels[key].is_none() => {
                        tunnels[key] = Some(brought);
                        ledger.came(key, traffic(brought));
                    }
                    Step::Leave { key } => {
                        if let Some(count) = tunnels[key].take() {
                            ledger.left(key, traffic(count));
                        }
                    }
                    Step::Pass { key, more } => {
                        if let Some(count) = &mut tunnels[key] {
                            *count += more;
                            passed += more;
                        }
                    }
                    Step::Look { places } => {
                        for _ in 0..places {
                            ledger.look(tunnels[ledger.next()].map(traffic));
                            if ledger.next() == PLACES {
                                let sum = messages(ledger.end());
                                prop_assert!((at_beginning..=passed).contains(&sum), "{sum}");
                                prop_assert!(sum >= last);
                                last = sum;
                                ledger.begin();
                                at_beginning = passed;
                            }
                        }
                    }
                    Step::Come { .. } => {}
                }
            }
        }
    }
}
