//! Explains each byte that came out of a tunnel by what was sent into it, frame by frame.

#![allow(clippy::indexing_slicing, clippy::panic)]

use crate::fuzzing::reference::{self, CLOSE, Frame, FrameLimits, Reading, Tail};
use crate::tunnel::Peer;

/// A walk over what came out, and over what was sent, side by side.
pub(super) struct Explained<'g> {
    pub(super) got: &'g [u8],
    pub(super) at: usize,
    pub(super) sent: &'g [u8],
    pub(super) sender: Peer,
    /// Bytes of ours so far.
    pub(super) own: usize,
    /// Bytes of a last frame that is the sender's next one, and as a Close of ours would be: either may have
    /// gone out.
    pub(super) either: usize,
    /// A Close went out, the sender's or ours.
    pub(super) is_closed: bool,
    /// Payloads of our pings that the sender got, whose answers have not been met.
    pub(super) answers: Vec<Vec<u8>>,
}

impl Explained<'_> {
    /// Where in what was sent it ends.
    pub(super) fn walk(&mut self, reading: &Reading<'_>, is_strict: bool) -> usize {
        for frame in &reading.frames {
            let end = frame.end(self.sent);
            let bytes = &self.sent[frame.start..end];
            let is_answer = frame.may_answer_us();
            let answered =
                self.answers.iter().position(|ping| is_answer && *ping == frame.unmasked());
            if let Some(answered) = answered {
                // It is cut out. The same bytes once more would pass.
                self.answers.remove(answered);
                continue;
            }
            // Nothing stands behind a frame that is not whole.
            self.skip_own(bytes, !frame.is_whole());
            let came = bytes.len().min(self.got.len() - self.at);
            assert_eq!(
                self.got[self.at..][..came],
                bytes[..came],
                "in the frame at {}",
                frame.start
            );
            self.at += came;
            if came < bytes.len() {
                return frame.start + came;
            }
            self.is_closed |= frame.opcode == CLOSE;
            self.either = 0;
            if frame.opcode == CLOSE && self.at == self.got.len() && is_code_of_ours(frame) {
                self.either = bytes.len();
            }
            if !frame.is_whole() {
                self.is_all();
                return end;
            }
        }
        let tail = &self.sent[reading.tail_at..];
        let passes = match reading.tail {
            Tail::More => true,
            Tail::Fault => !is_strict,
            Tail::OverLimit => false,
        };
        self.skip_own(if passes { tail } else { &[] }, true);
        if passes {
            let came = tail.len().min(self.got.len() - self.at);
            assert_eq!(self.got[self.at..][..came], tail[..came], "behind the frames");
            self.at += came;
            self.is_all();
            return reading.tail_at + came;
        }
        self.is_all();
        reading.tail_at
    }

    fn is_all(&self) {
        let rest = &self.got[self.at..];
        assert!(rest.is_empty(), "nobody sent {}", rest.escape_ascii());
    }

    /// Goes over frames of ours, here where one may stand, unless what comes next is the sender's.
    fn skip_own(&mut self, next: &[u8], is_last: bool) {
        loop {
            let rest = &self.got[self.at..];
            // So few bytes may begin either. The last ones are all that the sender's can be.
            let is_senders = next.starts_with(rest) || (!is_last && rest.starts_with(next));
            if is_senders {
                return;
            }
            let Some((length, is_close)) = self.own_frame(rest) else {
                return;
            };
            assert!(!self.is_closed, "a frame of ours is behind a Close");
            self.is_closed |= is_close;
            self.at += length;
            self.own += length;
            if is_close {
                self.is_all();
            }
        }
    }

    /// The length of the frame of ours that the bytes begin with, as far as it came.
    fn own_frame(&self, bytes: &[u8]) -> Option<(usize, bool)> {
        const MASKED: u8 = 0x80;
        let mask_bit = if self.sender == Peer::Client { MASKED } else { 0 };
        let is_close = match bytes[0] {
            0x88 => true,
            0x89 => false,
            _ => return None,
        };
        let payload = if is_close { 2 } else { 8 };
        if bytes.get(1).is_some_and(|second| *second != mask_bit | payload) {
            return None;
        }
        let whole = 2 + usize::from(mask_bit >> 5) + usize::from(payload);
        if is_close && bytes.len() >= whole {
            let read = reference::read(&bytes[..whole], self.sender, FrameLimits::default());
            assert!(is_code_of_ours(read.frames.first()?), "a Close with another code");
        }
        Some((whole.min(bytes.len()), is_close))
    }
}

/// Whether a Close of ours could have this payload.
fn is_code_of_ours(close: &Frame<'_>) -> bool {
    let code = close.unmasked();
    [1001_u16, 1002, 1009].iter().any(|ours| code == ours.to_be_bytes())
}
