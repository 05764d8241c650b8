//! The way to zero: what stage it has reached, and what is still open.
//!
//! ```text
//! Serving ──Stop──▶ Leaving ──DRAIN_DELAY──▶ Finishing ──nothing open, or DRAIN_PERIOD──▶ Over
//!                      └───────────── a second Stop ─────────────┴──────────────────────▶ Over
//! ```
//!
//! Everybody who has to act on a stage holds a [`Drain`]; everything that must be waited for holds
//! an [`Open`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// How far the drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// No drain.
    Serving,
    /// Health checks fail, so that the balancer looks elsewhere; everything is still served.
    Leaving,
    /// Listeners are closed; what is under way may finish.
    Finishing,
    /// What is left is cut.
    Over,
}

/// A view of the stage. Clones see the same stage.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    stage: watch::Receiver<Stage>,
}

impl Drain {
    /// The view, and the one handle that moves it.
    pub(crate) fn new() -> (watch::Sender<Stage>, Self) {
        let (sender, stage) = watch::channel(Stage::Serving);
        (sender, Self { stage })
    }

    /// Whether health checks should say that this process takes new connections.
    pub(crate) fn is_healthy(&self) -> bool {
        *self.stage.borrow() == Stage::Serving
    }

    /// Whether listeners are closed and what is under way is being ended.
    pub(crate) fn is_finishing(&self) -> bool {
        *self.stage.borrow() >= Stage::Finishing
    }

    /// Waits until `stage` is reached.
    pub(crate) async fn reached(&mut self, stage: Stage) {
        // An error means that the drain's owner is gone: the process is over.
        let _ = self.stage.wait_for(|now| *now >= stage).await;
    }
}

/// Counts what is open, connections and tunnels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    open: AtomicUsize,
    zero: Notify,
}

impl Census {
    /// Counts one in, until the value is dropped or [left](Census::leave).
    pub(crate) fn enter(&self) -> Open {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open(Some(self.clone()))
    }

    /// Counts one out whose [`Open`] was [kept](Open::keep).
    pub(crate) fn leave(&self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.zero.notify_waiters();
        }
    }

    /// How many are open now.
    pub(crate) fn open(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until nothing is open.
    pub(crate) async fn empty(&self) {
        loop {
            // Registered before the look, so that a leave in between is not missed.
            let zero = self.0.zero.notified();
            if self.open() == 0 {
                return;
            }
            zero.await;
        }
    }
}

/// One open thing.
#[derive(Debug)]
pub(crate) struct Open(Option<Census>);

impl Open {
    /// Gives up the value without counting it out: somebody else will call [`Census::leave`].
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(census) = &self.0 {
            census.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn census_is_empty_when_the_last_one_leaves() {
        let census = Census::default();
        let first = census.enter();
        census.enter().keep();
        drop(first);
        assert_eq!(census.open(), 1);
        let waiting = census.clone();
        let empty = tokio::spawn(async move { waiting.empty().await });
        assert!(!empty.is_finished());
        census.leave();
        tokio::time::timeout(Duration::from_secs(5), empty).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn drain_only_moves_on() {
        let (stage, mut drain) = Drain::new();
        assert!(drain.is_healthy());
        stage.send_replace(Stage::Finishing);
        assert!(!drain.is_healthy());
        drain.reached(Stage::Leaving).await;
        drain.reached(Stage::Finishing).await;
    }
}
