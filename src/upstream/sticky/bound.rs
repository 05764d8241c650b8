//! How much an endpoint may have before keys that belong to it go elsewhere. Pure: loads come in as arguments.
//!
//! One that has more than 1.25 times what its weight says, and [`SLACK`] more, is full. So a key that everybody has, or keys
//! that somebody chose, cannot fill one endpoint alone (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with
//! Bounded Loads", 2016).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Of few tunnels a quarter more is none at all, and one client has several requests under way.
const SLACK: u64 = 16;

/// So many endpoints are looked at with each choice. Of more the sum is some choices old.
const LOOKS: usize = 2;

/// What endpoints have, all together, as far as it was looked at.
#[derive(Debug)]
pub(crate) struct Bound {
    sum: AtomicU64,
    /// What each had when it was looked at last.
    seen: Box<[AtomicU64]>,
    /// Which one is looked at next.
    next: AtomicUsize,
    total_weight: u64,
}

impl Bound {
    /// Of endpoints with these loads and weights.
    pub(crate) fn new(endpoints: impl Iterator<Item = (u64, u16)>) -> Self {
        let (mut sum, mut total_weight) = (0, 0);
        let seen = endpoints.map(|(load, weight)| {
            sum += load;
            total_weight += u64::from(weight.max(1));
            AtomicU64::new(load)
        });
        let seen = seen.collect();
        Self { sum: AtomicU64::new(sum), seen, next: AtomicUsize::new(0), total_weight }
    }

    /// Looks at the next few; `load` says what the endpoint at a place has.
    pub(crate) fn look(&self, load: impl Fn(usize) -> u64) {
        let count = self.seen.len();
        let looks = count.min(LOOKS);
        let mut place =
            self.next.fetch_add(looks, Ordering::Relaxed).checked_rem(count).unwrap_or(0);
        for _ in 0..looks {
            if let Some(seen) = self.seen.get(place) {
                let now = load(place);
                let before = seen.swap(now, Ordering::Relaxed);
                if now != before {
                    // Whoever swaps adds just the difference, however many look at once.
                    self.sum.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
                }
            }
            place = if place + 1 < count { place + 1 } else { 0 };
        }
    }

    /// Whether one with this load and weight is full.
    pub(crate) fn is_full(&self, load: u64, weight: u16) -> bool {
        let weight = u64::from(weight.max(1));
        let sum = self.sum.load(Ordering::Relaxed);
        let most = sum.saturating_mul(weight).saturating_mul(5);
        load.saturating_sub(SLACK).saturating_mul(self.total_weight).saturating_mul(4) > most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(loads: &[u64]) -> Bound {
        let bound = Bound::new(loads.iter().map(|_| (0, 1)));
        for _ in 0..loads.len().div_ceil(LOOKS) {
            bound.look(|place| loads.get(place).copied().unwrap_or(0));
        }
        bound
    }

    #[test]
    fn full_is_a_quarter_more_than_its_share_and_sixteen() {
        let all = bound(&[1_000; 4]);
        assert!(!all.is_full(1_266, 1));
        assert!(all.is_full(1_267, 1));
        assert!(!bound(&[0; 4]).is_full(16, 1), "the first ones");
        assert!(bound(&[0; 4]).is_full(17, 1));
    }

    #[test]
    fn share_is_by_weight() {
        let bound = Bound::new([(3_000, 3), (1_000, 1)].into_iter());
        assert!(!bound.is_full(3_766, 3) && bound.is_full(3_767, 3));
        assert!(!bound.is_full(1_266, 1) && bound.is_full(1_267, 1));
        let bound = Bound::new([(10, 0), (10, 0)].into_iter());
        assert!(!bound.is_full(28, 0) && bound.is_full(29, 0), "no weight counts as one");
    }

    #[test]
    fn many_are_looked_at_bit_by_bit() {
        let bound = Bound::new((0..20).map(|_| (0, 1)));
        for looks in 1..=12 {
            bound.look(|_| 1);
            assert_eq!(bound.sum.load(Ordering::Relaxed), 20.min(2 * looks));
        }
        for _ in 0..10 {
            bound.look(|_| 0);
        }
        assert_eq!(bound.sum.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nothing_is_never_full() {
        let bound = Bound::new(std::iter::empty());
        bound.look(|_| 1);
        assert!(!bound.is_full(100, 1));
    }
}
