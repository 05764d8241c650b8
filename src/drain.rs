//! The way to zero: what stage it has reached, and what is still open.
//!
//! ```text
//! Serving ──Stop──▶ Leaving ──DRAIN_DELAY──▶ Finishing ──nothing open, or DRAIN_PERIOD──▶ Over
//!                      └───────────── a second Stop ─────────────┴──────────────────────▶ Over
//!
//! Serving ◀──it failed── or ──a new process listens──▶ Yielding
//! ```
//!
//! Control moves the stage and tells the workers; everything that must be waited for is counted by a [`Census`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How far the drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No drain.
    Serving,
    /// A handoff: a new process has the listeners. What is under way may finish, and health checks that come on
    /// connections that are still here succeed, for they are about both processes.
    Yielding,
    /// Health checks fail, so that the balancer looks elsewhere; everything is still served.
    Leaving,
    /// Listeners are closed; what is under way may finish.
    Finishing,
    /// What is left is cut.
    Over,
}

impl Stage {
    /// Whether listeners are closed and what is under way is being ended.
    pub(crate) const fn is_finishing(self) -> bool {
        matches!(self, Self::Yielding | Self::Finishing | Self::Over)
    }

    /// Whether health checks succeed.
    pub(crate) const fn is_healthy(self) -> bool {
        matches!(self, Self::Serving | Self::Yielding)
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
    /// Counts one in.
    pub(crate) fn enter(&self) {
        self.0.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one out.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn census_is_empty_when_the_last_one_leaves() {
        let census = Census::default();
        census.enter();
        census.enter();
        census.leave();
        assert_eq!(census.open(), 1);
        let waiting = census.clone();
        let empty = tokio::spawn(async move { waiting.empty().await });
        assert!(!empty.is_finished());
        census.leave();
        tokio::time::timeout(Duration::from_secs(5), empty).await.expect("it ends").unwrap();
    }
}
