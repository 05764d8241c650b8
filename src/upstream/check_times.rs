//! When each endpoint is checked. Pure: endpoints, the time and random numbers come in as arguments.
//!
//! One that comes is checked at once. From the end of a check to the next one it is `UPSTREAM_CHECK_INTERVAL`, a tenth more
//! or less, so that many do not stay together; after its first check a random part of it, so that they do not begin
//! together. While something is changing it is a fifth of that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// While something is changing there are so many checks in one interval.
const FASTER: u32 = 5;

/// The times of the checks of all endpoints.
#[derive(Debug)]
pub(crate) struct CheckTimes {
    /// `UPSTREAM_CHECK_INTERVAL`.
    interval: Duration,
    known: BTreeMap<SocketAddr, Known>,
    /// Those that are not being checked, the next one first.
    due: BTreeSet<(Instant, SocketAddr)>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Or it is being checked.
    due_at: Option<Instant>,
    was_checked: bool,
}

impl CheckTimes {
    /// Of no endpoints.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, known: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// These endpoints are there now; with each, whether something is changing there.
    pub(crate) fn are_there(
        &mut self,
        all: impl IntoIterator<Item = (SocketAddr, bool)>,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.known);
        self.due.clear();
        let soon = now + self.interval / FASTER;
        for (address, is_changing) in all {
            let new = Known { due_at: Some(now), was_checked: false };
            let mut known = before.get(&address).copied().unwrap_or(new);
            if is_changing {
                known.due_at = known.due_at.map(|at| at.min(soon));
            }
            self.due.extend(known.due_at.map(|at| (at, address)));
            self.known.insert(address, known);
        }
    }

    /// The endpoint that is to be checked now: it is being checked from then on.
    pub(crate) fn take(&mut self, now: Instant) -> Option<SocketAddr> {
        let (_, address) = self.due.first().filter(|(at, _)| *at <= now).copied()?;
        self.due.pop_first();
        if let Some(known) = self.known.get_mut(&address) {
            known.due_at = None;
        }
        Some(address)
    }

    /// A check of `address` has ended. `random` is any number.
    pub(crate) fn ended(
        &mut self,
        address: SocketAddr,
        is_changing: bool,
        now: Instant,
        random: u64,
    ) {
        let Some(known) = self.known.get_mut(&address) else { return };
        let interval = if is_changing { self.interval / FASTER } else { self.interval };
        let part = u32::try_from(random % 1_000).unwrap_or_default();
        // In thousandths.
        let times = if known.was_checked || is_changing { 900 + part / 5 } else { 1 + part };
        let at = now + interval * times / 1_000;
        *known = Known { due_at: Some(at), was_checked: true };
        self.due.insert((at, address));
    }

    /// When the next one is to be checked.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction)]

    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn taken(times: &mut CheckTimes, now: Instant) -> Vec<u16> {
        std::iter::from_fn(|| times.take(now)).map(|address| address.port()).collect()
    }

    #[test]
    fn one_that_comes_is_checked_at_once_and_one_that_goes_never() {
        let now = Instant::now();
        let mut times = CheckTimes::new(INTERVAL);
        assert_eq!(times.next(), None);
        times.are_there([(address(1), true), (address(2), true)], now);
        assert_eq!(times.next(), Some(now));
        assert_eq!(taken(&mut times, now), [1, 2]);
        assert_eq!(times.next(), None, "both are being checked");
        times.are_there([(address(2), false), (address(3), true)], now);
        assert_eq!(taken(&mut times, now), [3]);
        times.ended(address(1), false, now, 7);
        assert_eq!(times.next(), None, "it has gone");
    }

    #[test]
    fn one_that_is_changing_is_checked_five_times_as_often() {
        let now = Instant::now();
        let mut times = CheckTimes::new(INTERVAL);
        times.are_there([(address(1), true)], now);
        taken(&mut times, now);
        times.ended(address(1), true, now, 0);
        assert_eq!(times.next(), Some(now + Duration::from_millis(900)));
        taken(&mut times, now + INTERVAL);
        times.ended(address(1), false, now, 999);
        let calm = times.next().unwrap();
        assert_eq!(calm, now + Duration::from_millis(5_495));
        // It took no connection meanwhile.
        times.are_there([(address(1), true)], now);
        assert_eq!(times.next(), Some(now + INTERVAL / FASTER));
    }

    proptest! {
        /// Whatever comes and goes: each that is there is checked once at a time, and again within an interval and a tenth.
        #[test]
        fn each_is_checked_as_often_as_the_interval_says(
            steps in prop::collection::vec((prop::collection::btree_set(1_u16..9, 0..6), any::<u64>(), any::<bool>()), 1..60),
        ) {
            let start = Instant::now();
            let mut times = CheckTimes::new(INTERVAL);
            let mut last: BTreeMap<u16, Duration> = BTreeMap::new();
            for (number, (there, random, is_changing)) in (0_u64..).zip(steps) {
                let over = Duration::from_secs(number);
                let now = start + over;
                times.are_there(there.iter().map(|port| (address(*port), is_changing)), now);
                last.retain(|port, _| there.contains(port));
                let checked = taken(&mut times, now);
                for port in &there {
                    let waits = last.get(port).map(|at| over - *at);
                    let is_due = waits.is_none_or(|waits| waits >= INTERVAL * 11 / 10);
                    prop_assert!(!is_due || checked.contains(port), "{port} at {over:?}");
                }
                for port in checked {
                    prop_assert!(there.contains(&port));
                    if let Some(at) = last.insert(port, over) {
                        prop_assert!(over > at, "twice at a time");
                    }
                    times.ended(address(port), is_changing, now, random);
                }
            }
        }
    }
}
