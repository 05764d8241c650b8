//! Which addresses get new tunnels, how it stands with each, and in which order they are tried. Pure: answers, signs of
//! health and the time come in as arguments.
//!
//! ```text
//!              in an answer
//! (not known) ─────────────▶ a member, with its health (see `health.rs`)
//!                            │ ▲
//!        missing from        │ │ in an answer again
//!        the next one        ▼ │
//!                           held, for ENDPOINT_HOLD ──took no connection, or its checks fail──▶ gone: no new tunnels,
//!                            └──────────────────────── the time is over ─────────────────────▶      its own stay
//! ```
//!
//! An address that failed would else cost each connection its share of `CONNECT_TIMEOUT`. One that is missing from an
//! answer may be there all the same: some name servers answer with a few of many.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::EndpointState;
use crate::upstream::health::{Health, HealthRules, STEPS};

/// How long the next connection that could begin with it is not looked for: each look takes a while, and most connections
/// may have a key that belongs elsewhere.
const PASSED_OVER: Duration = Duration::from_millis(10);

/// The health of so many addresses is remembered that no answer has: as many as a name has addresses at most.
const MOST_UNKNOWN: usize = MOST_FOUND;

/// So many addresses of one name are used: some ten times what fits into an answer by UDP.
pub(crate) const MOST_FOUND: usize = 1_024;

/// An address that an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: SocketAddr,
    /// The lower, the earlier it is tried (RFC 2782).
    pub(crate) priority: u16,
    pub(crate) weight: u16,
}

impl Found {
    /// One that is as good as any other.
    pub(crate) const fn plain(address: SocketAddr) -> Self {
        Self { address, priority: 0, weight: 1 }
    }
}

/// An address that gets new tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) found: Found,
    /// By its health alone.
    pub(crate) state: EndpointState,
    /// How much of its weight counts, in tenths.
    pub(crate) step: u16,
    /// The last answer does not have it.
    pub(crate) is_held: bool,
}

impl Member {
    /// One that nothing is wrong with.
    pub(crate) const fn up(found: Found) -> Self {
        Self { found, state: EndpointState::Up, step: STEPS, is_held: false }
    }

    /// The lower, the earlier it is tried: by its health, and then by its priority.
    pub(crate) const fn rank(&self) -> (u8, u16) {
        (self.state.rank(), self.found.priority)
    }
}

/// An endpoint came to another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) address: SocketAddr,
    pub(crate) to: EndpointState,
    /// In words.
    pub(crate) why: String,
}

/// The addresses of all names.
#[derive(Debug)]
pub(super) struct Members {
    /// `ENDPOINT_HOLD`.
    hold: Duration,
    rules: HealthRules,
    by_name: Vec<Answered>,
    /// Of those of which something is known.
    health: BTreeMap<SocketAddr, Health>,
    /// When something changes by time alone, or nothing does before.
    next_change: Option<Instant>,
    changes: Vec<Change>,
}

/// What was answered about one name.
#[derive(Clone, Debug, Default)]
struct Answered {
    /// Not for the first time.
    is_known: bool,
    all: Vec<Listed>,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    found: Found,
    /// Since when answers do not have it.
    missing_since: Option<Instant>,
}

impl Members {
    /// Of so many names, of which nothing is known.
    pub(super) fn new(names: usize, hold: Duration, rules: HealthRules) -> Self {
        Self {
            hold,
            rules,
            by_name: vec![Answered::default(); names],
            health: BTreeMap::new(),
            next_change: None,
            changes: Vec::new(),
        }
    }

    /// The name at this place was answered with these.
    pub(super) fn answered(&mut self, name: usize, found: &[Found], now: Instant) {
        // What is too old says nothing of an address that comes again now.
        self.forget(now);
        let before = self.known();
        let Some(Answered { is_known, all }) = self.by_name.get_mut(name) else { return };
        let was_known = std::mem::replace(is_known, true);
        let mut seen = BTreeSet::new();
        let fresh = found.iter().filter(|found| seen.insert(found.address));
        let mut listed: Vec<_> =
            fresh.map(|found| Listed { found: *found, missing_since: None }).collect();
        for old in all.iter().filter(|old| !seen.contains(&old.found.address)) {
            let state = self.health.get(&old.found.address).map(|one| one.state(now, &self.rules));
            let takes_none = state.is_some_and(EndpointState::takes_no_connection);
            let since = old.missing_since.unwrap_or(now);
            if !takes_none && now.saturating_duration_since(since) < self.hold {
                listed.push(Listed { missing_since: Some(since), ..*old });
            }
        }
        *all = listed;
        // Our own start is not that of the application.
        if was_known && self.rules.slow_start > Duration::ZERO {
            for address in seen.difference(&before) {
                let health = self.health.entry(*address).or_default();
                health.came(now, &self.rules);
            }
        }
        self.forget(now);
        self.set_next_change(now);
    }

    /// `address` did not take a connection. Whether that changes what there is.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) -> bool {
        let has_changed = self.sign(address, now, |health, now, rules| {
            health.refused(now, rules);
            (String::from("it took no connection"), false)
        });
        self.make_room();
        has_changed
    }

    /// `address` took a connection. Whether that changes what there is.
    pub(super) fn reached(&mut self, address: SocketAddr, now: Instant) -> bool {
        self.health.contains_key(&address)
            && self.sign(address, now, |health, now, rules| {
                health.connected(now, rules);
                (String::from("it took a connection"), false)
            })
    }

    /// At `address` so many handshakes or requests in a row failed that it is to be ejected. Not the last one is, and with
    /// those that are out already no more than half of all. Whether that changes what there is.
    pub(super) fn fell(&mut self, address: SocketAddr, in_a_row: u32, now: Instant) -> bool {
        let known = self.known();
        let is_out = |one: &&SocketAddr| self.state_of(**one, now).is_out();
        let others = known.iter().filter(|one| **one != address).filter(is_out).count();
        let may_be_ejected = known.contains(&address) && 2 * (others + 1) <= known.len();
        may_be_ejected
            && self.sign(address, now, |health, now, _| match health.fell(now) {
                Some(time) => {
                    let seconds = time.as_secs();
                    (
                        format!("{in_a_row} failures in a row; it is tried last for {seconds} s"),
                        true,
                    )
                }
                None => (String::new(), false),
            })
    }

    /// A request or handshake was answered well there. Whether that changes what there is.
    pub(super) fn worked(&mut self, address: SocketAddr, now: Instant) -> bool {
        self.health.contains_key(&address)
            && self.sign(address, now, |health, now, rules| {
                health.worked(now, rules);
                (String::from("it answered"), false)
            })
    }

    /// A check of `address` passed, or failed with this fault. Whether that changes what there is.
    pub(super) fn checked(
        &mut self,
        address: SocketAddr,
        outcome: Result<(), String>,
        now: Instant,
    ) -> bool {
        self.listed().any(|one| one.found.address == address)
            && self.sign(address, now, |health, now, rules| {
                health.checked(outcome.is_ok(), now, rules);
                (outcome.err().unwrap_or_else(|| String::from("its checks pass")), false)
            })
    }

    /// A sign of the health of `address`; says why it would change, and whether that is told in any case. Whether it
    /// changes what there is.
    fn sign(
        &mut self,
        address: SocketAddr,
        now: Instant,
        sign: impl FnOnce(&mut Health, Instant, &HealthRules) -> (String, bool),
    ) -> bool {
        let health = self.health.entry(address).or_default();
        let before = health.state(now, &self.rules);
        let (why, is_told) = sign(health, now, &self.rules);
        let to = health.state(now, &self.rules);
        if health.is_plain() {
            self.health.remove(&address);
        }
        if is_told || before != to {
            self.changes.push(Change { address, to, why });
        }
        let mut has_changed = before != to;
        if to.takes_no_connection() {
            for Answered { all, .. } in &mut self.by_name {
                let count = all.len();
                all.retain(|one| one.found.address != address || one.missing_since.is_none());
                has_changed |= all.len() < count;
            }
        }
        self.set_next_change(now);
        has_changed
    }

    /// What has come to another state since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn state_of(&self, address: SocketAddr, now: Instant) -> EndpointState {
        self.health.get(&address).map_or(EndpointState::Up, |one| one.state(now, &self.rules))
    }

    /// Whether any address took no connection lately.
    pub(super) fn has_failures(&self) -> bool {
        self.health.values().any(Health::has_failed)
    }

    /// Whether checks of `address` are to come soon.
    pub(super) fn is_changing(&self, address: SocketAddr) -> bool {
        self.health.get(&address).is_none_or(Health::is_changing)
    }

    /// Whether nothing can have changed since the last call but by answers and signs.
    pub(super) fn is_still(&self, now: Instant) -> bool {
        self.next_change.is_none_or(|at| now < at)
    }

    /// Lets those go that were held long enough, lets shares grow, and forgets the health of what is not there. Whether
    /// anything has changed.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut has_changed = false;
        let hold = self.hold;
        for Answered { all, .. } in &mut self.by_name {
            let before = all.len();
            all.retain(|one| {
                one.missing_since.is_none_or(|since| now.saturating_duration_since(since) < hold)
            });
            has_changed |= all.len() < before;
        }
        for health in self.health.values_mut() {
            has_changed |= health.pass(now, &self.rules);
        }
        self.forget(now);
        self.set_next_change(now);
        has_changed
    }

    /// Forgets what need not be known any more.
    fn forget(&mut self, now: Instant) {
        let known = self.known();
        self.health.retain(|address, health| {
            known.contains(address) && !health.is_plain()
                || health.forgotten_at().is_some_and(|at| now < at)
        });
    }

    /// Of those that no answer has, the one that is to be forgotten next is, where there are too many.
    fn make_room(&mut self) {
        if self.health.len() <= MOST_UNKNOWN {
            return;
        }
        let known = self.known();
        let unknown = || self.health.iter().filter(|(address, _)| !known.contains(address));
        if unknown().count() > MOST_UNKNOWN
            && let Some((address, _)) = unknown().min_by_key(|(_, health)| health.forgotten_at())
        {
            let address = *address;
            self.health.remove(&address);
        }
    }

    /// What `begin` makes of the address that the connection at hand is to begin with, to learn whether it is back. Where
    /// that makes nothing of it, another connection is to begin there.
    pub(super) fn take_retry<T>(
        &mut self,
        now: Instant,
        begin: impl Fn(SocketAddr) -> Option<T>,
    ) -> Option<T> {
        let mut taken = None;
        for (address, health) in self.health.iter_mut().filter(|(_, health)| health.is_due(now)) {
            taken = begin(*address);
            if taken.is_some() {
                health.begun(now);
                break;
            }
            health.pass_over(now + PASSED_OVER);
        }
        self.set_next_change(now);
        taken
    }

    /// Each address once, the best first: those that are out behind all others, then by priority, then as the answers
    /// had them.
    pub(super) fn list(&self, now: Instant) -> Vec<Member> {
        let mut seen = BTreeSet::new();
        // Held by one name and answered for another, it is there.
        let mut all: Vec<_> = self.listed().collect();
        all.sort_by_key(|one| one.missing_since.is_some());
        let mut members: Vec<_> = all
            .into_iter()
            .filter(|one| seen.insert(one.found.address))
            .map(|one| {
                let health = self.health.get(&one.found.address);
                Member {
                    state: self.state_of(one.found.address, now),
                    step: health.map_or(STEPS, |health| health.step(now, &self.rules)),
                    is_held: one.missing_since.is_some(),
                    ..Member::up(one.found)
                }
            })
            .collect();
        // Otherwise as they are: the sort is stable.
        members.sort_by_key(Member::rank);
        members
    }

    /// The name that each address comes from, by its place.
    pub(super) fn names(&self) -> BTreeMap<SocketAddr, usize> {
        let all = self.by_name.iter().enumerate().rev();
        all.flat_map(|(name, answered)| {
            answered.all.iter().map(move |one| (one.found.address, name))
        })
        .collect()
    }

    fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.by_name.iter().flat_map(|answered| &answered.all)
    }

    fn known(&self) -> BTreeSet<SocketAddr> {
        self.listed().map(|one| one.found.address).collect()
    }

    fn set_next_change(&mut self, now: Instant) {
        let hold = self.hold;
        let missing = self.listed().filter_map(|one| one.missing_since);
        let next_gone = missing.map(|since| Reverse(since + hold)).max();
        let of_health = |health: &Health| health.next_change(now, &self.rules).map(Reverse);
        let next_of_health = self.health.values().filter_map(of_health).max();
        self.next_change = next_gone.max(next_of_health).map(|Reverse(at)| at);
    }
}
