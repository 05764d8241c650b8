//! How tunnels leave the workers for another process, some at a time, and how they come from one.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Order, STOPPED, Workers};
use crate::tunnel::Tunnel;

/// The most tunnels that are taken at once: as many as have their sockets in one message.
pub const MOST_TAKEN: usize = crate::handoff::socket::MAX_DESCRIPTORS / 2;

/// A request to a worker for tunnels.
pub(super) struct Request {
    pub(super) most: usize,
    pub(super) answer: oneshot::Sender<Taken>,
    /// Where they come back to.
    pub(super) home: Workers,
}

/// Tunnels of another process.
pub(super) struct Batch {
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) frozen_at: Duration,
    /// The pause of each, in microseconds.
    pub(super) pauses: mpsc::Sender<Vec<u32>>,
}

/// Tunnels that were taken out of a worker. No poll has their sockets. If it is dropped they go back to the workers, as
/// if nothing had been.
#[must_use]
pub struct Taken {
    tunnels: Vec<Tunnel>,
    frozen_at: Duration,
    has_more: bool,
    home: Workers,
    /// A worker that was asked has died.
    is_worker_gone: bool,
}

impl Taken {
    pub(super) const fn new(
        tunnels: Vec<Tunnel>,
        frozen_at: Duration,
        has_more: bool,
        home: Workers,
    ) -> Self {
        Self { tunnels, frozen_at, has_more, home, is_worker_gone: false }
    }

    /// The tunnels.
    #[must_use]
    pub fn tunnels(&self) -> &[Tunnel] {
        &self.tunnels
    }

    /// Since when nobody reads from them or writes to them, by `CLOCK_MONOTONIC`.
    #[must_use]
    pub const fn frozen_at(&self) -> Duration {
        self.frozen_at
    }

    /// Whether the worker that they were on may have more that can be taken.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether a worker that was asked for tunnels has died, and with it those that it had.
    #[must_use]
    pub const fn is_worker_gone(&self) -> bool {
        self.is_worker_gone
    }

    /// The tunnels, which do not go back by themselves any more.
    #[must_use = "a tunnel that is dropped is closed"]
    pub fn into_tunnels(mut self) -> Vec<Tunnel> {
        mem::take(&mut self.tunnels)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.home.put_back(mem::take(&mut self.tunnels), false);
    }
}

impl Workers {
    /// Takes tunnels out of one worker, whole, up to `most` and up to [`MOST_TAKEN`]; the next call asks the next worker.
    /// None at all: no worker had one that can be taken.
    ///
    /// What stays is a tunnel whose last bytes are on their way, and one that was [put back](Workers::put_back) to stay.
    /// A worker looks for them in pieces of its rounds, so that its other tunnels do not wait. Where the future is dropped
    /// none is lost.
    pub async fn take(&self, most: usize) -> Taken {
        let most = most.clamp(1, MOST_TAKEN);
        let doors = &self.shared.doors;
        let mut is_worker_gone = false;
        for _ in doors {
            let number = self.shared.next.fetch_add(1, Ordering::Relaxed) % doors.len();
            let Some(door) = doors.get(number) else { continue };
            loop {
                let (answer, taken) = oneshot::channel();
                // A thread that is gone has no tunnels, and drops the channel.
                drop(door.send(Order::Take(Request { most, answer, home: self.clone() })));
                let Ok(mut taken) = taken.await else {
                    is_worker_gone = true;
                    break;
                };
                if !taken.tunnels.is_empty() {
                    taken.is_worker_gone = is_worker_gone;
                    return taken;
                }
                if !taken.has_more {
                    break;
                }
            }
        }
        let mut none = Taken::new(Vec::new(), Duration::ZERO, false, self.clone());
        none.is_worker_gone = is_worker_gone;
        none
    }

    /// Puts tunnels back that were taken out. They go on with the times that they have. With `stays` they are not taken
    /// again by [`Workers::take`]: another process has refused them.
    pub fn put_back(&self, tunnels: Vec<Tunnel>, stays: bool) {
        for tunnel in tunnels {
            self.adopt_one(tunnel, stays);
        }
    }

    /// Takes in tunnels that came from another process, which had stopped with them at `frozen_at` by
    /// `CLOCK_MONOTONIC`. They are spread over the workers, and each is read from and written to at once.
    ///
    /// The result, which need not be waited for, is how long the pause of each was, from `frozen_at` to its first read
    /// here, in microseconds and in no order. One that cannot be registered ends (see [`Workers::adopt`]) and has none.
    /// None at all: a worker that should have gone on with some has died.
    pub fn resume(
        &self,
        tunnels: Vec<Tunnel>,
        frozen_at: Duration,
    ) -> impl Future<Output = Option<Vec<u32>>> + Send + use<> {
        let doors = &self.shared.doors;
        // Each worker tells once.
        let (pauses, mut told) = mpsc::channel(doors.len().max(1));
        let mut parts: Vec<_> = doors.iter().map(|door| (door, Vec::new())).collect();
        let mut untold = 0_usize;
        for tunnel in tunnels {
            let fewest = self.fewest().and_then(|fewest| {
                fewest.open.fetch_add(1, Ordering::Relaxed);
                parts.iter_mut().find(|(door, _)| Arc::ptr_eq(door, fewest))
            });
            if let Some((_, part)) = fewest {
                part.push(tunnel);
            } else {
                untold += 1;
                (self.shared.on_end)(tunnel, STOPPED, None);
            }
        }
        for (door, tunnels) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
            untold += 1;
            let batch = Batch { tunnels, frozen_at, pauses: pauses.clone() };
            if let Some(Order::Resume(batch)) = door.send(Order::Resume(batch)) {
                for tunnel in batch.tunnels {
                    door.open.fetch_sub(1, Ordering::Relaxed);
                    (self.shared.on_end)(tunnel, STOPPED, None);
                }
            }
        }
        drop(pauses);
        async move {
            let mut all = Vec::new();
            while let Some(part) = told.recv().await {
                untold -= 1;
                all.extend(part);
            }
            (untold == 0).then_some(all)
        }
    }

    /// Accepts no connection any more, until `listen` is called again. The workers' listener is closed; those
    /// who have connected and not been accepted wait for whoever has a copy of it.
    pub fn stop_listening(&self) {
        if let Some(door) = self.shared.doors.first() {
            // A thread that is gone does not listen.
            drop(door.send(Order::StopListening));
        }
    }
}

#[cfg(test)]
mod tests;
