//! What a scan is asked for, and what it says.

use super::rules::Limit;
use crate::metrics::worker::{LARGE_SIZES, large_range};
use crate::websocket::frame::Fault;

/// What a scan met on its way, for the caller to add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Frames, but for small messages that break no rule: what a scan costs beside them.
    pub(crate) frames: u32,
    /// Rules that were broken by frames that pass all the same, by [`Fault::index`].
    pub(crate) faults: [u32; Fault::COUNT],
    /// Messages whose last frame begins here, by [`large_range`]; those of the first range are not counted.
    pub(crate) large_messages: [u32; LARGE_SIZES],
}

/// How a scan went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Scan {
    /// How many bytes, from the first, may pass. The first ones may have passed before: see
    /// [`Scanner::passed_of_head`].
    pub(crate) pass: usize,
    /// What is behind them.
    pub(crate) then: Then,
}

/// Where a scan stops on its way, for something of ours to be put in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// It goes on to the end.
    End,
    /// Behind the next frame.
    Boundary,
    /// Behind the next frame that leaves no message unfinished.
    MessageEnd,
    /// Behind the Close.
    Close,
}

/// What is behind the bytes that a scan lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing, or what is kept until more bytes come.
    More,
    /// The place that was asked for. The rest of the bytes is to be scanned.
    Reached,
    /// A Pong of `length` bytes that answers a Ping of ours. It is not to be passed on; scan what is
    /// behind it.
    OwnPong { length: u8 },
    /// The rest of the bytes, to be scanned, too: the last ones that pass are the sender's first
    /// Close, as far as it came.
    Closed,
    /// A frame that exceeds a limit. No byte of it may be passed on, and no more be scanned.
    OverLimit(Limit),
    /// A frame that breaks a rule, where that is refused: no byte of it may be passed on, and no more be
    /// scanned. Where it is not, the frame passes and is followed by what it says of itself, and the
    /// [`Tally`] has it. Behind a length that cannot be, all passes as it comes.
    Fault(Fault),
}

impl Tally {
    /// Counts a frame, and the rule that it breaks.
    pub(super) fn count(&mut self, fault: Option<Fault>) {
        self.frames += 1;
        if let Some(count) = fault.and_then(|fault| self.faults.get_mut(fault.index())) {
            *count += 1;
        }
    }

    /// Counts a message of so many bytes.
    pub(super) fn count_message(&mut self, size: u64) {
        let range = large_range(size).and_then(|range| self.large_messages.get_mut(range));
        if let Some(count) = range {
            *count += 1;
        }
    }
}
