//! In which order endpoints are tried, and which one a key gets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::upstream::addresses::Found;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn state(has_failed: bool) -> EndpointState {
    if has_failed { EndpointState::Failed } else { EndpointState::Up }
}

/// One for each priority, numbered from 1.
fn endpoints(priorities: &[u16]) -> Arc<Endpoints> {
    let members = (1..).zip(priorities).map(|(port, priority)| {
        Member::up(Found { address: address(port), priority: *priority, weight: 1 })
    });
    Arc::new(Endpoints::new(members.collect(), &Loads::default()))
}

fn tried(candidates: &Candidates) -> Vec<u16> {
    let all = (0..).map_while(|number| candidates.get(number));
    all.map(|endpoint| endpoint.member.found.address.port()).collect()
}

#[test]
fn others_of_the_best_come_next() {
    let endpoints = endpoints(&[0, 0, 0, 5, 5]);
    let chosen = endpoints.choose(Balance::RoundRobin, Affinity::None, || 1, &|| 0);
    assert_eq!(tried(&chosen), [2, 3, 1, 4, 5]);
    assert_eq!(chosen.len(), 5);
    let beginning_with = |port| endpoints.beginning_with(address(port), Affinity::None, &|| 0);
    assert_eq!(tried(&beginning_with(4).unwrap()), [4, 1, 2, 3, 5]);
    assert!(beginning_with(6).is_none());
}

#[test]
fn vacancy_comes_first_where_it_is_still_one_of_the_best() {
    let endpoints = endpoints(&[0, 0, 0, 5]);
    let of = |port, place| {
        let chosen = endpoints.choose(Balance::RoundRobin, Affinity::None, || 0, &|| 0);
        tried(&chosen.beginning_at(Vacancy { address: address(port), place }))
    };
    assert_eq!(of(3, 2), [3, 1, 2, 4]);
    assert_eq!(of(3, 0), [3, 1, 2, 4], "it has another place now");
    assert_eq!(of(3, 9), [3, 1, 2, 4]);
    for (port, place) in [(4, 3), (9, 1)] {
        assert_eq!(of(port, place), [1, 2, 3, 4], "{port}");
    }
}

#[test]
fn one_endpoint_asks_for_no_random_number() {
    let endpoints = endpoints(&[0, 1]);
    let nothing = || unreachable!();
    let chosen = endpoints.choose(Balance::Random, Affinity::None, nothing, &nothing);
    assert_eq!(tried(&chosen), [1, 2]);
}

proptest! {
    #[test]
    fn each_is_tried_once(
        mut priorities in prop::collection::vec(0_u16..4, 1..20), turn: u64, random: u64, first in 1_u16..20,
    ) {
        priorities.sort_unstable();
        let endpoints = endpoints(&priorities);
        let mut all: Vec<_> = Balance::ALL
            .iter()
            .map(|balance| endpoints.choose(*balance, Affinity::None, || turn, &|| random))
            .collect();
        all.extend(endpoints.beginning_with(address(first), Affinity::None, &|| random));
        for candidates in all {
            let mut tried = tried(&candidates);
            tried.sort_unstable();
            prop_assert_eq!(tried, (1..).take(priorities.len()).collect::<Vec<u16>>());
        }
    }
}

/// Where keys count: some of which all weigh the same, numbered from 1.
struct Keyed {
    loads: Loads,
    endpoints: Arc<Endpoints>,
}

impl Keyed {
    /// `priority` says the priority of each, or nothing where it has failed, with priority 0.
    fn new(priorities: &[Option<u16>]) -> Self {
        Self::of(priorities, &vec![1; priorities.len()], Loads::default())
    }

    fn of(priorities: &[Option<u16>], weights: &[u16], loads: Loads) -> Self {
        let members = (1..).zip(priorities).zip(weights).map(|((port, priority), weight)| {
            let found =
                Found { address: address(port), priority: priority.unwrap_or(0), weight: *weight };
            Member { state: state(priority.is_none()), ..Member::up(found) }
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(Member::rank);
        let endpoints = Arc::new(Endpoints::new(members, &loads).with_owners(None));
        Self { loads, endpoints }
    }

    fn choose(&self, affinity: Affinity, random: u64) -> Candidates {
        self.endpoints.choose(Balance::LeastTunnels, affinity, || 0, &|| random)
    }

    /// The one that is tried first.
    fn first(&self, affinity: Affinity) -> u16 {
        tried(&self.choose(affinity, 0))[0]
    }

    fn open(&self, port: u16) {
        self.loads.came(address(port), false);
    }
}

#[test]
fn key_goes_to_its_owner_and_then_in_its_order() {
    let all = Keyed::new(&[Some(0); 6]);
    for key in 0..200 {
        for affinity in [Affinity::Key(key), Affinity::Token(key)] {
            let mut candidates = all.choose(affinity, 7);
            let first = tried(&candidates)[0];
            candidates.fall_back();
            let order = tried(&candidates);
            assert_eq!(order[0], first);
            // Each is who owns it once those before it have failed.
            let mut failed = vec![Some(0); 6];
            for port in order {
                assert_eq!(Keyed::new(&failed).first(affinity), port);
                failed[usize::from(port) - 1] = None;
                if failed.iter().all(Option::is_none) {
                    break;
                }
            }
        }
    }
}

#[test]
fn no_key_is_a_matter_of_balance() {
    let all = Keyed::new(&[Some(0); 4]);
    for _ in 0..3 {
        (1..=3).for_each(|port| all.open(port));
    }
    for random in 0..100 {
        let random = sticky::mix(random);
        let chosen = all.choose(Affinity::None, random);
        let plain = Arc::new(Endpoints::new(
            all.endpoints.all().iter().map(|one| one.member).collect(),
            &all.loads,
        ));
        let expected = plain.choose(Balance::LeastTunnels, Affinity::None, || 0, &|| random);
        assert_eq!(tried(&chosen), tried(&expected));
        assert_eq!(chosen.token(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// One key that everybody has, keys that were chosen for one endpoint, and any keys: nobody has more than the bound.
    #[test]
    fn bound_holds(weights in prop::collection::vec(1_u16..5, 2..30), seed: u64, way in 0..3) {
        let all = Keyed::of(&vec![Some(0); weights.len()], &weights, Loads::default());
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut keys = (0..).map(|number| sticky::mix(seed.wrapping_add(number)));
        for tunnels in 1..3_000_u64 {
            let key = match way {
                0 => seed,
                1 => keys.find(|key| {
                    let sticky = all.endpoints.sticky.as_ref().unwrap();
                    sticky.owners.of(sticky::bucket(*key, 0)) == 0
                }).unwrap(),
                _ => keys.next().unwrap(),
            };
            let random = sticky::mix(tunnels);
            let port = all.choose(Affinity::Key(key), random).get(0).unwrap().member.found.address.port();
            all.open(port);
            let weight = u64::from(weights[usize::from(port) - 1]);
            let load = all.endpoints.all().iter().find(|one| one.member.found.address.port() == port);
            let load = load.unwrap().load.all();
            // The sum is a few choices old, and who finds many full goes to the emptier of two.
            let most = (tunnels + 30) * weight * 4 / (total * 3) + 17;
            prop_assert!(load <= most, "{load} of {tunnels} at weight {weight} of {total}: {most}");
        }
    }

    #[test]
    fn key_stays_while_its_owner_is_not_full(key: u64, others in prop::collection::vec(any::<u64>(), 300)) {
        let all = Keyed::new(&[Some(0); 5]);
        let port = all.first(Affinity::Key(key));
        for other in others {
            all.open(tried(&all.choose(Affinity::Key(other), other))[0]);
            let sticky = all.endpoints.sticky.as_ref().unwrap();
            let place = usize::from(port) - 1;
            let is_full = all.endpoints.is_full(sticky, place);
            prop_assert_eq!(all.first(Affinity::Key(key)) == port, !is_full);
            prop_assert_eq!(all.first(Affinity::Token(key)), port, "who has a cookie stays in any case");
        }
    }

    #[test]
    fn token_brings_its_client_back(
        count in 1_usize..60, seed: u64, loads in prop::collection::vec(0_u16..9, 60),
    ) {
        let all = Keyed::new(&vec![Some(0); count]);
        for (port, load) in (1..=count).zip(loads) {
            (0..load).for_each(|_| all.open(u16::try_from(port).unwrap()));
        }
        for number in 0..20 {
            let candidates = all.choose(Affinity::NewToken, sticky::mix(seed.wrapping_add(number)));
            let port = tried(&candidates)[0];
            let token = candidates.token().unwrap();
            all.open(port);
            prop_assert_eq!(all.first(Affinity::Token(token)), port);
            // Also where it took no connection, and somebody else did.
            if count > 1 {
                let mut candidates = candidates;
                candidates.fall_back();
                let next = tried(&candidates)[1];
                let mut failed = vec![Some(0); count];
                failed[usize::from(port) - 1] = None;
                prop_assert_eq!(Keyed::new(&failed).first(Affinity::Token(token)), next);
            }
        }
    }
}

#[test]
fn new_clients_go_where_balance_says() {
    let all = Keyed::new(&[Some(0); 4]);
    for number in 0..4_000 {
        let candidates = all.choose(Affinity::NewToken, sticky::mix(number));
        all.open(tried(&candidates)[0]);
    }
    let loads: Vec<_> = all.endpoints.all().iter().map(|one| one.load.all()).collect();
    assert!(loads.iter().all(|load| (995..=1_005).contains(load)), "{loads:?}");
    // Of many the one that was chosen may have none of the tokens, and its place is taken by the emptiest that has.
    let all = Keyed::new(&vec![Some(0); 200]);
    for number in 0..20_000 {
        let candidates = all.choose(Affinity::NewToken, sticky::mix(number));
        all.open(tried(&candidates)[0]);
    }
    let fullest = all.endpoints.all().iter().map(|one| one.load.all()).max();
    assert!(fullest < Some(110), "{fullest:?}");
}

#[test]
fn failed_endpoint_is_tried_again_by_who_belongs_there() {
    let now = Keyed::new(&[Some(0), Some(0), None, Some(7)]);
    let mended = Keyed::new(&[Some(0), Some(0), Some(0), Some(7)]);
    let mut belong = 0;
    for key in 0..300 {
        for affinity in [Affinity::Key(key), Affinity::Token(key)] {
            let retry = now.endpoints.beginning_with(address(3), affinity, &|| 0);
            assert_eq!(retry.is_some(), mended.first(affinity) == 3, "{key}");
            let Some(mut retry) = retry else { continue };
            belong += 1;
            retry.fall_back();
            let order = tried(&retry);
            assert_eq!(order[..2], [3, now.first(affinity)], "where it fails again, where it was");
            assert_eq!(order.len(), 4);
        }
    }
    assert!((150..250).contains(&belong), "a third of 600: {belong}");
    for random in 0..50 {
        let retry =
            now.endpoints.beginning_with(address(3), Affinity::NewToken, &|| random).unwrap();
        assert_eq!(mended.first(Affinity::Token(retry.token().unwrap())), 3);
    }
    assert!(now.endpoints.beginning_with(address(3), Affinity::None, &|| 0).is_some());
}

#[test]
fn priorities_come_before_keys() {
    let all = Keyed::new(&[Some(5), Some(5), None]);
    for key in 0..50 {
        let retry = all.endpoints.beginning_with(address(3), Affinity::Key(key), &|| 0);
        assert!(retry.is_some(), "it would be the only one of the lower number");
    }
    let members = vec![(1, 0, false), (2, 0, false), (3, 9, true)];
    let members = members.into_iter().map(|(port, priority, has_failed)| {
        let found = Found { address: address(port), priority, weight: 1 };
        Member { state: state(has_failed), ..Member::up(found) }
    });
    let endpoints =
        Arc::new(Endpoints::new(members.collect(), &Loads::default()).with_owners(None));
    for affinity in [Affinity::Key(1), Affinity::Token(1), Affinity::NewToken] {
        assert!(endpoints.beginning_with(address(3), affinity, &|| 0).is_none());
    }
}

#[test]
fn one_that_is_warming_is_chosen_for_a_part_of_its_weight() {
    for (weight, step) in [(1_u16, 1_u16), (3, 5), (60_000, 5), (0, 2)] {
        let found = |port| Found { address: address(port), priority: 0, weight };
        let warming = Member { state: EndpointState::Warming, step, ..Member::up(found(2)) };
        let members = vec![Member::up(found(1)), warming];
        let endpoints = Arc::new(Endpoints::new(members, &Loads::default()));
        let all = 100_000;
        let is_second = |turn: &u64| {
            let random = || turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let chosen = endpoints.choose(Balance::Random, Affinity::None, || *turn, &random);
            tried(&chosen) == [2, 1]
        };
        let chosen = u16::try_from((0..all).filter(is_second).count() / 100).unwrap();
        // Of a thousand.
        let expected = 1_000 * step / (10 + step);
        assert!(chosen.abs_diff(expected) <= 5, "{chosen} for {expected} of {weight}");
    }
}
