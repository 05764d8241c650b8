//! How long the rounds of a worker take: what a message waits for at most, since its turn is in the next one.
//!
//! The clock is asked when a round begins. To ask it at the end of each as well would cost what a tenth of a message
//! costs, so that only some are timed, and none where nobody asks: the first one of each tick, and each that did more
//! than pass messages on, which are those that may take long. Connections ask the clock after their turns anyway.

use std::time::{Duration, Instant};

use super::Worker;
use crate::clock::Now;
use crate::metrics::families::ROUND_TIMES;
use crate::workers::origin::{elapsed, start};

/// What is known of this round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Its end is to be told.
    is_timed: bool,
    /// When connections had had their turns, where nothing that may take long came behind them.
    turns_ended: Option<Duration>,
}

impl Rounds {
    /// It does something that may take long.
    pub(super) const fn goes_on(&mut self) {
        self.is_timed = true;
        self.turns_ended = None;
    }
}

impl Worker {
    pub(super) fn begin_round(&mut self) {
        self.woken_at = elapsed();
        let now = Now::at(self.woken_at);
        self.rounds.is_timed = now.tick != self.now.tick;
        self.now = now;
    }

    /// Connections have had their turns.
    pub(super) fn end_turns(&mut self, at: Instant) {
        self.rounds.is_timed = true;
        self.rounds.turns_ended = Some(at.saturating_duration_since(start()));
    }

    pub(super) fn end_round(&mut self) {
        if self.rounds.is_timed {
            self.tell_round();
        }
    }

    #[cold]
    fn tell_round(&mut self) {
        let turns_ended = self.rounds.turns_ended.take();
        if self.rulebooks.default().times_rounds {
            let end = turns_ended.unwrap_or_else(elapsed);
            let time = end.saturating_sub(self.woken_at);
            self.rulebooks.default().metrics.round_times.observe_time(time, &ROUND_TIMES);
        }
    }
}
