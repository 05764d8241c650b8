//! A list of tunnels, in order, gathered in parts: what to ask which worker next, and how a worker answers. Pure.
//!
//! ```text
//! Listing ──Question──→ worker, between two of its rounds
//!    ↑────────Part──────────┘    until all places were looked at, or enough is found
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use super::query::Query;
use super::sorting::Place;
use super::view::{Id, Moment, View};
use crate::tunnel::State;

/// Places that are gone over for one question: some 100 microseconds, most of them for memory that is in no cache.
pub(crate) const PLACES: usize = 1_024;

/// The same where addresses are written down to be compared with a text, which takes ten times as long.
const PLACES_BY_ADDRESS: usize = 256;

/// Tunnels that are written down for one question: about as long, where their memory is new as well.
const VIEWS: usize = 32;

/// What one worker is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) worker: usize,
    /// The first place to look at.
    from: usize,
    query: Arc<Query>,
    /// Those behind this one are not needed: there are enough before it.
    last: Option<Place>,
}

/// A part of the tunnels of one worker.
#[derive(Debug, Default)]
pub(crate) struct Part {
    views: Vec<(Place, View)>,
    /// Tunnels that met what was asked.
    matched: usize,
    /// Where the next part begins, if there is one.
    next: Option<usize>,
}

/// Tunnels, in order.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) views: Vec<View>,
    /// The last one of them, where more come behind it.
    pub(crate) last: Option<Place>,
    /// How many meet what was asked; not known where the list ended before all were looked at.
    pub(crate) matched: Option<usize>,
}

/// A list that is being gathered.
#[derive(Debug)]
pub(crate) struct Listing {
    query: Arc<Query>,
    workers: usize,
    /// The worker that is asked next, and the place from which on.
    next: Option<(usize, usize)>,
    /// The first ones so far, in order: one more than is wanted, which says that the list goes on.
    found: Vec<(Place, View)>,
    matched: usize,
    /// It ended before all were looked at.
    is_cut: bool,
}

impl Question {
    /// Looks at a part of the tunnels. They are at places below `reach`; `tunnel` gives the one at a place, and whether its
    /// end is under way.
    pub(crate) fn answer<'s>(
        &self,
        reach: usize,
        tunnel: impl Fn(usize) -> Option<(&'s State, bool)>,
        at: Moment,
    ) -> Part {
        let Self { worker, from, query, last } = self;
        let sorting = query.sorting;
        let mut part = Part::default();
        let places = if query.compares_addresses() { PLACES_BY_ADDRESS } else { PLACES };
        let end = from.saturating_add(places).min(reach);
        for key in *from..end {
            let Some((state, is_closing)) = tunnel(key) else { continue };
            if !query.is_met(state, is_closing, at) {
                continue;
            }
            part.matched += 1;
            let id = Id { worker: *worker, key, name: state.name() };
            let place = Place { value: sorting.value(state, is_closing, at), id };
            let comes_behind = |other: &Place| sorting.compare(other, &place) == Ordering::Less;
            let comes_before = |other: &Place| sorting.compare(&place, other) == Ordering::Less;
            if query.behind.as_ref().is_none_or(comes_behind)
                && last.as_ref().is_none_or(comes_before)
            {
                part.views.push((place, View::of(id, state, is_closing, at)));
                if part.views.len() >= VIEWS {
                    part.next = Some(key + 1);
                    return part;
                }
            }
        }
        part.next = (end < reach).then_some(end);
        part
    }
}

impl Listing {
    /// Of the tunnels of so many workers.
    pub(crate) fn new(query: Query, workers: usize) -> Self {
        // In the order of places what comes behind a place need not be looked for before it.
        let first = match query.behind.as_ref().map(|place| place.id) {
            Some(id) if query.sorting.is_by_place() => (id.worker, id.key.saturating_add(1)),
            _ => (0, 0),
        };
        let is_cut = query.sorting.is_by_place() && query.behind.is_some();
        let next = Some(first).filter(|(worker, _)| *worker < workers);
        Self { query: Arc::new(query), workers, next, found: Vec::new(), matched: 0, is_cut }
    }

    /// What is to be asked next, until there is nothing more.
    pub(crate) fn question(&self) -> Option<Question> {
        let (worker, from) = self.next?;
        let last = self.found.get(self.query.limit).map(|(place, _)| place.clone());
        Some(Question { worker, from, query: Arc::clone(&self.query), last })
    }

    /// Takes the answer to the question.
    pub(crate) fn take(&mut self, part: Part) {
        let Some((worker, _)) = self.next else { return };
        let sorting = self.query.sorting;
        self.matched += part.matched;
        self.found.extend(part.views);
        self.found.sort_by(|(one, _), (other, _)| sorting.compare(one, other));
        self.found.truncate(self.query.limit + 1);
        self.next = match part.next {
            Some(from) => Some((worker, from)),
            None => Some((worker + 1, 0)).filter(|(worker, _)| *worker < self.workers),
        };
        if sorting.is_by_place() && self.found.len() > self.query.limit {
            self.is_cut = true;
            self.next = None;
        }
    }

    /// What was found.
    pub(crate) fn end(mut self) -> Listed {
        let goes_on = self.found.len() > self.query.limit;
        self.found.truncate(self.query.limit);
        let last = self.found.last().filter(|_| goes_on).map(|(place, _)| place.clone());
        Listed {
            views: self.found.into_iter().map(|(_, view)| view).collect(),
            last,
            matched: (!self.is_cut).then_some(self.matched),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::admin::sorting::{Field, Sorting};
    use crate::clock::{Now, Since};
    use crate::tunnel::{Identity, Pair, Protocol};

    /// As many as the documents speak of.
    const TUNNELS: usize = 100_000;

    const WORKERS: usize = 3;

    /// Places of workers, and who is at them: the number of a tunnel, and its state.
    struct World {
        places: Vec<Vec<Option<(usize, State)>>>,
        at: Moment,
    }

    impl World {
        /// Two places of three are taken.
        fn new(tunnels: usize) -> Self {
            let mut places: Vec<Vec<_>> = (0..WORKERS).map(|_| Vec::new()).collect();
            for number in 0..tunnels {
                let worker = &mut places[number % WORKERS];
                if number % 2 == 0 {
                    worker.push(None);
                }
                worker.push(Some((number, tunnel(number))));
            }
            let elapsed = Duration::from_secs(100);
            Self { places, at: Moment { now: Now::at(elapsed), elapsed } }
        }

        fn list(&self, query: Query) -> (Listed, usize) {
            let mut listing = Listing::new(query, WORKERS);
            let mut questions = 0;
            while let Some(question) = listing.question() {
                questions += 1;
                let places = &self.places[question.worker];
                let tunnel = |key: usize| places[key].as_ref().map(|(_, state)| (state, false));
                let part = question.answer(places.len(), tunnel, self.at);
                assert!(part.views.len() <= VIEWS);
                assert!(part.next.is_none_or(|next| next - question.from <= PLACES));
                listing.take(part);
            }
            (listing.end(), questions)
        }

        fn number(&self, id: Id) -> usize {
            self.places[id.worker][id.key].as_ref().unwrap().0
        }

        /// Every `nth` tunnel ends, and others come to the places that are free.
        fn change(&mut self, nth: usize, next_number: &mut usize) {
            for place in self.places.iter_mut().flatten() {
                match place {
                    Some((number, _)) if *number % nth == 1 => *place = None,
                    None => {
                        *place = Some((*next_number, tunnel(*next_number)));
                        *next_number += 1;
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Its values are in no order, and several have the same.
    fn tunnel(number: usize) -> State {
        let mixed = number.wrapping_mul(40_503) % 65_536;
        let client = SocketAddr::from(([203, 0, 113, (mixed % 251) as u8], mixed as u16));
        let upstream = SocketAddr::from(([10, 0, 0, (mixed % 7) as u8], 80));
        let line = format!("GET /rooms/{} HTTP/1.1", mixed % 997);
        let since = Since::ago(Duration::ZERO, Duration::from_millis((mixed % 50_000) as u64));
        let identity = Identity::new(client, client, upstream, &line, "1", since);
        let mut state = State::new(Protocol::WebSocket, Pair::default(), identity);
        state.flows.client.passed = (mixed % 1_000) as u64;
        state
    }

    /// For all of them.
    fn query(sorting: Sorting, limit: usize, behind: Option<Place>) -> Query {
        let mut query = Query::default();
        (query.sorting, query.limit, query.behind) = (sorting, limit, behind);
        query
    }

    /// Reads a list to its end, and lets tunnels come and go meanwhile: who stays is told once.
    fn read_through(sorting: Sorting, limit: usize, tunnels: usize) {
        let mut world = World::new(tunnels);
        let mut next_number = tunnels;
        let mut told = BTreeMap::new();
        let mut behind: Option<Place> = None;
        let mut pages = 0;
        loop {
            let (listed, _) = world.list(query(sorting, limit, behind));
            assert!(listed.views.len() <= limit);
            for view in &listed.views {
                *told.entry(world.number(view.id)).or_insert(0) += 1;
            }
            pages += 1;
            if pages % 10 == 1 {
                world.change(97 + pages, &mut next_number);
            }
            behind = listed.last;
            if behind.is_none() {
                break;
            }
        }
        let numbers = world.places.iter().flatten().flatten().map(|(number, _)| *number);
        for number in numbers.filter(|number| *number < tunnels) {
            assert_eq!(told.get(&number), Some(&1), "{number} of {}", sorting.field.as_str());
        }
        assert!(told.values().all(|times| *times == 1));
    }

    #[test]
    fn each_of_100_000_tunnels_is_told_once() {
        read_through(Sorting { field: Field::Client, is_descending: false }, 1_000, TUNNELS);
    }

    #[test]
    fn each_is_told_once_by_every_order() {
        for field in Field::ALL {
            read_through(Sorting { field, is_descending: false }, 200, 6_000);
            read_through(Sorting { field, is_descending: true }, 200, 6_000);
        }
    }

    #[test]
    fn few_are_told_at_a_time_as_well() {
        for field in [Field::Id, Field::Client, Field::Bytes] {
            read_through(Sorting { field, is_descending: true }, 7, 500);
        }
    }

    #[test]
    fn fewer_are_looked_at_where_their_addresses_are_written_down() {
        let world = World::new(TUNNELS);
        for (text, most) in
            [("path=nobody", PLACES), ("search=999.9", 256), ("search=nobody", PLACES)]
        {
            let (listed, questions) = world.list(Query::read(text).unwrap());
            assert_eq!(listed.matched, Some(0));
            let least: usize = world.places.iter().map(|places| places.len().div_ceil(most)).sum();
            assert_eq!(questions, least, "{text}");
        }
    }

    #[test]
    fn first_of_an_order_are_those_of_all() {
        let world = World::new(TUNNELS);
        let sorting = Sorting::read("-bytes").unwrap();
        let (listed, questions) = world.list(query(sorting, 10, None));
        assert_eq!(listed.matched, Some(TUNNELS));
        let most = listed.views.iter().map(|view| world.number(view.id));
        assert!(most.clone().all(|number| tunnel(number).flows.client.passed == 999));
        assert_eq!(most.count(), 10);
        // All places were looked at, and few tunnels written down for nothing.
        let places: usize = world.places.iter().map(Vec::len).sum();
        assert!(questions <= places / PLACES + 2 * WORKERS, "{questions}");
        // By place nothing is looked at that is not told.
        let (listed, questions) = world.list(query(Sorting::BY_PLACE, 10, None));
        assert_eq!((listed.views.len(), listed.matched, questions), (10, None, 1));
    }
}
