//! How often each client may come: the generic cell rate algorithm (GCRA, ITU-T I.371, the virtual
//! scheduling form), in a table of fixed size. Pure: time in, decision out.
//!
//! One number a client is all: the time at which its allowance will be full again. Each that comes moves it
//! one interval on; what would move it further from now than a burst allows may not come. An entry whose
//! time has passed says nothing and its place is free, so nobody has to tidy up.
//!
//! The table is small buckets. When a bucket is full, a new client takes the place of the one that has
//! used least, which gets its allowance back early. So a flood from many addresses makes the limit
//! generous to those that hardly come, and to nobody who comes often.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::network::Network;
use crate::config::Rate;

/// Clients in the table at most, in buckets of [`WAYS`]. 1.5 MiB in all.
const CLIENTS: usize = 65_536;

/// Clients in a bucket: enough that a bucket is seldom full before the table is.
const WAYS: usize = 16;

/// The rate of each client.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Nanoseconds for one, in the long run.
    interval: u64,
    /// How far from now the allowance may be full again for one more to come: a burst less one.
    tolerance: u64,
    buckets: Box<[Bucket]>,
    /// Keyed at random, so that nobody can choose addresses that fill one bucket.
    hasher: RandomState,
}

type Bucket = [Entry; WAYS];

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    client: Network,
    /// When its allowance is full again. Not later than now: the place is free.
    full_at: u64,
}

/// A client came too often; after so long one more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOften(pub(crate) Duration);

impl Rates {
    pub(crate) fn new(rate: Rate) -> Self {
        Self::with_places(rate, CLIENTS)
    }

    fn with_places(rate: Rate, places: usize) -> Self {
        let interval = nanoseconds(rate.interval());
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(rate.burst().get()) - 1),
            buckets: vec![Bucket::default(); places.div_ceil(WAYS)].into_boxed_slice(),
            hasher: RandomState::new(),
        }
    }

    /// One comes. `now` is the time since any fixed moment, and does not go back; where it does, the
    /// client waits for what it went back.
    pub(crate) fn take(&mut self, client: Network, now: Duration) -> Result<(), TooOften> {
        let now = nanoseconds(now);
        let (interval, tolerance) = (self.interval, self.tolerance);
        let Some(entry) = self.entry(client) else { return Ok(()) };
        let full_at = entry.full_at.max(now);
        if full_at - now > tolerance {
            return Err(TooOften(Duration::from_nanos(full_at - now - tolerance)));
        }
        entry.full_at = full_at.saturating_add(interval);
        Ok(())
    }

    /// Those whose allowance is not full now, each with how long it takes until it is.
    pub(crate) fn live(&self, now: Duration) -> impl Iterator<Item = (Network, Duration)> {
        let now = nanoseconds(now);
        let live = self.buckets.iter().flatten().filter(move |entry| entry.full_at > now);
        live.map(move |entry| (entry.client, Duration::from_nanos(entry.full_at - now)))
    }

    /// Has the allowance of a client be full after `remaining`, unless it takes longer by what is known of it here.
    /// Where the rate is another than the one by which that was counted, no client waits longer than if it had used all.
    pub(crate) fn restore(&mut self, client: Network, remaining: Duration, now: Duration) {
        let longest = self.tolerance.saturating_add(self.interval);
        let now = nanoseconds(now);
        let full_at = now.saturating_add(nanoseconds(remaining).min(longest));
        if let Some(entry) = self.entry(client) {
            entry.full_at = entry.full_at.max(full_at);
        }
    }

    /// Whether one more of this client could come now. Takes nothing.
    #[cfg(test)]
    pub(crate) fn look(&mut self, client: Network, now: Duration) -> Result<(), TooOften> {
        let now = nanoseconds(now);
        let tolerance = self.tolerance;
        let Some(bucket) = self.bucket(client) else { return Ok(()) };
        let Some(entry) = bucket.iter().find(|entry| entry.client == client) else { return Ok(()) };
        match entry.full_at.saturating_sub(now).checked_sub(tolerance) {
            None | Some(0) => Ok(()),
            Some(wait) => Err(TooOften(Duration::from_nanos(wait))),
        }
    }

    /// The place of a client. One that has none gets a free one, or else the one whose loss is least.
    fn entry(&mut self, client: Network) -> Option<&mut Entry> {
        let bucket = self.bucket(client)?;
        let entry = match bucket.iter_mut().position(|entry| entry.client == client) {
            Some(found) => bucket.get_mut(found),
            None => bucket.iter_mut().min_by_key(|entry| entry.full_at),
        }?;
        if entry.client != client {
            *entry = Entry { client, full_at: 0 };
        }
        Some(entry)
    }

    fn bucket(&mut self, client: Network) -> Option<&mut Bucket> {
        let buckets = u64::try_from(self.buckets.len()).ok()?;
        let number = self.hasher.hash_one(client).checked_rem(buckets)?;
        self.buckets.get_mut(usize::try_from(number).ok()?)
    }
}

/// 584 years fit.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::config::rate;

    fn client(number: u32) -> Network {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    fn rates(text: &str) -> Rates {
        Rates::new(rate::parse(text).unwrap())
    }

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_comes_at_once_and_then_one_an_interval() {
        let mut rates = rates("10/s burst=3");
        for _ in 0..3 {
            assert_eq!(rates.take(client(1), at(0)), Ok(()));
        }
        assert_eq!(rates.take(client(1), at(0)), Err(TooOften(at(100))));
        assert_eq!(rates.take(client(1), at(60)), Err(TooOften(at(40))));
        assert_eq!(rates.take(client(1), at(100)), Ok(()));
        assert_eq!(rates.take(client(1), at(100)), Err(TooOften(at(100))));
        // Two intervals give two back, and a long silence no more than the burst.
        assert_eq!(rates.take(client(1), at(300)), Ok(()));
        assert_eq!(rates.take(client(1), at(300)), Ok(()));
        assert_eq!(rates.take(client(1), at(300)), Err(TooOften(at(100))));
        for _ in 0..3 {
            assert_eq!(rates.take(client(1), at(1_000_000)), Ok(()));
        }
        assert_eq!(rates.take(client(1), at(1_000_000)), Err(TooOften(at(100))));
    }

    #[test]
    fn allowances_go_on_in_another_table_with_another_clock() {
        let (mut old, mut new) = (rates("10/s burst=3"), rates("10/s burst=3"));
        for _ in 0..3 {
            assert_eq!(old.take(client(1), at(5_000)), Ok(()));
        }
        assert_eq!(old.take(client(2), at(5_000)), Ok(()));
        assert_eq!(old.take(client(3), at(4_000)), Ok(()), "full again at 4,100");
        let mut live: Vec<_> = old.live(at(5_040)).collect();
        live.sort_by_key(|(_, remaining)| *remaining);
        assert_eq!(live, [(client(2), at(60)), (client(1), at(260))]);
        for (client, remaining) in live {
            new.restore(client, remaining, at(70));
        }
        assert_eq!(new.take(client(1), at(70)), Err(TooOften(at(60))));
        assert_eq!(new.take(client(1), at(130)), Ok(()));
        for left in [Ok(()), Ok(()), Err(TooOften(at(60)))] {
            assert_eq!(new.take(client(2), at(70)), left);
        }
        // What has been used here already is not given back.
        new.restore(client(2), at(1), at(70));
        assert_eq!(new.take(client(2), at(70)), Err(TooOften(at(60))));
        assert_eq!(old.live(at(10_000)).count(), 0);
    }

    #[test]
    fn nobody_waits_longer_than_the_rate_here_allows() {
        let mut rates = rates("10/s burst=3");
        rates.restore(client(1), Duration::MAX, at(1_000));
        assert_eq!(rates.take(client(1), at(1_000)), Err(TooOften(at(100))));
        assert_eq!(rates.take(client(1), at(1_100)), Ok(()));
    }

    #[test]
    fn each_client_has_its_own_allowance() {
        let mut rates = rates("1/min");
        assert_eq!(rates.take(client(1), at(0)), Ok(()));
        assert_eq!(rates.take(client(2), at(0)), Ok(()));
        assert_eq!(rates.take(client(1), at(0)), Err(TooOften(at(60_000))));
    }

    #[test]
    fn a_refusal_and_a_look_take_nothing() {
        let mut rates = rates("1/s");
        assert_eq!(rates.look(client(1), at(0)), Ok(()));
        assert_eq!(rates.take(client(1), at(0)), Ok(()));
        for _ in 0..100 {
            assert_eq!(rates.look(client(1), at(1)), Err(TooOften(at(999))));
            assert_eq!(rates.take(client(1), at(1)), Err(TooOften(at(999))));
        }
        assert_eq!(rates.look(client(1), at(1_000)), Ok(()));
        assert_eq!(rates.take(client(1), at(1_000)), Ok(()));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_and_frees_no_heavy_client() {
        let rate = rate::parse("100/min").unwrap();
        let mut rates = Rates::with_places(rate, 256);
        let heavy = client(u32::MAX);
        while rates.take(heavy, at(0)).is_ok() {}
        for number in 0..100_000 {
            // Each comes once: none has used as much.
            assert_eq!(rates.take(client(number), at(0)), Ok(()));
        }
        assert!(rates.take(heavy, at(0)).is_err(), "its place was taken");
        assert_eq!(rates.buckets.len() * WAYS, 256);
        // Later all that is forgotten by itself.
        assert_eq!(rates.take(heavy, at(120_000)), Ok(()));
    }

    #[test]
    fn table_is_1_5_mib() {
        let rates = rates("1/s");
        assert_eq!(size_of_val(&*rates.buckets), 3 << 19);
    }

    #[test]
    fn extremes_do_not_overflow() {
        for text in ["1/h burst=1000000", "1000000/s", "1/h"] {
            let mut rates = rates(text);
            for now in [Duration::ZERO, at(1), Duration::MAX, Duration::ZERO] {
                let _ = rates.take(client(1), now);
                let _ = rates.look(client(1), now);
            }
        }
    }

    proptest! {
        /// In any stretch of time no more come than a burst and what the rate gives in it.
        #[test]
        fn never_more_than_the_rate_allows(
            gaps in prop::collection::vec(0_u64..300, 1..200),
            burst in 1_u32..8,
        ) {
            let mut rates = rates(&format!("10/s burst={burst}"));
            let mut now = 0;
            let mut came = Vec::new();
            for gap in gaps {
                now += gap;
                let looked = rates.look(client(7), at(now));
                let taken = rates.take(client(7), at(now));
                prop_assert_eq!(looked, taken);
                if taken.is_ok() {
                    came.push(now);
                }
                for (index, first) in came.iter().enumerate() {
                    let allowed = u64::from(burst) + (now - first) / 100;
                    prop_assert!((came.len() - index) as u64 <= allowed);
                }
                if let Err(TooOften(wait)) = taken {
                    // It is told the truth: not before, and then at once.
                    let then = at(now) + wait;
                    let before = then.saturating_sub(Duration::from_nanos(1));
                    prop_assert!(rates.look(client(7), before).is_err());
                    prop_assert_eq!(rates.look(client(7), then), Ok(()));
                }
            }
        }
    }
}
