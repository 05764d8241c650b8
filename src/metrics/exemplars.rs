//! Exemplars: of each range of a histogram one value that was in it, with the trace that it is of. Pure.
//!
//! A worker writes its own, and control reads them at a scrape, so that nobody waits: each has a turn, which is odd while
//! it is written, and whoever reads another turn behind it than before it has read parts of two, and tells none.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::http::trace_context::TraceId;

/// A time, of whose trace, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub(crate) trace_id: TraceId,
    /// In microseconds.
    pub(crate) value: u64,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
}

/// The last one of a range. It is never of no trace but before the first.
#[derive(Debug, Default)]
struct Slot {
    turn: AtomicU64,
    trace_id: [AtomicU64; 2],
    value: AtomicU64,
    at: AtomicU64,
}

impl Slot {
    /// For the one thread that writes it.
    fn set(&self, exemplar: Exemplar) {
        let Exemplar { trace_id: TraceId(id), value, at } = exemplar;
        let id = u128::from_be_bytes(id);
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        #[allow(clippy::cast_possible_truncation)] // The two halves.
        for (half, number) in self.trace_id.iter().zip([(id >> 64) as u64, id as u64]) {
            half.store(number, Ordering::Relaxed);
        }
        self.value.store(value, Ordering::Relaxed);
        self.at.store(at, Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
    }

    /// None where there is none, or it is being written.
    fn get(&self) -> Option<Exemplar> {
        let turn = self.turn.load(Ordering::Acquire);
        let [high, low] = self.trace_id.each_ref().map(|half| half.load(Ordering::Relaxed));
        let value = self.value.load(Ordering::Relaxed);
        let at = self.at.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_whole = turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn;
        let id = u128::from(high) << 64 | u128::from(low);
        let trace_id = TraceId(id.to_be_bytes());
        (is_whole && id != 0).then_some(Exemplar { trace_id, value, at })
    }
}

/// One of each range; `N` ranges have an upper bound, and one more has none.
#[derive(Debug)]
pub(crate) struct Exemplars<const N: usize> {
    slots: [Slot; N],
    above: Slot,
}

impl<const N: usize> Default for Exemplars<N> {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), above: Slot::default() }
    }
}

impl<const N: usize> Exemplars<N> {
    /// Keeps a time in place of the one before in its range. `bounds` ascend, in microseconds.
    pub(crate) fn keep(&self, time: Duration, trace_id: TraceId, at: Duration, bounds: &[u64; N]) {
        let [value, at] = [time.as_micros(), at.as_millis()]
            .map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        let place = bounds.partition_point(|bound| *bound < value);
        self.slots.get(place).unwrap_or(&self.above).set(Exemplar { trace_id, value, at });
    }

    /// Those that there are, by range.
    pub(crate) fn all(&self) -> Vec<Option<Exemplar>> {
        self.slots.iter().chain([&self.above]).map(Slot::get).collect()
    }
}

/// Of the exemplars of several workers the last one of each range.
pub(crate) fn latest(
    workers: impl IntoIterator<Item = Vec<Option<Exemplar>>>,
) -> Vec<Option<Exemplar>> {
    let mut latest = Vec::new();
    for worker in workers {
        latest.resize(worker.len().max(latest.len()), None);
        for (last, exemplar) in latest.iter_mut().zip(worker) {
            let is_later =
                |exemplar: &Exemplar| last.is_none_or(|last: Exemplar| last.at < exemplar.at);
            if let Some(exemplar) = exemplar.filter(is_later) {
                *last = Some(exemplar);
            }
        }
    }
    latest
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const BOUNDS: [u64; 2] = [10, 100];

    fn id(number: u128) -> TraceId {
        TraceId(number.to_be_bytes())
    }

    fn kept(worker: &Exemplars<2>) -> Vec<Option<(TraceId, u64, u64)>> {
        let told = |one: Exemplar| (one.trace_id, one.value, one.at);
        worker.all().into_iter().map(|one| one.map(told)).collect()
    }

    #[test]
    fn last_one_of_each_range_is_kept() {
        let worker = Exemplars::<2>::default();
        assert_eq!(kept(&worker), [None, None, None]);
        for (micros, trace, at) in [(10, 1, 1), (11, 2, 2), (5, 3, 3), (1_000, 1 << 127, 4)] {
            let [time, at] = [Duration::from_micros(micros), Duration::from_millis(at)];
            worker.keep(time, id(trace), at, &BOUNDS);
        }
        let expected = [(id(3), 5, 3), (id(2), 11, 2), (id(1 << 127), 1_000, 4)];
        assert_eq!(kept(&worker), expected.map(Some));
    }

    #[test]
    fn of_several_workers_the_latest_is_told() {
        let exemplar = |at| Some(Exemplar { trace_id: id(u128::from(at)), value: 1, at });
        let workers =
            [vec![exemplar(3), None, None], vec![exemplar(2), exemplar(5), None], vec![None; 3]];
        assert_eq!(latest(workers), [exemplar(3), exemplar(5), None]);
        assert_eq!(latest([]), []);
    }

    /// Whoever reads while it is written gets all of one or nothing.
    #[test]
    fn what_is_read_is_never_of_two() {
        let worker = Arc::new(Exemplars::<2>::default());
        let writing = thread::spawn({
            let worker = Arc::clone(&worker);
            move || {
                for number in 1..=300_000_u64 {
                    let trace_id = id(u128::from(number) << 64 | u128::from(number));
                    worker.keep(Duration::ZERO, trace_id, Duration::from_millis(number), &BOUNDS);
                }
            }
        });
        let mut last = 0;
        while last < 300_000 {
            if let Some(Some(Exemplar { trace_id, at, .. })) = worker.all().first() {
                assert_eq!(*trace_id, id(u128::from(*at) << 64 | u128::from(*at)));
                assert!(*at >= last);
                last = *at;
            }
        }
        assert!(writing.join().is_ok());
    }
}
