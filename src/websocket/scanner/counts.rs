//! What passed in one direction, as numbers.

use super::{Position, Scanner};
use crate::metrics::traffic::Passed;

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Text and binary messages that passed in full.
    pub(crate) messages: u64,
    /// Bytes of their payload, and of that of unfinished ones, as on the wire.
    pub(crate) payload: u64,
    /// Data frames: the last ones of messages when they passed in full, others from their heads on.
    pub(crate) data_frames: u64,
    /// Pings; wraps around.
    pub(crate) pings: u32,
    /// Pongs, without those to our Pings; wraps around.
    pub(crate) pongs: u32,
}

impl Scanner {
    /// What passed so far.
    pub(crate) fn counts(&self) -> Counts {
        // Counted at the head, so what is still to come goes off again.
        let (left, is_unfinished) = match self.position {
            Position::Payload { left, is_control: false } => (left, !self.is_in_message),
            _ => (0, false),
        };
        let messages = self.messages.wrapping_sub(is_unfinished.into());
        Counts {
            messages,
            payload: self.payload.wrapping_sub(left),
            data_frames: messages.wrapping_add(self.fragments.into()),
            pings: self.pings,
            pongs: self.pongs,
        }
    }

    /// What a sum over tunnels is made of. No number of it ever gets smaller.
    pub(crate) fn passed(&self) -> Passed {
        let left = match self.position {
            Position::Payload { left, is_control: false } => left,
            _ => 0,
        };
        Passed {
            messages: self.messages,
            sizes: self.payload.wrapping_sub(self.message),
            payload: self.payload.wrapping_sub(left),
        }
    }
}
