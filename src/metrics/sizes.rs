//! Sizes of messages, in ranges that never get less from one scrape to the next. Pure.
//!
//! Messages are counted in their tunnels and added up in a walk that takes a while; those above the first range are
//! counted by their workers, and read when the walk is over. Messages that come between the two are in the second number
//! and not in the first, so that what is told of the smaller ranges is a little less than what there was at the walk,
//! once more and once less. Whoever compares two scrapes would take a number that goes back for a new process. So what
//! was told once is told again until the numbers have gone beyond it, which they do when no message comes for a moment.

use super::worker::LARGE_SIZES;
use crate::peer::{Pair, Peer};

/// The first range, and those above.
const RANGES: usize = LARGE_SIZES + 1;

/// What was told last: by who sent them, messages in each range or below it.
#[derive(Debug, Default)]
pub(crate) struct Sizes(Pair<[u64; RANGES]>);

impl Sizes {
    /// Messages in each range, of so many in all, of which so many were in each range but the first a moment later.
    pub(crate) fn next(&mut self, source: Peer, all: u64, large: &[u64]) -> Vec<u64> {
        let told = &mut self.0[source];
        // From the last range down, what is not above.
        let mut above = 0_u64;
        let larger = large.iter().rev().copied().chain([0]);
        for (below, more) in told.iter_mut().rev().zip(larger) {
            *below = (*below).max(all.saturating_sub(above));
            above = above.wrapping_add(more);
        }
        let before = [0].into_iter().chain(told.iter().copied());
        told.iter().zip(before).map(|(below, before)| below.saturating_sub(before)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::worker::large_range;
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Message { size: u64 },
        Walk,
        Tell,
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = prop_oneof![Just(1), Just(200), Just(2_000), Just(1 << 30)];
        prop_oneof![
            4 => size.prop_map(|size| Step::Message { size }),
            1 => Just(Step::Walk),
            1 => Just(Step::Tell),
        ]
    }

    fn below(counts: &[u64]) -> Vec<u64> {
        let sum = |sum: &mut u64, count: &u64| {
            *sum += count;
            Some(*sum)
        };
        counts.iter().scan(0, sum).collect()
    }

    proptest! {
        /// Whatever comes between a walk and what is told of it, nothing goes back, nothing is told that there was not,
        /// and when nothing comes any more it is what there was.
        #[test]
        fn ranges_never_go_back(steps in prop::collection::vec(step(), 0..100)) {
            let (mut sizes, mut counts) = (Sizes::default(), [0_u64; RANGES]);
            let (mut walked, mut last) = (0, vec![0; RANGES]);
            for step in steps.into_iter().chain([Step::Walk, Step::Tell]) {
                match step {
                    Step::Message { size } => {
                        counts[large_range(size).map_or(0, |range| range + 1)] += 1;
                    }
                    Step::Walk => walked = counts.iter().sum(),
                    Step::Tell => {
                        let told = below(&sizes.next(Peer::Client, walked, &counts[1..]));
                        prop_assert!(told.is_sorted());
                        prop_assert!(last.iter().zip(&told).all(|(last, told)| last <= told), "{last:?} {told:?}");
                        prop_assert!(told.iter().zip(below(&counts)).all(|(told, is)| *told <= is), "{told:?}");
                        prop_assert_eq!(told.last(), Some(&walked));
                        last = told;
                    }
                }
            }
            prop_assert_eq!(last, below(&counts));
        }
    }
}
