//! The endpoints that there are at one moment, and the order in which one connection tries them. Pure.
//!
//! ```text
//! chosen from: not out, lowest priority number           behind them, in the order of the list
//! ┌──────────────────────────────────────────────┐ ┌────────────────────────────────────────────┐
//! │  a    b    c ◀─ chosen    d    e              │ │ higher priority numbers, those that are out│
//! └──────────────────────────────────────────────┘ └────────────────────────────────────────────┘
//!   tried: c, d, e, a, b, and then the others
//! ```
//!
//! Where the request has a key (`STICKY`), the others of the best come in the order of that key: the next one is who
//! owns it once the first counts as failed.

use std::net::SocketAddr;
use std::sync::Arc;

use super::addresses::{EndpointState, Member};
use super::balance::Shares;
use super::health::STEPS;
use super::load::{Load, Loads};
use super::sticky::{self, Affinity, Bound, Owners};
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
    /// Of the same, where keys count.
    sticky: Option<Sticky>,
    are_all_down: bool,
}

/// What there is where keys count.
#[derive(Debug)]
struct Sticky {
    owners: Owners,
    bound: Bound,
}

/// So many endpoints are full before a key that everybody has goes by load.
const ATTEMPTS: u64 = 8;

/// So many tokens are drawn for the endpoint that was chosen.
const DRAWS: u64 = 32;

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
    /// That of its key.
    bucket: Option<u16>,
    /// What the client is to be given: with it, it comes back to where it is sent now.
    token: Option<u64>,
    /// The places of the best in the order of its key, once the chosen one has taken no connection.
    order: Option<Arc<[usize]>>,
}

impl Endpoints {
    /// Of these, of which the best is the first.
    pub(crate) fn new(members: Vec<Member>, loads: &Loads) -> Self {
        let is_best =
            |member: &&Member| members.first().is_some_and(|best| best.rank() == member.rank());
        let best: Vec<_> = members.iter().take_while(is_best).collect();
        let weights = weights(&best);
        let is_down = |member: &Member| member.state == EndpointState::Down;
        let are_all_down = !members.is_empty() && members.iter().all(is_down);
        let all = members
            .into_iter()
            .map(|member| Endpoint { member, load: loads.of(member.found.address) })
            .collect();
        Self { all, shares: Shares::new(&weights), best: weights.len(), sticky: None, are_all_down }
    }

    /// The same, where keys count. What `previous` knows of the same endpoints is kept.
    pub(crate) fn with_owners(mut self, previous: Option<&Self>) -> Self {
        let best = || self.all.iter().take(self.best);
        let found = best().map(|one| (one.member.found.address, one.member.found.weight));
        let previous = previous.and_then(|previous| previous.sticky.as_ref());
        let owners = Owners::new(found, previous.map(|sticky| &sticky.owners));
        let bound = Bound::new(best().map(|one| (one.load.all(), one.member.found.weight)));
        self.sticky = Some(Sticky { owners, bound });
        self
    }

    /// Whether the checks of all of them fail.
    pub(crate) const fn are_all_down(&self) -> bool {
        self.are_all_down
    }

    /// All of them, the best first.
    pub(crate) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Chooses one. Nothing is asked of `random` where there is nothing to choose.
    pub(crate) fn choose(
        self: &Arc<Self>,
        balance: Balance,
        affinity: Affinity,
        turn: impl FnOnce() -> u64,
        random: &dyn Fn() -> u64,
    ) -> Candidates {
        let Some(sticky) = &self.sticky else {
            return self.starting_at(self.balanced(balance, turn, random));
        };
        let owned = |bucket| Candidates {
            bucket: Some(bucket),
            ..self.starting_at(sticky.owners.of(bucket))
        };
        match affinity {
            Affinity::None => self.starting_at(self.balanced(balance, turn, random)),
            Affinity::Token(token) => owned(sticky::bucket(token, 0)),
            Affinity::Key(key) => {
                sticky.bound.look(|place| self.load(place));
                let mut buckets = (0..ATTEMPTS).map(|attempt| sticky::bucket(key, attempt));
                match buckets.find(|bucket| !self.is_full(sticky, sticky.owners.of(*bucket))) {
                    Some(bucket) => owned(bucket),
                    // The emptier of two, whatever holds for who has no key: neither turn nor chance knows of the bound.
                    None => self.starting_at(self.balanced(Balance::LeastTunnels, turn, random)),
                }
            }
            Affinity::NewToken => {
                let chosen = self.balanced(balance, turn, random);
                self.with_token(sticky, chosen, random())
            }
        }
    }

    /// By load, turn or chance, whoever asks.
    fn balanced(
        &self,
        balance: Balance,
        turn: impl FnOnce() -> u64,
        random: &dyn Fn() -> u64,
    ) -> usize {
        match self.best {
            0 | 1 => 0,
            _ => self.shares.choose(balance, turn(), random(), |place| self.load(place)),
        }
    }

    fn load(&self, place: usize) -> u64 {
        self.all.get(place).map_or(0, |endpoint| endpoint.load.all())
    }

    fn weight(&self, place: usize) -> u16 {
        self.all.get(place).map_or(1, |endpoint| endpoint.member.found.weight.max(1))
    }

    fn is_full(&self, sticky: &Sticky, place: usize) -> bool {
        sticky.bound.is_full(self.load(place), self.weight(place))
    }

    /// Draws a token that brings its client back to the endpoint that was chosen. Of many endpoints that may be too hard:
    /// then it is the one with the least for its weight of those whose tokens were drawn.
    fn with_token(self: &Arc<Self>, sticky: &Sticky, chosen: usize, random: u64) -> Candidates {
        let mut least: Option<(usize, u64)> = None;
        for token in tokens(random) {
            let owner = sticky.owners.of(sticky::bucket(token, 0));
            if owner == chosen {
                least = Some((owner, token));
                break;
            }
            let is_less = least.is_none_or(|(other, _)| {
                let of = |one: usize, other: usize| self.load(one) * u64::from(self.weight(other));
                of(owner, other) < of(other, owner)
            });
            if is_less {
                least = Some((owner, token));
            }
        }
        let Some((owner, token)) = least else { return self.starting_at(chosen) };
        let bucket = Some(sticky::bucket(token, 0));
        Candidates { bucket, token: Some(token), ..self.starting_at(owner) }
    }

    /// Begins with this one, and with no key.
    fn starting_at(self: &Arc<Self>, chosen: usize) -> Candidates {
        let endpoints = Arc::clone(self);
        Candidates { endpoints, chosen, bucket: None, token: None, order: None }
    }

    /// Begins with one that has failed, to learn whether it is back, if it is there, and if whoever comes would belong there
    /// then.
    pub(crate) fn beginning_with(
        self: &Arc<Self>,
        address: SocketAddr,
        affinity: Affinity,
        random: &dyn Fn() -> u64,
    ) -> Option<Candidates> {
        let is_it = |endpoint: &Endpoint| endpoint.member.found.address == address;
        let chosen = self.all.iter().position(is_it)?;
        let mut candidates = self.starting_at(chosen);
        let Some(sticky) = &self.sticky else { return Some(candidates) };
        if affinity == Affinity::None {
            return Some(candidates);
        }
        let priority = |place: usize| self.all.get(place).map(|one| one.member.found.priority);
        // Back, one of a lower number has every key, and one of a higher number none.
        let has_all = priority(chosen) < priority(0);
        let has_none = priority(chosen) > priority(0);
        let is_its = |token: &u64| {
            let bucket = sticky::bucket(*token, 0);
            has_all || sticky.owners.would_lose(bucket, address, self.weight(chosen))
        };
        let token = match affinity {
            _ if has_none => None,
            Affinity::Key(key) | Affinity::Token(key) => Some(key).filter(is_its),
            Affinity::NewToken => {
                let token = tokens(random()).find(is_its);
                candidates.token = token;
                token
            }
            Affinity::None => None,
        };
        candidates.bucket = Some(sticky::bucket(token?, 0));
        Some(candidates)
    }
}

/// Tokens of which one is given away at most.
fn tokens(random: u64) -> impl Iterator<Item = u64> {
    (0..DRAWS).map(move |draw| sticky::mix(random.wrapping_add(draw)))
}

/// What counts of the weights: of one that is warming a part.
fn weights(members: &[&Member]) -> Vec<u16> {
    if members.iter().all(|member| member.step == STEPS) {
        return members.iter().map(|member| member.found.weight).collect();
    }
    let most = members.iter().map(|member| member.found.weight).max().unwrap_or_default();
    // Small weights have no parts.
    let scale = if most <= u16::MAX / STEPS { 1 } else { STEPS };
    let part = |member: &&Member| {
        let whole = u32::from(member.found.weight.max(1)) * u32::from(member.step);
        u16::try_from(whole / u32::from(scale)).unwrap_or(u16::MAX)
    };
    members.iter().map(part).collect()
}

impl Candidates {
    /// These, in this order.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn in_order(addresses: &[SocketAddr]) -> Self {
        use super::addresses::Found;

        let member = |address: &SocketAddr| Member::up(Found::plain(*address));
        let members = addresses.iter().map(member).collect();
        Arc::new(Endpoints::new(members, &Loads::default())).starting_at(0)
    }

    /// The same; whoever comes is given this token.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn with_token(self, token: u64) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The same, beginning with the one of this vacancy, if it is among the best.
    pub(crate) fn beginning_at(self, vacancy: Vacancy) -> Self {
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

    /// What the client is to be given, if it is to be given something.
    pub(crate) const fn token(&self) -> Option<u64> {
        self.token
    }

    /// The one that it began with took no connection: where it has a key, the others come in the order of that.
    pub(crate) fn fall_back(&mut self) {
        if let (Some(bucket), None, Some(sticky)) =
            (self.bucket, &self.order, &self.endpoints.sticky)
        {
            let others = sticky.owners.order(bucket).into_iter();
            self.order = Some(others.filter(|place| *place != self.chosen).collect());
        }
    }

    /// The one that is tried as the `number`th, from 0.
    pub(crate) fn get(&self, number: usize) -> Option<&Endpoint> {
        let Endpoints { all, best, .. } = &*self.endpoints;
        let in_order = number.checked_sub(1).and_then(|number| self.order.as_ref()?.get(number));
        let place = match (number, in_order) {
            (0, _) => self.chosen,
            (_, Some(place)) => *place,
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
mod tests;
