//! The endpoints that there are at one moment, and the order in which one connection tries them. Pure.
//!
//! ```text
//! chosen from: not failed, lowest priority number        behind them, in the order of the list
//! ┌──────────────────────────────────────────────┐ ┌────────────────────────────────────────────┐
//! │  a    b    c ◀─ chosen    d    e              │ │ higher priority numbers, those that failed │
//! └──────────────────────────────────────────────┘ └────────────────────────────────────────────┘
//!   tried: c, d, e, a, b, and then the others
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use super::addresses::Member;
use super::balance::Shares;
use super::load::{Load, Loads};
use super::vacancies::Vacancy;
use crate::config::Balance;

/// The endpoints that there are.
#[derive(Debug)]
pub(crate) struct Endpoints {
    /// The best first.
    all: Box<[Endpoint]>,
    /// Of the first ones, from which one is chosen.
    shares: Shares,
    /// How many those are.
    best: usize,
}

/// An endpoint that gets new tunnels.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) member: Member,
    pub(crate) load: Arc<Load>,
}

/// The endpoints in the order in which one connection tries them.
#[derive(Clone, Debug)]
pub(crate) struct Candidates {
    endpoints: Arc<Endpoints>,
    /// The place of the one that it begins with.
    chosen: usize,
}

impl Endpoints {
    /// Of these, of which the best is the first.
    pub(crate) fn new(members: Vec<Member>, loads: &Loads) -> Self {
        let rank = |member: &Member| (member.has_failed, member.found.priority);
        let is_best =
            |member: &&Member| members.first().is_some_and(|best| rank(best) == rank(member));
        let weights: Vec<_> =
            members.iter().take_while(is_best).map(|member| member.found.weight).collect();
        let all = members
            .into_iter()
            .map(|member| Endpoint { member, load: loads.of(member.found.address) })
            .collect();
        Self { all, shares: Shares::new(&weights), best: weights.len() }
    }

    /// All of them, the best first.
    pub(crate) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Chooses one. Nothing is asked of `random` where there is nothing to choose.
    pub(crate) fn choose(
        self: &Arc<Self>,
        balance: Balance,
        turn: impl FnOnce() -> u64,
        random: impl FnOnce() -> u64,
    ) -> Candidates {
        let load = |place: usize| self.all.get(place).map_or(0, |endpoint| endpoint.load.all());
        let chosen = match self.best {
            0 | 1 => 0,
            _ => self.shares.choose(balance, turn(), random(), load),
        };
        Candidates { endpoints: Arc::clone(self), chosen }
    }

    /// Begins with this one, if it is there.
    pub(crate) fn beginning_with(self: &Arc<Self>, address: SocketAddr) -> Option<Candidates> {
        let is_it = |endpoint: &Endpoint| endpoint.member.found.address == address;
        let chosen = self.all.iter().position(is_it)?;
        Some(Candidates { endpoints: Arc::clone(self), chosen })
    }
}

impl Candidates {
    /// These, in this order.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn in_order(addresses: &[SocketAddr]) -> Self {
        use super::addresses::Found;

        let member = |address: &SocketAddr| Member {
            found: Found::plain(*address),
            has_failed: false,
            is_held: false,
        };
        let members = addresses.iter().map(member).collect();
        Self { endpoints: Arc::new(Endpoints::new(members, &Loads::default())), chosen: 0 }
    }

    /// The same, beginning with the one of this vacancy, if it is among the best.
    pub(crate) fn beginning_with(self, vacancy: Vacancy) -> Self {
        let Vacancy { address, place } = vacancy;
        let best = self.endpoints.all.get(..self.endpoints.best).unwrap_or_default();
        let is_it = |endpoint: &Endpoint| endpoint.member.found.address == address;
        let chosen = if best.get(place).is_some_and(is_it) {
            Some(place)
        } else {
            best.iter().position(is_it)
        };
        Self { chosen: chosen.unwrap_or(self.chosen), ..self }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.all.len()
    }

    /// The one that is tried as the `number`th, from 0.
    pub(crate) fn get(&self, number: usize) -> Option<&Endpoint> {
        let Endpoints { all, best, .. } = &*self.endpoints;
        let place = match number {
            0 => self.chosen,
            // The others of the best, all the way round.
            _ if self.chosen < *best && number < *best => (self.chosen + number) % best,
            _ if self.chosen < *best => number,
            // One that is not among the best, and then all others in their order.
            _ if number <= self.chosen => number - 1,
            _ => number,
        };
        all.get(place)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::upstream::addresses::Found;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// One for each priority, numbered from 1.
    fn endpoints(priorities: &[u16]) -> Arc<Endpoints> {
        let members = (1..).zip(priorities).map(|(port, priority)| Member {
            found: Found { address: address(port), priority: *priority, weight: 1 },
            has_failed: false,
            is_held: false,
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
        let turn = |turn| move || turn;
        let chosen = endpoints.choose(Balance::RoundRobin, turn(1), || 0);
        assert_eq!(tried(&chosen), [2, 3, 1, 4, 5]);
        assert_eq!(chosen.len(), 5);
        assert_eq!(tried(&endpoints.beginning_with(address(4)).unwrap()), [4, 1, 2, 3, 5]);
        assert!(endpoints.beginning_with(address(6)).is_none());
    }

    #[test]
    fn vacancy_comes_first_where_it_is_still_one_of_the_best() {
        let endpoints = endpoints(&[0, 0, 0, 5]);
        let of = |port, place| {
            let chosen = endpoints.choose(Balance::RoundRobin, || 0, || 0);
            tried(&chosen.beginning_with(Vacancy { address: address(port), place }))
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
        let chosen =
            endpoints(&[0, 1]).choose(Balance::Random, || unreachable!(), || unreachable!());
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
                .map(|balance| endpoints.choose(*balance, || turn, || random))
                .collect();
            all.extend(endpoints.beginning_with(address(first)));
            for candidates in all {
                let mut tried = tried(&candidates);
                tried.sort_unstable();
                prop_assert_eq!(tried, (1..).take(priorities.len()).collect::<Vec<u16>>());
            }
        }
    }
}
