//! How endpoints that are gone give up their tunnels (`ENDPOINT_GONE=drain`). Pure: which are gone, and what time it is,
//! come in as arguments.
//!
//! ```text
//!  seen: no answer has it ──a later answer of each name has it neither──▶ drained over ENDPOINT_GONE_PERIOD
//!    │                                                                       │
//!    └─────────────── an answer has it again, or its last tunnel ended ──────┴──▶ forgotten
//! ```
//!
//! Time counts while names are answered and there is an endpoint to go to: an answer that fails says nothing of who is
//! gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A step later than this counts as one of this: what was missed is not made up for at once.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// The endpoints that are gone and have tunnels.
#[derive(Debug)]
pub(crate) struct Departures {
    period: Duration,
    gone: BTreeMap<SocketAddr, Departure>,
    /// When the last step was.
    last: Option<Instant>,
}

#[derive(Debug)]
enum Departure {
    /// It is missing since then.
    Seen(Instant),
    /// It had so many tunnels, and this much of the period has passed.
    Drained { tunnels: u64, passed: Duration },
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// How many tunnels of which endpoints are to be closed.
    pub(crate) close: BTreeMap<SocketAddr, usize>,
    /// Of these a drain begins now, with their tunnels.
    pub(crate) begun: Vec<(SocketAddr, u64)>,
}

impl Departures {
    /// Each drain takes so long.
    pub(crate) const fn new(period: Duration) -> Self {
        Self { period, gone: BTreeMap::new(), last: None }
    }

    /// Whether any endpoint is being drained.
    pub(crate) fn is_draining(&self) -> bool {
        self.gone.values().any(|departure| matches!(departure, Departure::Drained { .. }))
    }

    /// What is to be done now. `gone` are the endpoints that no answer has, with those of their tunnels that are there to
    /// stay. All names were answered well since `answered`, which is none where one fails; with `is_possible` there is an
    /// endpoint to go to, and nothing else ends tunnels.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        gone: &[(SocketAddr, u64)],
        answered: Option<Instant>,
        is_possible: bool,
    ) -> Step {
        let since = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        let gone: BTreeMap<_, _> = gone.iter().copied().collect();
        self.gone.retain(|address, _| gone.contains_key(address));
        let mut step = Step::default();
        for (address, tunnels) in gone {
            let departure = self.gone.entry(address).or_insert(Departure::Seen(now));
            let Some(answered) = answered.filter(|_| is_possible) else { continue };
            match departure {
                Departure::Seen(seen) if answered > *seen => {
                    *departure = Departure::Drained { tunnels, passed: Duration::ZERO };
                    step.begun.push((address, tunnels));
                }
                Departure::Seen(_) => {}
                Departure::Drained { tunnels: before, passed } => {
                    *passed += since.min(LONGEST_STEP);
                    let left = self.period.saturating_sub(*passed).as_nanos();
                    let stay = u128::from(*before) * left / self.period.as_nanos().max(1);
                    let close = tunnels.saturating_sub(u64::try_from(stay).unwrap_or(u64::MAX));
                    if let Ok(close @ 1..) = usize::try_from(close) {
                        step.close.insert(address, close);
                    }
                }
            }
        }
        step
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #![allow(clippy::unchecked_time_subtraction)] // Of constants.

    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);
    const TICK: Duration = Duration::from_millis(250);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// One whose drain has begun, at the time that is returned.
    fn begun(tunnels: u64) -> (Departures, Instant) {
        let mut departures = Departures::new(PERIOD);
        let now = Instant::now();
        let gone = [(address(1), tunnels)];
        assert_eq!(departures.step(now, &gone, Some(now), true), Step::default());
        let now = now + TICK;
        let step = departures.step(now, &gone, Some(now), true);
        assert_eq!(step.begun, [(address(1), tunnels)]);
        assert!(step.close.is_empty() && departures.is_draining());
        (departures, now)
    }

    #[test]
    fn drain_begins_with_an_answer_that_came_after_the_endpoint_went() {
        let mut departures = Departures::new(PERIOD);
        let start = Instant::now();
        let gone = [(address(1), 10)];
        for (seconds, answered) in [(0, Some(0)), (1, Some(0)), (2, None), (3, Some(0))] {
            let at = |seconds| start + Duration::from_secs(seconds);
            let step = departures.step(at(seconds), &gone, answered.map(at), true);
            assert_eq!(step, Step::default(), "{seconds}");
        }
        let answered = Some(start + Duration::from_secs(4));
        let now = start + Duration::from_secs(5);
        assert_eq!(departures.step(now, &gone, answered, false), Step::default(), "nowhere to go");
        assert!(!departures.is_draining());
        assert_eq!(departures.step(now, &gone, answered, true).begun, gone);
    }

    #[test]
    fn endpoint_that_comes_back_begins_anew() {
        let (mut departures, now) = begun(10);
        assert_eq!(departures.step(now + TICK, &[], Some(now), true), Step::default());
        assert!(!departures.is_draining());
        let step = departures.step(now + PERIOD, &[(address(1), 10)], Some(now), true);
        assert_eq!(step, Step::default());
        assert!(!departures.is_draining());
    }

    #[test]
    fn nothing_is_closed_while_a_name_fails_nor_all_at_once_after_it() {
        let (mut departures, mut now) = begun(600);
        for _ in 0..1_000 {
            now += TICK;
            let step = departures.step(now, &[(address(1), 600)], None, true);
            assert_eq!(step, Step::default());
        }
        now += TICK;
        let step = departures.step(now, &[(address(1), 600)], Some(now), true);
        assert_eq!(step.close[&address(1)], 3);
        // The process stood still.
        now += PERIOD;
        let step = departures.step(now, &[(address(1), 597)], Some(now), true);
        assert_eq!(step.close[&address(1)], 10);
    }

    #[test]
    fn no_period_is_at_once() {
        let mut departures = Departures::new(Duration::ZERO);
        let now = Instant::now();
        let gone = [(address(1), 7), (address(2), 9)];
        departures.step(now, &gone, Some(now), true);
        let now = now + TICK;
        departures.step(now, &gone, Some(now), true);
        let step = departures.step(now, &gone, Some(now), true);
        assert_eq!(step.close.into_iter().collect::<Vec<_>>(), [(address(1), 7), (address(2), 9)]);
    }

    proptest! {
        /// However many there are, and whatever ends by itself: as many in each part of the period, and none is left.
        #[test]
        fn all_are_closed_over_the_period_evenly(tunnels in 1..20_000_u64, end in 0..50_u64) {
            let (mut departures, start) = begun(tunnels);
            let (mut now, mut left) = (start, tunnels);
            let most = usize::try_from(tunnels / 240 + 1).unwrap();
            while now < start + PERIOD {
                now += TICK;
                let step = departures.step(now, &[(address(1), left)], Some(now), true);
                let close = step.close.get(&address(1)).copied().unwrap_or_default();
                prop_assert!(close <= most, "{close} of {tunnels} at once");
                left -= close as u64;
                left = left.saturating_sub(end);
                if left == 0 { break; }
            }
            prop_assert_eq!(left, 0);
        }
    }
}
