//! What happens to tunnels, for those who follow it at the admin port: a sample of what opens and ends.
//!
//! Where nobody follows, it costs a look at a number. Where somebody does, workers write down so many a second and no
//! more, and wait for nobody.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::admin::json;
use crate::admin::view::Id;
use crate::end::{End, Side};
use crate::tunnel::State;
use crate::workers::{self, Position};

/// Opens and ends that are told in a second, of each.
const A_SECOND: u32 = 20;

/// Events that wait for a follower at most.
const WAITING: usize = 128;

/// Where events go.
#[derive(Clone, Debug)]
pub(crate) struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    followers: AtomicUsize,
    opens_left: AtomicU32,
    ends_left: AtomicU32,
    events: broadcast::Sender<Event>,
}

/// What a follower is told: its name, and its data as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    pub(crate) data: Arc<str>,
}

/// Somebody who follows, until this is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Feed,
    pub(crate) events: broadcast::Receiver<Event>,
}

#[derive(Serialize)]
struct Opened<'a> {
    /// None where it ended before it had a place, or after its worker did.
    id: Option<Id>,
    client: SocketAddr,
    upstream: SocketAddr,
    request: &'a str,
    request_id: Cow<'a, str>,
}

#[derive(Serialize)]
struct Ended<'a> {
    #[serde(flatten)]
    opened: Opened<'a>,
    by: &'static str,
    during: &'static str,
    why: &'static str,
    /// Seconds.
    duration: f64,
    close_code: Option<u16>,
    close_by: Option<&'static str>,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Shared {
            followers: AtomicUsize::new(0),
            opens_left: AtomicU32::new(A_SECOND),
            ends_left: AtomicU32::new(A_SECOND),
            events: broadcast::Sender::new(WAITING),
        }))
    }
}

impl Feed {
    /// Whether anybody follows.
    pub(crate) fn is_followed(&self) -> bool {
        self.0.followers.load(Ordering::Relaxed) > 0
    }

    /// Follows it from now on.
    pub(crate) fn follow(&self) -> Follower {
        self.0.followers.fetch_add(1, Ordering::Relaxed);
        Follower { feed: self.clone(), events: self.0.events.subscribe() }
    }

    /// A second has begun.
    pub(crate) fn begin_second(&self) {
        self.0.opens_left.store(A_SECOND, Ordering::Relaxed);
        self.0.ends_left.store(A_SECOND, Ordering::Relaxed);
    }

    /// Tells all followers.
    pub(crate) fn tell(&self, name: &'static str, data: &impl Serialize) {
        let Ok(data) = json::write(data) else { return };
        // Fails only where nobody follows any more.
        drop(self.0.events.send(Event { name, data: data.into() }));
    }

    /// A tunnel opened.
    pub(crate) fn opened(&self, state: &State, position: Position) {
        if self.is_followed() && take_one(&self.0.opens_left) {
            self.tell("opened", &Opened::of(state, Some(position)));
        }
    }

    /// A tunnel ended.
    pub(crate) fn ended(&self, state: &State, end: End, position: Option<Position>) {
        if self.is_followed() && take_one(&self.0.ends_left) {
            let ended = Ended {
                opened: Opened::of(state, position),
                by: end.by.as_str(),
                during: end.during.as_str(),
                why: end.why.as_str(),
                duration: state.identity.age(workers::elapsed()).as_secs_f64(),
                close_code: state.close().map(|(code, _)| code),
                close_by: state.close().map(|(_, by)| Side::as_str(by)),
            };
            self.tell("ended", &ended);
        }
    }
}

impl<'a> Opened<'a> {
    fn of(state: &'a State, position: Option<Position>) -> Self {
        let identity = &state.identity;
        Self {
            id: position.map(|Position { worker, key }| Id { worker, key, name: state.name() }),
            client: identity.client(),
            upstream: identity.upstream(),
            request: identity.request_line(),
            request_id: identity.request_id(),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether there was one left to take.
fn take_one(left: &AtomicU32) -> bool {
    let one_less = |left: u32| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::end::{Phase, Reason};
    use crate::tunnel::{Identity, Pair, Protocol, Since};

    fn state(request: &str) -> State {
        let address = SocketAddr::from(([203, 0, 113, 7], 51234));
        let identity = Identity::new(address, address, address, request, "id", Since::default());
        State::new(Protocol::Other, Pair::default(), identity)
    }

    #[test]
    fn so_many_are_told_in_a_second_and_only_to_who_follows() {
        let feed = Feed::default();
        let state = state("GET /\"\n\u{1b} HTTP/1.1");
        let position = Position { worker: 1, key: 2 };
        feed.opened(&state, position);
        let mut follower = feed.follow();
        for _ in 0..A_SECOND * 2 {
            feed.opened(&state, position);
        }
        let mut told = 0;
        while let Ok(event) = follower.events.try_recv() {
            assert_eq!(event.name, "opened");
            assert!(!event.data.contains(['\n', '\u{1b}']), "{}", event.data);
            told += 1;
        }
        assert_eq!(told, A_SECOND);
        feed.begin_second();
        for (position, id) in [(Some(position), "\"1-2-"), (None, "null")] {
            feed.ended(&state, End::new(Side::Client, Phase::Relay, Reason::Closed), position);
            let event = follower.events.try_recv().unwrap();
            let data = &event.data;
            assert!(event.name == "ended" && data.contains("\"why\":\"closed\""), "{event:?}");
            assert!(data.contains(&format!("\"id\":{id}")), "{data}");
        }
        drop(follower);
        assert!(!feed.is_followed());
    }
}
