//! Evening out: when it begins and ends, and with clients that come back, how fast and at what cost.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::unchecked_time_subtraction)] // Of constants.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::config::{Balance, pace};
use crate::upstream::balance::Shares;

const TICK: Duration = Duration::from_millis(250);

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(place).unwrap() + 1))
}

fn holdings(tunnels: &[u64], weights: &[u64]) -> Vec<Holding> {
    let all = tunnels.iter().zip(weights).enumerate();
    all.map(|(place, (tunnels, weight))| Holding {
        address: address(place),
        tunnels: *tunnels,
        weight: *weight,
    })
    .collect()
}

fn even(tunnels: &[u64]) -> Vec<Holding> {
    holdings(tunnels, &vec![1; tunnels.len()])
}

fn rebalance(text: &str) -> Rebalance {
    Rebalance::new(pace::parse(text).unwrap())
}

/// Steps until there is change, for `longest` at most. The change, and when it was.
fn change(
    rebalance: &mut Rebalance,
    now: &mut Instant,
    holdings: &[Holding],
    longest: Duration,
) -> Option<Change> {
    let all = holdings.iter().map(|holding| holding.tunnels).sum();
    let until = *now + longest;
    while *now < until {
        *now += TICK;
        if let Some(change) = rebalance.step(*now, holdings, all, true).change {
            return Some(change);
        }
    }
    None
}

#[test]
fn it_begins_when_all_has_been_well_for_some_time() {
    let (mut rebalance, start) = (rebalance("10%/min"), Instant::now());
    let mut now = start;
    let uneven = even(&[200, 200, 200, 0]);
    let begins = Change::Begins { fullest: address(0), tunnels: 200, share: 150 };
    assert_eq!(change(&mut rebalance, &mut now, &uneven, CALM), None);
    // One fails for a moment.
    rebalance.step(now, &uneven, 600, false);
    assert_eq!(change(&mut rebalance, &mut now, &uneven, CALM), None);
    // Another one comes.
    let more = even(&[200, 200, 200, 0, 0]);
    assert_eq!(change(&mut rebalance, &mut now, &more, CALM), None);
    // And goes, while another comes: as many as before.
    let mut other = uneven;
    other.push(Holding { address: address(9), tunnels: 0, weight: 1 });
    assert_eq!(change(&mut rebalance, &mut now, &other, CALM), None);
    assert!(!rebalance.is_moving());
    other.pop();
    let before = now;
    assert_eq!(change(&mut rebalance, &mut now, &other, 2 * CALM), Some(begins));
    assert!(rebalance.is_moving() && now - before <= CALM + 2 * TICK);
}

#[test]
fn it_begins_where_the_difference_is_worth_it() {
    for (tunnels, weights, begins) in [
        (vec![], vec![], false),
        (vec![900], vec![1], false),
        (vec![0, 0], vec![1, 1], false),
        // 1.2 times, and one more.
        (vec![120, 80], vec![1, 1], false),
        (vec![121, 79], vec![1, 1], true),
        // A few are not worth it, however many times they are.
        (vec![8, 0], vec![1, 1], false),
        (vec![10, 0], vec![1, 1], true),
        // As their weights say, and the other way round.
        (vec![300, 100], vec![3, 1], false),
        (vec![200, 200], vec![3, 1], true),
        (vec![60_000, 0], vec![1, 60_000], true),
    ] {
        let (mut rebalance, mut now) = (rebalance("10%/min"), Instant::now());
        let change = change(&mut rebalance, &mut now, &holdings(&tunnels, &weights), 2 * CALM);
        assert_eq!(change.is_some(), begins, "{tunnels:?} {weights:?}");
    }
}

#[test]
fn it_stops_at_once_where_something_is_not_well() {
    let uneven = even(&[200, 200, 200, 0]);
    let changed = even(&[200, 200, 200]);
    for (holdings, is_well) in [(&uneven, false), (&changed, true)] {
        let (mut rebalance, mut now) = (rebalance("100%/min"), Instant::now());
        change(&mut rebalance, &mut now, &uneven, 2 * CALM).unwrap();
        let step = rebalance.step(now + TICK, &uneven, 600, true);
        assert_eq!(step.close.values().sum::<usize>(), 2);
        assert_eq!(step.vacancies, [Vacancy { address: address(3), place: 3 }; 2]);
        rebalance.closed(2);
        let step = rebalance.step(now + 2 * TICK, holdings, 600, is_well);
        assert_eq!(step, Step::change(Change::Stops { closed: 2 }));
        assert!(!rebalance.is_moving());
    }
}

#[test]
fn what_was_missed_is_not_made_up_for_at_once() {
    let (mut rebalance, mut now) = (rebalance("10%/min"), Instant::now());
    let uneven = even(&[60_000, 0]);
    change(&mut rebalance, &mut now, &uneven, 2 * CALM).unwrap();
    // The process stood still, or none could be found: a second's worth.
    for _ in 0..3 {
        now += Duration::from_secs(100);
        let step = rebalance.step(now, &uneven, 60_000, true);
        assert_eq!(step.close[&address(0)], 100);
    }
    rebalance.closed(100);
    now += TICK;
    assert_eq!(rebalance.step(now, &uneven, 60_000, true).close[&address(0)], 25);
}

/// An endpoint that takes connections and answers no handshake.
#[test]
fn few_are_closed_where_nobody_comes_to_the_others() {
    for (all, most) in [(100, 8), (9_000, 450)] {
        let (mut rebalance, mut now) = (rebalance("100%/min"), Instant::now());
        let tunnels = [all, 0];
        change(&mut rebalance, &mut now, &even(&tunnels), 2 * CALM).unwrap();
        let mut change = None;
        while change.is_none() {
            now += TICK;
            let step = rebalance.step(now, &even(&tunnels), all, true);
            let closed: usize = step.close.values().sum();
            rebalance.closed(closed as u64);
            // They come back to where they were.
            change = step.change;
        }
        assert_eq!(change, Some(Change::GivesUp { closed: most, came: 0 }));
        let mut rested = Duration::ZERO;
        while !rebalance.is_moving() {
            rested += TICK;
            let step = rebalance.step(now + rested, &even(&tunnels), all, true);
            assert!(step.close.is_empty());
        }
        assert!(rested >= REST, "{rested:?}");
    }
}

/// Random numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Endpoints, and clients that come back when they are closed.
struct World {
    tunnels: Vec<u64>,
    weights: Vec<u64>,
    shares: Shares,
    vacancies: VecDeque<Vacancy>,
    /// The ticks at which clients come back.
    away: Vec<u64>,
    numbers: Numbers,
    turn: u64,
}

impl World {
    fn new(weights: &[u16], seed: u64) -> Self {
        Self {
            tunnels: vec![0; weights.len()],
            weights: weights.iter().map(|weight| u64::from(*weight)).collect(),
            shares: Shares::new(weights),
            vacancies: VecDeque::new(),
            away: Vec::new(),
            numbers: Numbers(seed),
            turn: 0,
        }
    }

    fn open(&mut self) {
        self.turn += 1;
        let place = match self.vacancies.pop_front() {
            Some(vacancy) => vacancy.place,
            None => {
                self.shares.choose(Balance::LeastTunnels, self.turn, self.numbers.next(), |place| {
                    self.tunnels[place]
                })
            }
        };
        self.tunnels[place] += 1;
    }

    /// How many tunnels an endpoint is to have, and tunnels above that.
    fn excess(&self) -> (f64, Vec<f64>) {
        let sum = |numbers: &[u64]| numbers.iter().sum::<u64>() as f64;
        let (total, weight) = (sum(&self.tunnels), sum(&self.weights));
        let shares: Vec<_> = self.weights.iter().map(|own| total * *own as f64 / weight).collect();
        let over =
            self.tunnels.iter().zip(&shares).map(|(own, share)| (*own as f64 - share).max(0.0));
        (over.sum(), shares)
    }
}

mod simulated {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// New endpoints come, and clients that are closed come back within some seconds, wherever `BALANCE` sends them.
        #[test]
        fn tunnels_are_even_in_the_time_that_the_pace_says_and_few_are_closed_for_nothing(
            old in prop::collection::vec(1_u16..4, 1..12), new in prop::collection::vec(1_u16..4, 1..4),
            tunnels in 0_u64..9_000, percent in 5_u8..=100, delay in 1_u64..40, seed: u64,
        ) {
            let mut world = World::new(&old, seed);
            (0..tunnels).for_each(|_| world.open());
            let before = world.tunnels;
            world = World::new(&[old.as_slice(), &new].concat(), seed);
            world.tunnels[..old.len()].copy_from_slice(&before);
            let (ideal, shares) = world.excess();

            let mut rebalance = rebalance(&format!("{percent}%/min"));
            let mut now = Instant::now();
            let mut closed = Vec::new();
            let a_tick = tunnels as f64 * f64::from(percent) / 100.0 / 240.0;
            let most_away = (tunnels / AWAY).max(FEWEST_AWAY) as f64;
            let slow = (ideal / a_tick).max(ideal / most_away * delay as f64);
            let longest = if ideal < 1.0 { 100 } else { (slow * 1.3) as u64 + 4 * delay + 100 };
            for tick in 0..longest {
                now += TICK;
                let (back, away): (Vec<_>, Vec<_>) = world.away.iter().partition(|at| **at <= tick);
                world.away = away;
                for _ in back {
                    world.open();
                }
                let holdings = holdings(&world.tunnels, &world.weights);
                let step = rebalance.step(now, &holdings, tunnels - world.away.len() as u64, true);
                prop_assert!(!matches!(step.change, Some(Change::Stops { .. } | Change::GivesUp { .. })), "{:?}", step.change);
                let mut number = 0;
                for (address, close) in step.close {
                    let place = usize::from(address.port()) - 1;
                    world.tunnels[place] -= close as u64;
                    number += close as u64;
                }
                for _ in 0..number {
                    world.away.push(tick + 1 + world.numbers.next() % delay);
                }
                rebalance.closed(number);
                world.vacancies = step.vacancies.into();
                closed.push(number);
            }
            (0..world.away.len()).for_each(|_| world.open());

            prop_assert!(!rebalance.is_moving(), "{:?} {shares:?} {longest}", world.tunnels);
            for (own, share) in world.tunnels.iter().zip(&shares) {
                let most = (share * 1.2).max(share + FEW as f64);
                prop_assert!(*own as f64 <= most + 1e-6, "{:?} {shares:?}", world.tunnels);
            }
            let all: u64 = closed.iter().sum();
            prop_assert!(all as f64 <= ideal * 1.15 + 8.0, "{all} were closed, {ideal} had to be");
            let minute = closed.windows(240.min(closed.len())).map(|ticks| ticks.iter().sum::<u64>());
            let most = minute.max().unwrap_or(0);
            let allowed = tunnels as f64 * f64::from(percent) / 100.0;
            prop_assert!(most as f64 <= allowed * 61.0 / 60.0 + 1.0, "{most} in a minute, {allowed} may be");
        }
    }
}
