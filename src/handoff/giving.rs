//! Giving tunnels to the other process, batch by batch.
//!
//! ```text
//!            collected           TAKEN
//! Collecting ─────────▶ Sent ────────────▶ given: YOURS, but for those that were refused
//!     │ nothing left      │ no TAKEN in time, or ABORT
//!     ▼                   ▼
//!   no batch           put back
//! ```
//!
//! What cannot be sent, since the kernel has no room for it, is put back, too: it goes on here, and is collected again a
//! little later.
//!
//! The first batch is one tunnel and the second sixteen. Then the other process is watched for a while: if it dies of
//! them, as few are lost. Two of the others can be on their way at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::message::{MOST_IN_BATCH, Taken};
use super::{ANSWER, Action};

/// Tunnels in the second batch.
const SECOND: usize = 16;

/// How long the other process is watched after that.
const WATCH: Duration = Duration::from_millis(500);

/// Batches that can be on their way at once.
const WINDOW: usize = 2;

/// How long a batch that could not be sent goes on here before the next is tried.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Giving {
    pace: Pace,
    next: u32,
    batches: VecDeque<Batch>,
    /// There may be tunnels that were not collected.
    has_more: bool,
    /// Nothing is collected before this, since a batch could not be sent.
    rests_until: Option<Instant>,
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    First,
    Second,
    Watch { until: Instant },
    Full,
}

#[derive(Debug)]
struct Batch {
    number: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Collecting,
    Sent { tunnels: usize, until: Instant },
}

/// The other process said what it cannot say now.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Giving {
    /// To a process that has to prove itself.
    pub(crate) const fn carefully() -> Self {
        Self::new(Pace::First)
    }

    /// To a process that had them before.
    pub(crate) const fn at_once() -> Self {
        Self::new(Pace::Full)
    }

    const fn new(pace: Pace) -> Self {
        let batches = VecDeque::new();
        Self { pace, next: 0, batches, has_more: true, rests_until: None, is_over: false }
    }

    /// All that there was is given, and answered for.
    pub(crate) fn is_done(&self) -> bool {
        !self.has_more && self.batches.is_empty()
    }

    /// There are tunnels again.
    pub(crate) const fn come_late(&mut self) {
        self.has_more = true;
    }

    /// Begins the batches that can be begun.
    pub(crate) fn go_on(&mut self, now: Instant, actions: &mut VecDeque<Action>) {
        if let Pace::Watch { until } = self.pace
            && until <= now
        {
            self.pace = Pace::Full;
        }
        if self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.rests_until = None;
        let (most, window) = match self.pace {
            Pace::First => (1, 1),
            Pace::Second => (SECOND, 1),
            Pace::Watch { .. } => return,
            Pace::Full => (MOST_IN_BATCH, WINDOW),
        };
        while self.has_more && !self.is_over && self.batches.len() < window {
            let number = self.next;
            self.next = self.next.saturating_add(1);
            self.batches.push_back(Batch { number, state: State::Collecting });
            actions.push_back(Action::Collect { number, most });
        }
    }

    /// So many tunnels were taken out as this batch; whether there are more.
    pub(crate) fn collected(
        &mut self,
        number: u32,
        tunnels: usize,
        has_more: bool,
        now: Instant,
        actions: &mut VecDeque<Action>,
    ) {
        if self.is_over {
            return actions.push_back(Action::PutBack { number });
        }
        self.has_more = has_more;
        if tunnels == 0 {
            self.batches.retain(|batch| batch.number != number);
        } else if let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) {
            batch.state = State::Sent { tunnels, until: now + ANSWER };
            actions.push_back(Action::SendBatch { number });
        }
    }

    /// There is no room in the kernel for the batch: its tunnels go on here for a while.
    pub(crate) fn not_sent(&mut self, number: u32, now: Instant, actions: &mut VecDeque<Action>) {
        actions.push_back(Action::PutBack { number });
        if !self.is_over {
            self.batches.retain(|batch| batch.number != number);
            self.has_more = true;
            self.rests_until = Some(now + AGAIN);
        }
    }

    /// TAKEN came.
    pub(crate) fn taken(
        &mut self,
        Taken { number, refused }: Taken,
        now: Instant,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Malformed> {
        // In the order in which they went.
        let Some(Batch { number: first, state: State::Sent { tunnels, .. } }) =
            self.batches.front()
        else {
            return Err(Malformed);
        };
        let is_sound = refused.iter().all(|place| usize::from(*place) < *tunnels)
            && refused.is_sorted_by(|one, next| one < next);
        if *first != number || !is_sound {
            return Err(Malformed);
        }
        self.batches.pop_front();
        actions.push_back(Action::Give { number, refused });
        self.pace = match self.pace {
            Pace::First => Pace::Second,
            Pace::Second => Pace::Watch { until: now + WATCH },
            pace => pace,
        };
        Ok(())
    }

    /// Takes back what was not given, for good.
    pub(crate) fn abandon(&mut self, actions: &mut VecDeque<Action>) {
        self.is_over = true;
        self.has_more = false;
        for Batch { number, state } in self.batches.drain(..) {
            // One that is being collected is put back when it is.
            if matches!(state, State::Sent { .. }) {
                actions.push_back(Action::PutBack { number });
            }
        }
    }

    /// When to call [`Giving::is_late`] and [`Giving::go_on`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let watch = match self.pace {
            Pace::Watch { until } if self.has_more => Some(until),
            _ => None,
        };
        self.answer_until().into_iter().chain(watch).chain(self.rests_until).min()
    }

    /// The other process did not answer in time.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.answer_until().is_some_and(|until| until <= now)
    }

    fn answer_until(&self) -> Option<Instant> {
        let until = |batch: &Batch| match batch.state {
            State::Sent { until, .. } => Some(until),
            State::Collecting => None,
        };
        self.batches.iter().filter_map(until).min()
    }
}
