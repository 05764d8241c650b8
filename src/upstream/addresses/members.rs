//! Which addresses get new tunnels, and in which order they are tried. Pure: answers and the time come in as arguments.
//!
//! ```text
//!              in an answer                     took no connection
//! (not known) ─────────────▶ up ─────────────────────────────────────▶ failed: tried last, and first by one
//!                            │ ▲                                          │       connection every 30 s
//!        missing from        │ │ in an answer again            took one   │
//!        the next one        ▼ │                                          ▼
//!                           held, for ENDPOINT_HOLD ──took no connection──▶ gone: no new tunnels,
//!                            └─────────────────── the time is over ────────▶      its own stay
//! ```
//!
//! An address that failed would else cost each connection its share of `CONNECT_TIMEOUT`. One that is missing from an
//! answer may be there all the same: some name servers answer with a few of many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long an address that failed is tried last by everybody.
pub(super) const AVOIDED: Duration = Duration::from_secs(30);

/// How long the next connection that could begin with it is not looked for: each look takes a while, and most connections
/// may have a key that belongs elsewhere.
const PASSED_OVER: Duration = Duration::from_millis(10);

/// So many failures are remembered: as many as a name has addresses at most.
const MOST_FAILED: usize = MOST_FOUND;

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
    /// It took no connection lately.
    pub(crate) has_failed: bool,
    /// The last answer does not have it.
    pub(crate) is_held: bool,
}

/// The addresses of all names.
#[derive(Debug)]
pub(super) struct Members {
    /// `ENDPOINT_HOLD`.
    hold: Duration,
    by_name: Vec<Vec<Listed>>,
    /// When one connection shall begin with each of those that failed.
    failed: BTreeMap<SocketAddr, Instant>,
    /// When something changes by time alone, or nothing does before.
    next_change: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    found: Found,
    /// Since when answers do not have it.
    missing_since: Option<Instant>,
}

impl Members {
    /// Of so many names, of which nothing is known.
    pub(super) fn new(names: usize, hold: Duration) -> Self {
        let by_name = vec![Vec::new(); names];
        Self { hold, by_name, failed: BTreeMap::new(), next_change: None }
    }

    /// The name at this place was answered with these.
    pub(super) fn answered(&mut self, name: usize, found: &[Found], now: Instant) {
        let Some(listed) = self.by_name.get_mut(name) else { return };
        let mut seen = BTreeSet::new();
        let fresh = found.iter().filter(|found| seen.insert(found.address));
        let mut all: Vec<_> =
            fresh.map(|found| Listed { found: *found, missing_since: None }).collect();
        for old in listed.iter().filter(|old| !seen.contains(&old.found.address)) {
            let has_failed = self.failed.contains_key(&old.found.address);
            let since = old.missing_since.unwrap_or(now);
            if !has_failed && now.saturating_duration_since(since) < self.hold {
                all.push(Listed { missing_since: Some(since), ..*old });
            }
        }
        *listed = all;
        self.set_next_change();
    }

    /// `address` did not take a connection. Whether that changes what there is.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) -> bool {
        if self.failed.len() >= MOST_FAILED && !self.failed.contains_key(&address) {
            let oldest = self.failed.iter().min_by_key(|(_, retry_at)| **retry_at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.failed.remove(&oldest);
            }
        }
        let is_new = self.failed.insert(address, now + AVOIDED).is_none();
        let mut is_gone = false;
        for listed in &mut self.by_name {
            listed.retain(|one| {
                let goes = one.found.address == address && one.missing_since.is_some();
                is_gone |= goes;
                !goes
            });
        }
        self.set_next_change();
        is_new || is_gone
    }

    /// `address` took a connection. Whether that changes what there is.
    pub(super) fn reached(&mut self, address: SocketAddr) -> bool {
        let had_failed = self.failed.remove(&address).is_some();
        if had_failed {
            self.set_next_change();
        }
        had_failed
    }

    /// Whether any address failed lately.
    pub(super) fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Whether nothing can have changed since the last call but by answers and connections.
    pub(super) fn is_still(&self, now: Instant) -> bool {
        self.next_change.is_none_or(|at| now < at)
    }

    /// Lets those go that were held long enough, and forgets failures of what is not there. Whether any went.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut has_changed = false;
        let hold = self.hold;
        for listed in &mut self.by_name {
            let before = listed.len();
            listed.retain(|one| {
                one.missing_since.is_none_or(|since| now.saturating_duration_since(since) < hold)
            });
            has_changed |= listed.len() < before;
        }
        let known: BTreeSet<_> = self.listed().map(|one| one.found.address).collect();
        self.failed.retain(|address, retry_at| now < *retry_at || known.contains(address));
        self.set_next_change();
        has_changed
    }

    /// What `begin` makes of the address that the connection at hand is to begin with, to learn whether it is back. Where
    /// that makes nothing of it, another connection is to begin there.
    pub(super) fn take_retry<T>(
        &mut self,
        now: Instant,
        begin: impl Fn(SocketAddr) -> Option<T>,
    ) -> Option<T> {
        let mut taken = None;
        for (address, retry_at) in self.failed.iter_mut().filter(|(_, retry_at)| **retry_at <= now)
        {
            taken = begin(*address);
            *retry_at = now + if taken.is_some() { AVOIDED } else { PASSED_OVER };
            if taken.is_some() {
                break;
            }
        }
        self.set_next_change();
        taken
    }

    /// Each address once, the best first: those that failed behind all others, then by priority, then as the answers had
    /// them.
    pub(super) fn list(&self) -> Vec<Member> {
        let mut seen = BTreeSet::new();
        // Held by one name and answered for another, it is there.
        let mut all: Vec<_> = self.listed().collect();
        all.sort_by_key(|one| one.missing_since.is_some());
        let mut members: Vec<_> = all
            .into_iter()
            .filter(|one| seen.insert(one.found.address))
            .map(|one| Member {
                found: one.found,
                has_failed: self.failed.contains_key(&one.found.address),
                is_held: one.missing_since.is_some(),
            })
            .collect();
        // Otherwise as they are: the sort is stable.
        members.sort_by_key(|member| (member.has_failed, member.found.priority));
        members
    }

    fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.by_name.iter().flatten()
    }

    fn set_next_change(&mut self) {
        let hold = self.hold;
        let missing = self.listed().filter_map(|one| one.missing_since);
        let next_gone = missing.map(|since| Reverse(since + hold)).max();
        let next_retry = self.failed.values().map(|retry_at| Reverse(*retry_at)).max();
        self.next_change = next_gone.max(next_retry).map(|Reverse(at)| at);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    #![allow(clippy::unchecked_time_subtraction)] // Of constants.

    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_secs(60);
    const MOMENT: Duration = Duration::from_millis(1);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn found(ports: &[u16]) -> Vec<Found> {
        ports.iter().map(|port| Found::plain(address(*port))).collect()
    }

    fn ports(members: &Members) -> Vec<u16> {
        members.list().iter().map(|member| member.found.address.port()).collect()
    }

    fn members(hold: Duration, answer: &[u16], now: Instant) -> Members {
        let mut members = Members::new(1, hold);
        members.answered(0, &found(answer), now);
        members
    }

    #[test]
    fn address_that_is_missing_is_held_from_the_first_answer_without_it() {
        let start = Instant::now();
        let mut members = members(HOLD, &[1, 2], start);
        // Nobody asked for an hour.
        let now = start + Duration::from_secs(3_600);
        members.answered(0, &found(&[2, 3]), now);
        assert_eq!(ports(&members), [2, 3, 1]);
        assert_eq!(members.list().iter().filter(|member| member.is_held).count(), 1);
        members.answered(0, &found(&[2, 3]), now + HOLD - MOMENT);
        assert_eq!(ports(&members), [2, 3, 1]);
        assert!(members.is_still(now + HOLD - MOMENT));
        assert!(!members.expire(now + HOLD - MOMENT));
        assert!(!members.is_still(now + HOLD));
        assert!(members.expire(now + HOLD), "without a further answer, too");
        assert_eq!(ports(&members), [2, 3]);
        assert!(members.is_still(now + 100 * HOLD));
    }

    #[test]
    fn address_that_is_answered_again_is_not_held_any_more() {
        let now = Instant::now();
        let mut members = members(HOLD, &[1, 2], now);
        members.answered(0, &found(&[2]), now);
        members.answered(0, &found(&[1]), now + HOLD / 2);
        members.answered(0, &found(&[2]), now + HOLD);
        assert_eq!(ports(&members), [2, 1], "its time begins anew");
    }

    #[test]
    fn without_a_hold_the_last_answer_is_what_there_is() {
        let now = Instant::now();
        let mut members = members(Duration::ZERO, &[1, 2], now);
        members.answered(0, &found(&[3, 2]), now);
        assert_eq!(ports(&members), [3, 2]);
    }

    #[test]
    fn one_that_is_held_and_fails_goes_at_once() {
        let now = Instant::now();
        let mut members = members(HOLD, &[1, 2], now);
        members.answered(0, &found(&[2]), now);
        assert!(members.failed(address(1), now));
        assert_eq!(ports(&members), [2]);
        members.failed(address(2), now);
        members.answered(0, &found(&[3]), now);
        assert_eq!(ports(&members), [3], "also where it failed before it was missing");
    }

    /// Fault 5: a dead first address cost every connection 2.5 to 3 s.
    #[test]
    fn address_that_failed_is_tried_last_and_again_after_a_while() {
        let now = Instant::now();
        let mut members = members(HOLD, &[1, 2, 3], now);
        assert_eq!(ports(&members), [1, 2, 3], "the answer's order, where none has failed");
        assert!(members.failed(address(1), now));
        assert!(members.failed(address(2), now));
        assert!(!members.failed(address(2), now), "that is known");
        assert_eq!(ports(&members), [3, 1, 2]);
        assert!(members.is_still(now + (AVOIDED - MOMENT)));
        assert_eq!(members.take_retry(now + (AVOIDED - MOMENT), Some), None);

        let later = now + AVOIDED;
        assert!(!members.is_still(later));
        assert_eq!(
            members.take_retry(later, Some),
            Some(address(1)),
            "one connection begins with it"
        );
        assert_eq!(members.take_retry(later, Some), Some(address(2)), "and one with the other");
        assert_eq!(members.take_retry(later, Some), None, "and nobody else");
        assert!(members.reached(address(1)));
        assert!(!members.reached(address(1)));
        assert_eq!(ports(&members), [1, 3, 2]);
        members.reached(address(2));
        assert_eq!(ports(&members), [1, 2, 3]);
        assert!(!members.has_failures());
    }

    #[test]
    fn failure_outlives_answers_without_the_address_and_then_is_forgotten() {
        let now = Instant::now();
        let mut members = members(Duration::ZERO, &[1, 2], now);
        members.failed(address(1), now);
        members.answered(0, &found(&[2]), now);
        members.answered(0, &found(&[1, 2]), now);
        assert_eq!(ports(&members), [2, 1]);
        members.answered(0, &found(&[2]), now);
        members.expire(now + AVOIDED);
        assert!(!members.has_failures());
    }

    #[test]
    fn failures_that_are_remembered_are_bounded() {
        let now = Instant::now();
        let mut members = members(HOLD, &[1, 2], now);
        for port in 1..=u16::try_from(MOST_FAILED).unwrap() + 1 {
            members.failed(address(port), now + Duration::from_millis(port.into()));
        }
        assert_eq!(ports(&members), [1, 2], "the oldest is forgotten, the other one last");
        assert_eq!(members.failed.len(), MOST_FAILED);
    }

    #[test]
    fn lower_priority_is_behind_and_in_front_of_those_that_failed() {
        let now = Instant::now();
        let mut members = Members::new(2, HOLD);
        let of = |priority, port| Found { address: address(port), priority, weight: 5 };
        members.answered(1, &[of(20, 1), of(10, 2), of(10, 3)], now);
        assert_eq!(ports(&members), [2, 3, 1]);
        members.failed(address(2), now);
        assert_eq!(ports(&members), [3, 1, 2]);
        members.failed(address(3), now);
        assert_eq!(ports(&members), [1, 2, 3]);
        members.answered(0, &found(&[1]), now);
        assert_eq!(ports(&members), [1, 2, 3], "each address is there once");
    }

    proptest! {
        /// Any answers in any order: all of the last one is there, once, and nothing longer than it is held.
        #[test]
        fn what_is_there_was_answered_lately(
            answers in prop::collection::vec((prop::collection::vec(1_u16..12, 1..9), 0_u64..40), 1..30),
        ) {
            let mut now = Instant::now();
            let mut members = Members::new(1, HOLD);
            let mut first_without = BTreeMap::new();
            for (answer, seconds) in answers {
                now += Duration::from_secs(seconds);
                members.expire(now);
                members.answered(0, &found(&answer), now);
                for port in 1..12 {
                    if answer.contains(&port) {
                        first_without.insert(port, None);
                    } else if let Some(since) = first_without.get_mut(&port) {
                        since.get_or_insert(now);
                    }
                }
                let mut expected: Vec<_> = first_without
                    .iter()
                    .filter(|(_, since)| since.is_none_or(|since| now - since < HOLD))
                    .map(|(port, _)| *port)
                    .collect();
                expected.sort_unstable();
                // One that went and is answered again is new.
                first_without.retain(|_, since| since.is_none_or(|since| now - since < HOLD));
                let mut there = ports(&members);
                there.sort_unstable();
                prop_assert_eq!(there, expected);
                let held = members.list().iter().filter(|member| member.is_held).count();
                let answered: BTreeSet<_> = answer.iter().collect();
                prop_assert_eq!(held, members.list().len() - answered.len());
            }
        }
    }
}
