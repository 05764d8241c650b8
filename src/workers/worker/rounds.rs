//! How long the rounds of a worker take: what a message waits for at most, since its turn is in the next one.
//!
//! The clock is asked when a round begins. To ask it at the end of each as well would cost what a tenth of a message
//! costs, so that only some are timed: the first one of each tick, and each that did more than pass messages on, which
//! are those that may take long.

use super::Worker;
use crate::clock::Now;
use crate::metrics::families::ROUND_TIMES;
use crate::workers::origin::elapsed;

#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The end of this round is told.
    pub(super) is_timed: bool,
}

impl Worker {
    pub(super) fn begin_round(&mut self) {
        self.woken_at = elapsed();
        let now = Now::at(self.woken_at);
        self.rounds.is_timed = now.tick != self.now.tick;
        self.now = now;
    }

    pub(super) fn end_round(&self) {
        if self.rounds.is_timed {
            self.tell_round();
        }
    }

    #[cold]
    fn tell_round(&self) {
        let time = elapsed().saturating_sub(self.woken_at);
        self.rulebook.metrics.round_times.observe_time(time, &ROUND_TIMES);
    }
}
