//! Warnings that would come a thousand times a second: each cause is told at once, and then every ten seconds at most,
//! with how many came since.

use std::time::{Duration, Instant};

/// How often one cause is told.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// One cause of warnings. Pure: the time comes in as an argument.
#[derive(Debug, Default)]
pub(crate) struct Recurring {
    /// When the last line was written.
    told_at: Option<Instant>,
    /// How many came since that line.
    untold: u64,
    /// A line was written, and none yet that it is over.
    is_open: bool,
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many came since the line before, or 1.
    pub(crate) number: u64,
    /// How long ago that line was; `None` if this is the first of them.
    pub(crate) over: Option<Duration>,
}

impl Recurring {
    /// Counts one. `Some` where it is time for a line.
    pub(crate) fn count(&mut self, now: Instant) -> Option<Tally> {
        self.untold = self.untold.saturating_add(1);
        self.rest(now)
    }

    /// What is to be told of those that came since the last line, if it is time for that.
    pub(crate) fn rest(&mut self, now: Instant) -> Option<Tally> {
        let over = self.told_at.map(|at| now.saturating_duration_since(at));
        if self.untold == 0 || over.is_some_and(|over| over < EVERY) {
            return None;
        }
        self.told_at = Some(now);
        self.is_open = true;
        Some(Tally { number: std::mem::take(&mut self.untold), over })
    }

    /// It is over. `Some` where that is worth a line, with how many came that no line has told: what comes and goes
    /// often is told to be over as often as it is told.
    pub(crate) fn over(&mut self) -> Option<u64> {
        std::mem::take(&mut self.is_open).then(|| std::mem::take(&mut self.untold))
    }
}
