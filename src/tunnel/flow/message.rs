//! The common case: one small message, or bytes without frames, in one read and one write.
//!
//! It is a shortcut of [`pass`](super::pass()), to be inlined where the poll's events are served, and does nothing
//! that `pass` would do otherwise.

use std::io::{self, Read};

use super::ends::{EndWrite, Readiness, Stop};
use super::pass::{LARGE_PAYLOAD, behind_room, write_or_wait};
use super::{Flow, Passage, Sink, Source};
use crate::websocket::scanner::Rules;

/// How far a message was followed that turned out to be another case: [`pass`](super::pass()) goes on from here.
pub(crate) enum Begun {
    /// This is what the first read gave. Its bytes are in the buffer, and nothing was done with them.
    Read(io::Result<usize>),
    /// The message could not be written.
    Stopped(Stop),
}

impl Flow {
    /// There is nothing to do for it, whatever its sink is ready for.
    #[inline(always)]
    #[allow(clippy::inline_always)] // Each message passes here.
    pub(crate) fn is_quiet(&self, from: Readiness) -> bool {
        !from.readable
            && self.waiting.is_empty()
            && self.passage == Passage::Open
            && self.source == Source::Open
    }

    /// What comes next may be one small message, and nothing else is to be done for it.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub(crate) fn may_pass_message(&self, from: Readiness, to: Readiness) -> bool {
        from.readable
            && !from.read_on
            && !from.is_dense
            && to.writable
            && self.passage == Passage::Open
            && self.waiting.is_empty()
            && self.source == Source::Open
            && self.sink == Sink::Open
            && !self.is_bulk
            && (self.scanner.payload_left() < LARGE_PAYLOAD || !self.scanner.is_on())
    }

    /// Reads once, and writes it where it is one small message, or bytes without frames: then the source is drained, and
    /// what the sink did not take waits. To be called where [`Self::may_pass_message`].
    ///
    /// # Errors
    /// It is another case.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub(crate) fn pass_message(
        &mut self,
        mut source: impl Read,
        from: &mut Readiness,
        mut sink: impl EndWrite,
        to: &mut Readiness,
        buffer: &mut [u8],
        rules: &Rules,
    ) -> Result<(), Begun> {
        let room = behind_room(buffer);
        let read = source.read(room);
        if let Ok(taken @ 1..) = read
            && let Some(bytes) = room.get(..taken)
            && taken < room.len()
            && (self.scanner.is_one_message(bytes, rules) || !self.scanner.is_on())
        {
            from.readable = false;
            return write_or_wait(self, &mut sink, bytes, to).map_err(Begun::Stopped);
        }
        Err(Begun::Read(read))
    }
}
