//! Which tunnels go first where some of an endpoint are to be closed: those in which nothing has passed for longest. Pure.
//!
//! A worker looks at a part of its tunnels in a round, and the next time at the next part, so that with very many tunnels
//! it is the quietest of some thousands. A tunnel that cannot be told of it, since it is no WebSocket, is the last, and
//! behind the others are those in the middle of a message.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::admin::view::Id;
use crate::end::Reason;
use crate::tunnel::{Condition, State};

/// Places that are looked at in a round: some 100 microseconds, most of them for memory that is in no cache.
pub(crate) const PLACES: usize = 1_024;

/// How many tunnels of an endpoint are to be closed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) number: usize,
    pub(crate) why: Reason,
}

impl Wanted {
    /// Those that can be told nothing stay where their endpoint does.
    fn takes(self, rank: Rank) -> bool {
        self.why == Reason::EndpointGone || !rank.is_mute
    }
}

/// What a worker is asked.
#[derive(Debug)]
pub(crate) struct Search {
    /// The first place to look at.
    pub(crate) from: usize,
    pub(crate) wanted: Arc<BTreeMap<SocketAddr, Wanted>>,
}

/// The earlier one goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// It cannot be sent a Close.
    is_mute: bool,
    is_busy: bool,
    /// Ticks without data.
    idle: Reverse<u32>,
}

/// A tunnel that could be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quiet {
    rank: Rank,
    pub(crate) id: Id,
    pub(crate) upstream: SocketAddr,
}

/// Some of them: of each endpoint as many as are wanted, or all that were seen.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) quiet: Vec<Quiet>,
    /// Where the next search begins.
    pub(crate) next: usize,
    /// No places are left behind these.
    pub(crate) is_end: bool,
}

impl Search {
    /// Looks at a part of the tunnels. They are at places below `reach` of this worker; `tunnel` gives the one at a place,
    /// and whether its end is under way.
    pub(crate) fn answer<'s>(
        &self,
        worker: usize,
        reach: usize,
        tunnel: impl Fn(usize) -> Option<(&'s State, bool)>,
        tick: u32,
    ) -> Found {
        // Tunnels end, and with the last one of many its worker gives back the places.
        let from = if self.from < reach { self.from } else { 0 };
        let end = from.saturating_add(PLACES).min(reach);
        let mut quiet = Vec::new();
        for key in from..end {
            let Some((state, is_closing)) = tunnel(key) else { continue };
            let upstream = state.identity.upstream();
            let Some(wanted) = self.wanted.get(&upstream) else { continue };
            if is_closing || state.condition() == Condition::Closing {
                continue;
            }
            let rank = Rank {
                is_mute: !state.can_send_close(),
                is_busy: state.is_busy(),
                idle: Reverse(state.idle_for(tick)),
            };
            if wanted.takes(rank) {
                quiet.push(Quiet { rank, id: Id { worker, key, name: state.name() }, upstream });
            }
        }
        first(&mut quiet, &self.wanted);
        let is_end = end >= reach;
        Found { quiet, next: if is_end { 0 } else { end }, is_end }
    }
}

/// Keeps of each endpoint as many as are wanted, the quietest.
pub(crate) fn first(quiet: &mut Vec<Quiet>, wanted: &BTreeMap<SocketAddr, Wanted>) {
    quiet.sort_unstable_by_key(|one| (one.rank, one.id));
    let mut left: BTreeMap<_, _> = wanted.iter().map(|(at, wanted)| (*at, wanted.number)).collect();
    quiet.retain(|one| match left.get_mut(&one.upstream) {
        Some(left @ 1..) => {
            *left -= 1;
            true
        }
        _ => false,
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::clock::{Now, Since, ticks};
    use crate::tunnel::rules::Rulebook;
    use crate::tunnel::{Identity, Local, Moment, Options, Pair, Protocol};
    use crate::websocket::keepalive::Secret;

    fn upstream(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    /// A tunnel to an endpoint that opened at this second, and in which nothing has passed; `early` came with its 101.
    fn tunnel(protocol: Protocol, last: u8, second: u64, early: &[u8]) -> State {
        let client = SocketAddr::from(([203, 0, 113, 1], 1));
        let line = "GET / HTTP/1.1";
        let since = Since::ago(Duration::ZERO, Duration::ZERO);
        let identity = Identity::new(client, client, upstream(last), line, "1", since);
        let early = Pair { client: Vec::new(), upstream: early.to_vec() };
        let mut state = State::new(protocol, early, identity);
        let (mut local, rules) = (Local::default(), Rulebook::new(&Options::default()));
        let now = Now::at(Duration::from_secs(second));
        let mut moment = Moment { state: &mut state, local: &mut local, rules: &rules, now };
        moment.begin(Secret::new(second));
        state
    }

    fn search(from: usize, wanted: &[(u8, usize, Reason)]) -> Search {
        let wanted = wanted
            .iter()
            .map(|(last, number, why)| (upstream(*last), Wanted { number: *number, why: *why }));
        Search { from, wanted: Arc::new(wanted.collect()) }
    }

    fn keys(found: &Found) -> Vec<usize> {
        found.quiet.iter().map(|one| one.id.key).collect()
    }

    #[test]
    fn quiet_ones_go_first_and_those_that_can_be_told_nothing_last() {
        let web = Protocol::WebSocket;
        let all = [
            tunnel(web, 1, 50, b""),
            tunnel(web, 1, 10, b""),
            tunnel(Protocol::Other, 1, 1, b""),
            // The first frame of a message; the next one has not come.
            tunnel(web, 1, 2, b"\x01\x01a"),
            tunnel(web, 1, 30, b""),
            tunnel(web, 2, 5, b""),
        ];
        let tunnel = |key: usize| all.get(key).map(|state| (state, false));
        let tick = ticks(Duration::from_secs(60));
        let found =
            |number, why| keys(&search(0, &[(1, number, why)]).answer(7, all.len(), tunnel, tick));
        assert_eq!(found(9, Reason::EndpointGone), [1, 4, 0, 3, 2]);
        assert_eq!(found(9, Reason::Rebalanced), [1, 4, 0, 3]);
        assert_eq!(found(2, Reason::Rebalanced), [1, 4]);
        let both = search(0, &[(1, 1, Reason::Rebalanced), (2, 3, Reason::Rebalanced)]);
        let found = both.answer(7, all.len(), tunnel, tick);
        assert_eq!(keys(&found), [5, 1], "of each as many as are wanted");
        assert!(found.quiet.iter().all(|one| one.id.worker == 7));
        assert!(found.is_end && found.next == 0);
        let ended = |key: usize| all.get(key).map(|state| (state, key == 1));
        let found = search(0, &[(1, 1, Reason::Rebalanced)]).answer(7, all.len(), ended, tick);
        assert_eq!(keys(&found), [4], "the end of the other one is under way");
    }

    #[test]
    fn a_part_is_looked_at_and_then_the_next() {
        let one = tunnel(Protocol::WebSocket, 1, 1, b"");
        let reach = 2 * PLACES + 10;
        let looked = std::cell::Cell::new(0);
        let tunnel = |_| {
            looked.set(looked.get() + 1);
            Some((&one, false))
        };
        let mut from = 0;
        let mut ends = Vec::new();
        for expected in [PLACES, PLACES, 10, PLACES] {
            let found =
                search(from, &[(1, usize::MAX, Reason::Rebalanced)]).answer(0, reach, tunnel, 0);
            assert_eq!((found.quiet.len(), looked.replace(0)), (expected, expected));
            from = found.next;
            ends.push(found.is_end);
        }
        assert_eq!(ends, [false, false, true, false]);
        let found = search(5 * PLACES, &[]).answer(0, 3, tunnel, 0);
        assert_eq!((looked.get(), found.next), (3, 0), "places went");
    }
}
