//! Time as the data plane counts it: ticks and stamps since a start that the worker knows.
//!
//! Pure: whoever waits asks the clock once per wake-up and passes it on as [`Now`]. A tick is as fine as
//! timers are; a stamp is as fine as round trips are. Both wrap around, and are compared within half of
//! their range.

use std::time::{Duration, Instant};

/// How fine timers are. Intervals of 100 ms are legal; a wheel that turned much faster would wake its
/// thread more often than the pings of many tunnels do.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// A moment. Tick numbers wrap around after 2.7 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The number of the tick that has begun.
    pub(crate) tick: u32,
    /// The same moment in microseconds.
    pub(crate) stamp: Stamp,
}

/// A moment in microseconds. Wraps around after 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(pub(crate) u32);

/// A moment that is kept for long: in nanoseconds from the start of the count, before which it is less than 0. It takes half
/// of what an [`Instant`] does, and 292 years away is as far as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since(i64);

impl Since {
    /// The moment that `instant` is, where the count began at `start`.
    #[must_use]
    pub fn of(instant: Instant, start: Instant) -> Self {
        match instant.checked_duration_since(start) {
            Some(elapsed) => Self(nanoseconds(elapsed)),
            None => Self(-nanoseconds(start.saturating_duration_since(instant))),
        }
    }

    /// The moment that was `age` ago, when it is `elapsed` after the start of the count.
    #[must_use]
    pub fn ago(age: Duration, elapsed: Duration) -> Self {
        Self(nanoseconds(elapsed).saturating_sub(nanoseconds(age)))
    }

    /// How long ago it was, when it is `elapsed` after the start of the count.
    #[must_use]
    pub fn age(self, elapsed: Duration) -> Duration {
        let nanoseconds = i128::from(nanoseconds(elapsed)) - i128::from(self.0);
        Duration::from_nanos(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX))
    }

    /// Microseconds from the start of the count; none before it.
    pub(crate) const fn micros(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0.unsigned_abs() / 1_000 }
    }
}

/// What takes longer is taken for the longest: whole microseconds, as records have them.
fn nanoseconds(time: Duration) -> i64 {
    const LONGEST: i64 = i64::MAX / 1_000 * 1_000;
    i64::try_from(time.as_nanos()).unwrap_or(LONGEST).min(LONGEST)
}

impl Now {
    /// The moment that is `elapsed` after the start of the count.
    #[must_use]
    pub const fn at(elapsed: Duration) -> Self {
        Self { tick: tick(elapsed), stamp: Stamp::at(elapsed) }
    }
}

impl Stamp {
    /// The stamp `elapsed` after the start of the count.
    #[allow(clippy::cast_possible_truncation)] // Wraps around.
    pub(crate) const fn at(elapsed: Duration) -> Self {
        let seconds = (elapsed.as_secs() as u32).wrapping_mul(1_000_000);
        Self(seconds.wrapping_add(elapsed.subsec_micros()))
    }

    /// Microseconds from an earlier stamp to this one.
    pub(crate) const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The stamp so many microseconds later.
    pub(crate) const fn later_by(self, micros: u32) -> Self {
        Self(self.0.wrapping_add(micros))
    }
}

/// The number of the tick that has begun, `elapsed` after the start of the count.
#[allow(clippy::cast_possible_truncation)] // Wraps around.
pub(crate) const fn tick(elapsed: Duration) -> u32 {
    const PER_SECOND: u32 = 1_000_000_000 / TICK.subsec_nanos();
    let seconds = (elapsed.as_secs() as u32).wrapping_mul(PER_SECOND);
    seconds.wrapping_add(elapsed.subsec_nanos() / TICK.subsec_nanos())
}

/// Ticks to add to the tick in which something happened, for a tick that begins at least `interval`
/// after it, and less than two ticks later than that. A year at most.
#[allow(clippy::cast_possible_truncation)] // Less than a year of ticks.
pub(crate) fn ticks(interval: Duration) -> u32 {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let rounded_up = interval.min(YEAR).as_nanos().div_ceil(TICK.as_nanos());
    // It happened within its tick, not at the beginning.
    rounded_up as u32 + 1
}

/// Whether tick `now` has come to `at`.
pub(crate) const fn is_reached(at: u32, now: u32) -> bool {
    now.wrapping_sub(at) < 1 << 31
}

/// How long it is until tick `at` begins, `elapsed` after the start of the count: not at all if it
/// has begun.
pub(crate) fn until(at: u32, elapsed: Duration) -> Duration {
    let now = tick(elapsed);
    if is_reached(at, now) {
        return Duration::ZERO;
    }
    let into_tick = elapsed.subsec_nanos() % TICK.subsec_nanos();
    (TICK * at.wrapping_sub(now)).saturating_sub(Duration::from_nanos(into_tick.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        /// A tick that is due is never before the interval is over, nor two ticks later.
        #[test]
        fn an_interval_is_waited_in_full(
            happened in 0..10_000_000_000_000_u64,
            interval in 0..100_000_000_000_u64,
        ) {
            let (happened, interval) =
                (Duration::from_nanos(happened), Duration::from_nanos(interval));
            let due = tick(happened).wrapping_add(ticks(interval));
            let begins = TICK * due;
            prop_assert!(begins >= happened + interval);
            prop_assert!(begins < happened + interval + 2 * TICK);
            // Whoever sleeps until then wakes up right then.
            prop_assert_eq!(happened + until(due, happened), begins);
            prop_assert_eq!(until(due, begins), Duration::ZERO);
        }
    }

    #[test]
    fn moment_has_the_same_age_however_it_was_made() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        for (instant, since) in [
            (start, Since::default()),
            (start + second, Since::ago(2 * second, 3 * second)),
            (start.checked_sub(second).unwrap(), Since::ago(2 * second, second)),
        ] {
            assert_eq!(Since::of(instant, start), since);
            assert_eq!(since.age(5 * second), start + 5 * second - instant);
        }
        assert_eq!(Since::of(start + second, start).age(Duration::ZERO), Duration::ZERO);
        assert_eq!(Since::ago(2 * second, 3 * second).micros(), 1_000_000);
        assert_eq!(Since::ago(second, Duration::ZERO).micros(), 0);
        let longest = Since::ago(Duration::MAX, second);
        let micros = u64::try_from(longest.age(second).as_micros()).unwrap();
        assert_eq!(Since::ago(Duration::from_micros(micros), second), longest);
        assert!(
            Since::ago(Duration::MAX, Duration::ZERO).age(Duration::MAX)
                > Duration::from_secs(500 * 365 * 86_400)
        );
    }

    #[test]
    fn an_endless_interval_is_a_year() {
        assert_eq!(ticks(Duration::MAX), 365 * 24 * 60 * 60 * 50 + 1);
        assert!(is_reached(u32::MAX, 0) && !is_reached(0, u32::MAX));
    }
}
