//! What control asks of workers beside orders: what passed, which tunnels there are, one of them, and its end.
//!
//! A worker goes over its tunnels in parts, one in a round: the messages of its other tunnels wait for one part at most
//! ([`PLACES`], [`VIEWS`]), whoever asks and however many there are.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Order, Workers};
use crate::admin::close::Close;
use crate::admin::query::Query;
use crate::admin::sorting::{Place, Sorting};
use crate::admin::view::{Id, View};
use crate::metrics::traffic::Traffic;
use crate::metrics::worker::WorkerMetrics;

/// Places that are gone over in one round: some 100 microseconds, most of them for memory that is in no cache.
pub(super) const PLACES: usize = 1_024;

/// Tunnels that are written down in one round: about as long.
pub(super) const VIEWS: usize = 128;

/// How long a worker has to answer. Its rounds take a millisecond at most, so that one that needs longer is stuck.
const ANSWER: Duration = Duration::from_secs(1);

/// A worker does not answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer {
    /// Which one.
    pub(crate) worker: usize,
}

/// A question to one worker.
pub(super) enum Look {
    /// Goes on with the sum of what passed, or begins it. None: it is not done.
    Traffic {
        begins: bool,
        answer: oneshot::Sender<Option<Traffic>>,
    },
    /// Looks at tunnels from a place on.
    Tunnels(TunnelsLook),
    /// Whether it is there.
    IsThere(oneshot::Sender<()>),
    Tunnel {
        id: Id,
        answer: oneshot::Sender<Option<View>>,
    },
    Close {
        id: Id,
        close: Close,
        answer: oneshot::Sender<Option<Closed>>,
    },
}

pub(super) struct TunnelsLook {
    pub(super) worker: usize,
    pub(super) from: usize,
    pub(super) query: Arc<Query>,
    /// Those behind this one are not needed: there are enough before it.
    pub(super) last: Option<Place>,
    pub(super) answer: oneshot::Sender<Part>,
}

/// A part of the tunnels of one worker.
#[derive(Default)]
pub(super) struct Part {
    pub(super) views: Vec<(Place, View)>,
    /// Tunnels that met what was asked.
    pub(super) matched: usize,
    /// Where the next part begins, if there is one.
    pub(super) next: Option<usize>,
}

/// What became of an order to close a tunnel that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Its end is under way now.
    Begun,
    /// Its end was under way before.
    Already,
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

impl Workers {
    /// What each worker counts.
    pub(crate) fn metrics(&self) -> Vec<&WorkerMetrics> {
        self.shared.doors.iter().map(|door| &*door.metrics).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.doors.len()
    }

    /// Asks when whoever asked before has the answer: a worker has one part to do in a round at most.
    async fn ask<T>(
        &self,
        worker: usize,
        look: impl FnOnce(oneshot::Sender<T>) -> Look,
    ) -> Result<T, NoAnswer> {
        let _turn = self.shared.asks.lock().await;
        self.ask_at_once(worker, look).await
    }

    async fn ask_at_once<T>(
        &self,
        worker: usize,
        look: impl FnOnce(oneshot::Sender<T>) -> Look,
    ) -> Result<T, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        if let Some(door) = self.shared.doors.get(worker) {
            // A thread that is gone drops the channel.
            drop(door.send(Order::Look(look(answer))));
        }
        match timeout(ANSWER, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(NoAnswer { worker }),
        }
    }

    /// Whether a worker answers.
    pub(crate) async fn is_there(&self, worker: usize) -> Result<(), NoAnswer> {
        self.ask_at_once(worker, Look::IsThere).await
    }

    /// What passed in the tunnels of a worker. One walk at a time: a second one would end the first.
    pub(crate) async fn traffic(&self, worker: usize) -> Result<Traffic, NoAnswer> {
        let mut begins = true;
        loop {
            match self.ask(worker, |answer| Look::Traffic { begins, answer }).await? {
                Some(traffic) => return Ok(traffic),
                None => begins = false,
            }
        }
    }

    /// Tunnels that meet a query, as many as it wants.
    pub(crate) async fn tunnels(&self, query: Query) -> Result<Listed, NoAnswer> {
        let query = Arc::new(query);
        let behind = query.behind.as_ref().map(|place| place.id);
        let (first, key) = match behind {
            Some(id) if query.sorting.is_by_place() => (id.worker, id.key.saturating_add(1)),
            _ => (0, 0),
        };
        let mut found = Vec::new();
        let mut matched = 0;
        for worker in first..self.count() {
            let mut from = Some(if worker == first { key } else { 0 });
            while let Some(place) = from {
                let last = (found.len() > query.limit)
                    .then(|| found.last())
                    .flatten()
                    .map(|(place, _): &(Place, View)| place.clone());
                let part = self
                    .ask(worker, |answer| {
                        let query = Arc::clone(&query);
                        Look::Tunnels(TunnelsLook { worker, from: place, query, last, answer })
                    })
                    .await?;
                from = part.next;
                matched += part.matched;
                keep_first(&mut found, part.views, query.sorting, query.limit + 1);
                if query.sorting.is_by_place() && found.len() > query.limit {
                    return Ok(listed(found, query.limit, None));
                }
            }
        }
        let is_all = !query.sorting.is_by_place() || query.behind.is_none();
        Ok(listed(found, query.limit, is_all.then_some(matched)))
    }

    /// The tunnel with this id, if it is there.
    pub(crate) async fn tunnel(&self, id: Id) -> Result<Option<View>, NoAnswer> {
        if id.worker >= self.count() {
            return Ok(None);
        }
        self.ask(id.worker, |answer| Look::Tunnel { id, answer }).await
    }

    /// Closes the tunnel with this id, if it is there.
    pub(crate) async fn close(&self, id: Id, close: Close) -> Result<Option<Closed>, NoAnswer> {
        if id.worker >= self.count() {
            return Ok(None);
        }
        self.ask(id.worker, |answer| Look::Close { id, close, answer }).await
    }
}

/// Adds tunnels to those that were found, and keeps the first ones, in order.
fn keep_first(
    found: &mut Vec<(Place, View)>,
    more: Vec<(Place, View)>,
    sorting: Sorting,
    most: usize,
) {
    found.extend(more);
    found.sort_by(|(one, _), (other, _)| sorting.compare(one, other));
    found.truncate(most);
}

/// One more was looked for than is wanted: where it is there, the list goes on.
fn listed(mut found: Vec<(Place, View)>, limit: usize, matched: Option<usize>) -> Listed {
    let goes_on = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| goes_on).map(|(place, _)| place.clone());
    Listed { views: found.into_iter().map(|(_, view)| view).collect(), last, matched }
}
