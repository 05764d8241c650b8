//! What control asks of workers beside orders: what passed, which tunnels there are, one of them, and its end.
//!
//! A worker goes over its tunnels in parts, one in a round: the messages of its other tunnels wait for one part at most
//! ([`PLACES`](crate::admin::listing::PLACES)), whoever asks and however many there are.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::quietest::{Found, Search};
use super::{Order, Workers};
use crate::admin::close::Close;
use crate::admin::listing::{Listed, Listing, Part, Question};
use crate::admin::query::Query;
use crate::admin::view::{Id, View};
use crate::end::Reason;
use crate::metrics::traffic::Traffic;
use crate::metrics::worker::WorkerMetrics;

/// How long a worker has to answer. Its rounds take a millisecond at most, so that one that needs longer is stuck.
const ANSWER: Duration = Duration::from_secs(1);

/// Tunnels that are closed in one round: a Close is written to each, which takes some microseconds.
const MOST_CLOSED: usize = 32;

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
    Tunnels {
        question: Question,
        answer: oneshot::Sender<Part>,
    },
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
    /// Which tunnels of some endpoints go first.
    Quietest {
        search: Search,
        answer: oneshot::Sender<Found>,
    },
    /// Closes tunnels because of their endpoint. How many were open.
    Leave {
        tunnels: Vec<(Id, Reason)>,
        answer: oneshot::Sender<usize>,
    },
}

/// What became of an order to close a tunnel that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Its end is under way now: with a Close, where it is a WebSocket.
    Begun { is_websocket: bool },
    /// Its end was under way before.
    Already,
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
        let mut listing = Listing::new(query, self.count());
        while let Some(question) = listing.question() {
            let worker = question.worker;
            listing.take(self.ask(worker, |answer| Look::Tunnels { question, answer }).await?);
        }
        Ok(listing.end())
    }

    /// The tunnel with this id, if it is there.
    pub(crate) async fn tunnel(&self, id: Id) -> Result<Option<View>, NoAnswer> {
        if id.worker >= self.count() {
            return Ok(None);
        }
        self.ask(id.worker, |answer| Look::Tunnel { id, answer }).await
    }

    /// Some of the tunnels that go first where endpoints have too many.
    pub(crate) async fn quietest(&self, worker: usize, search: Search) -> Result<Found, NoAnswer> {
        self.ask(worker, |answer| Look::Quietest { search, answer }).await
    }

    /// Closes tunnels of a worker because of their endpoint. How many of them were open.
    pub(crate) async fn leave(
        &self,
        worker: usize,
        tunnels: &[(Id, Reason)],
    ) -> Result<usize, NoAnswer> {
        let mut closed = 0;
        for part in tunnels.chunks(MOST_CLOSED) {
            let tunnels = part.to_vec();
            closed += self.ask(worker, |answer| Look::Leave { tunnels, answer }).await?;
        }
        Ok(closed)
    }

    /// Closes the tunnel with this id, if it is there.
    pub(crate) async fn close(&self, id: Id, close: Close) -> Result<Option<Closed>, NoAnswer> {
        if id.worker >= self.count() {
            return Ok(None);
        }
        self.ask(id.worker, |answer| Look::Close { id, close, answer }).await
    }
}
