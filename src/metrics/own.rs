//! Numbers that one worker alone writes, and control reads. Pure.
//!
//! A worker adds by a load and a store, which cost what they cost on a plain number: no other thread adds to the same
//! one, so that nothing is locked and no cache line is fought for. Control reads them at a scrape, and sums over the
//! workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number of one worker: a count, or how much there is of something.
#[derive(Debug, Default)]
pub(crate) struct Own(AtomicU64);

impl Own {
    /// Adds `number`. For the one thread that writes it.
    #[inline]
    pub(crate) fn add(&self, number: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
    }

    /// Says how much there is now.
    #[inline]
    pub(crate) fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number as it is.
    #[must_use]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that a histogram counts with.
pub(crate) trait Number: Default {
    fn add(&self, number: u64);
    fn get(&self) -> u64;
}

impl Number for Own {
    fn add(&self, number: u64) {
        self.add(number);
    }

    fn get(&self) -> u64 {
        self.get()
    }
}

/// How often values were in which range; `N` ranges have an upper bound, and one more has none.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize, T = Own> {
    counts: [T; N],
    above: T,
    sum: T,
}

impl<const N: usize, T: Number> Default for Histogram<N, T> {
    fn default() -> Self {
        let counts = std::array::from_fn(|_| T::default());
        Self { counts, above: T::default(), sum: T::default() }
    }
}

impl<const N: usize, T: Number> Histogram<N, T> {
    /// Counts a value. `bounds` ascend, and a value that is a bound is in its range.
    pub(crate) fn observe(&self, value: u64, bounds: &[u64; N]) {
        let place = bounds.partition_point(|bound| *bound < value);
        self.counts.get(place).unwrap_or(&self.above).add(1);
        self.sum.add(value);
    }

    /// Counts a time, whose unit is a microsecond.
    pub(crate) fn observe_time(&self, time: Duration, bounds: &[u64; N]) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), bounds);
    }

    /// What it has counted.
    pub(crate) fn distribution(&self) -> Distribution {
        let counts = self.counts.iter().chain([&self.above]).map(T::get).collect();
        Distribution { counts, sum: self.sum.get() }
    }
}

/// What histograms have counted: values in each range, the last one being that above all bounds, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: u64,
}

impl Distribution {
    /// Adds those of another worker, whose ranges are the same.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.wrapping_add(*more);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The sum of several.
    pub(crate) fn of(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |mut sum, one| {
            sum.add(&one);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: [u64; 3] = [10, 100, 1_000];

    #[test]
    fn value_that_is_a_bound_is_in_its_range() {
        let histogram = Histogram::<3>::default();
        for value in [0, 10, 11, 100, 101, 1_000, 1_001, 5_000_000] {
            histogram.observe(value, &BOUNDS);
        }
        let Distribution { counts, sum } = histogram.distribution();
        assert_eq!((counts, sum), (vec![2, 2, 2, 2], 5_002_223));
    }

    #[test]
    fn times_are_in_microseconds() {
        let histogram = Histogram::<3>::default();
        histogram.observe_time(Duration::from_nanos(100_999), &BOUNDS);
        let Distribution { counts, sum } = histogram.distribution();
        assert_eq!((counts, sum), (vec![0, 1, 0, 0], 100));
    }

    proptest! {
        /// However values are spread over workers, their sum is that of one who saw them all.
        #[test]
        fn sum_over_workers_is_what_one_would_have_counted(
            values in prop::collection::vec((0..3_usize, 0..2_000_u64), 0..200),
        ) {
            let workers: [Histogram<3>; 3] = std::array::from_fn(|_| Histogram::default());
            let all = Histogram::<3>::default();
            for (worker, value) in &values {
                if let Some(worker) = workers.get(*worker) {
                    worker.observe(*value, &BOUNDS);
                }
                all.observe(*value, &BOUNDS);
            }
            let sum = Distribution::of(workers.iter().map(Histogram::distribution));
            prop_assert_eq!(sum.counts.iter().sum::<u64>(), values.len() as u64);
            prop_assert_eq!(sum, all.distribution());
        }
    }
}
