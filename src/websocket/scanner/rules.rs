//! What is asked of frames: their limits, and whether one that breaks a rule is refused.

use crate::websocket::frame::{Head, MAX_CONTROL_PAYLOAD};

/// What is asked of the frames, beside that they can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    max_frame: u64,
    max_message: u64,
    /// A frame that breaks a rule is refused.
    pub(super) is_strict: bool,
    /// A frame may be refused: no byte of its head passes before that is decided.
    pub(super) holds_heads: bool,
    /// The smaller one of the two limits: the one that a message in one frame meets first.
    pub(super) max_whole: u64,
}

/// Which limit a frame exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `MAX_FRAME_SIZE`.
    Frame,
    /// `MAX_MESSAGE_SIZE`.
    Message,
}

impl Rules {
    /// Limits in bytes of payload, per data frame and per message over its frames, as on the wire;
    /// `None` is no limit. With `is_strict` a frame that breaks a rule is not passed on.
    pub(crate) fn new(max_frame: Option<u64>, max_message: Option<u64>, is_strict: bool) -> Self {
        let max_frame = max_frame.unwrap_or(u64::MAX);
        let max_message = max_message.unwrap_or(u64::MAX);
        let max_whole = max_frame.min(max_message);
        let holds_heads = is_strict || max_whole < u64::MAX;
        Self { max_frame, max_message, is_strict, holds_heads, max_whole }
    }

    /// Whether a frame keeps the limits where `message` bytes of its message have come. Control frames have
    /// a limit of their own; one that breaks it is no better than a data frame.
    pub(super) const fn check(&self, head: &Head, message: u64) -> Result<(), Limit> {
        if head.opcode.is_control() && head.length <= MAX_CONTROL_PAYLOAD {
            return Ok(());
        }
        if head.length > self.max_frame {
            return Err(Limit::Frame);
        }
        if !head.opcode.is_control() && message.saturating_add(head.length) > self.max_message {
            return Err(Limit::Message);
        }
        Ok(())
    }
}
