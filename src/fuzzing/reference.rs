//! A second reader of WebSocket streams, to hold the scanner and the tunnels against.
//!
//! Written from RFC 6455 alone and as plainly as it can be: it has the whole stream at once, keeps no
//! state and knows nothing of reads. It tells a fault where the first byte is that shows it.

use crate::peer::Peer;

/// What is asked of the frames beside RFC 6455: bytes of payload at most, per data frame and per message;
/// and whether a stream is read on behind a frame that breaks a rule, by what that says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameLimits {
    pub(crate) frame: Option<u64>,
    pub(crate) message: Option<u64>,
    pub(crate) is_strict: bool,
    /// A Ping of ours has no Pong yet: what may become one is held.
    pub(crate) awaits_pong: bool,
}

/// A frame whose head is whole.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each may hold with any other.
pub(crate) struct Frame<'b> {
    /// Where its head begins.
    pub(crate) start: usize,
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) length: u64,
    /// It breaks a rule.
    pub(crate) is_wrong: bool,
    /// Its head is as long as that of a right control frame, no longer.
    pub(crate) is_short: bool,
    /// Its length stands in its second byte.
    has_short_length: bool,
    mask: [u8; 4],
    /// As much of it as came.
    pub(crate) payload: &'b [u8],
}

/// What is behind the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or the beginning of a head, or of a frame that is to be held until more of it came.
    More,
    /// A frame that breaks a rule; where streams are read on, one whose length cannot be.
    Fault,
    /// A frame above a limit.
    OverLimit,
}

/// A stream, read.
#[derive(Clone, Debug)]
pub(crate) struct Reading<'b> {
    pub(crate) frames: Vec<Frame<'b>>,
    /// Where the last frame ends, as far as it came.
    pub(crate) tail_at: usize,
    pub(crate) tail: Tail,
    /// A message is unfinished.
    pub(crate) in_message: bool,
}

pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

impl Frame<'_> {
    pub(crate) fn is_of_message(self) -> bool {
        self.opcode < 3
    }

    pub(crate) fn is_whole(self) -> bool {
        self.payload.len() as u64 == self.length
    }

    pub(crate) fn end(self, stream: &[u8]) -> usize {
        let start = self.payload.as_ptr() as usize - stream.as_ptr() as usize;
        start + self.payload.len()
    }

    /// It is as long as a Pong to a Ping of ours.
    pub(crate) fn may_answer_us(self) -> bool {
        self.opcode == PONG && self.length == 8 && self.has_short_length && self.is_whole()
    }

    /// The payload without its mask.
    pub(crate) fn unmasked(self) -> Vec<u8> {
        self.payload.iter().zip(self.mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }
}

impl Reading<'_> {
    /// Where what is held back begins, in the stream that was read.
    pub(crate) fn held_at(&self, stream: &[u8], limits: FrameLimits) -> usize {
        let tail = &stream[self.tail_at..];
        let may_be_refused = limits.is_strict || limits.frame.or(limits.message).is_some();
        if may_be_refused || (limits.awaits_pong && may_begin_our_pong(tail)) {
            self.tail_at
        } else {
            stream.len()
        }
    }
}

pub(crate) fn may_begin_our_pong(bytes: &[u8]) -> bool {
    match bytes {
        [] => false,
        [first] => first & 0x0f == PONG,
        [first, second, ..] => first & 0x0f == PONG && second & 0x7f == 8,
    }
}

/// Codes that may stand in a Close (RFC 6455, section 7.4).
fn is_code(code: u16) -> bool {
    let never = [1004, 1005, 1006, 1015];
    (1000..3000).contains(&code) && code < 1016 && !never.contains(&code)
        || (3000..5000).contains(&code)
}

/// Reads what `sender` sent so far.
#[allow(clippy::too_many_lines)] // A frame, from its first byte to its last.
pub(crate) fn read(stream: &[u8], sender: Peer, limits: FrameLimits) -> Reading<'_> {
    let mut reading =
        Reading { frames: Vec::new(), tail_at: 0, tail: Tail::More, in_message: false };
    let (mut message, mut is_closed) = (0_u64, false);
    while let Some(first) = stream.get(reading.tail_at) {
        let start = reading.tail_at;
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let mut is_wrong = match opcode {
            0..3 if is_closed => true,
            0 => !reading.in_message,
            1 | 2 => reading.in_message,
            CLOSE | PING | PONG => !fin,
            _ => true,
        };
        if is_wrong && limits.is_strict {
            reading.tail = Tail::Fault;
            break;
        }
        let Some(second) = stream.get(start + 1) else {
            break;
        };
        let is_masked = second & 0x80 != 0;
        let short = second & 0x7f;
        is_wrong |= is_masked != (sender == Peer::Client) || (opcode >= 8 && short > 125);
        if is_wrong && limits.is_strict {
            reading.tail = Tail::Fault;
            break;
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let key_at = start + 2 + length_bytes;
        if short == 127 && stream.get(start + 2).is_some_and(|top| top & 0x80 != 0) {
            reading.tail = Tail::Fault;
            break;
        }
        let Some(length) = stream.get(start + 2..key_at) else {
            break;
        };
        let length = match short {
            126 | 127 => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            _ => u64::from(short),
        };
        is_wrong |= (short == 126 && length < 126) || (short == 127 && length < 65_536);
        if is_wrong && limits.is_strict {
            reading.tail = Tail::Fault;
            break;
        }
        let payload_at = key_at + if is_masked { 4 } else { 0 };
        let Some(key) = stream.get(key_at..payload_at) else {
            break;
        };
        let is_data = opcode < 8;
        if ((is_data || length > 125) && limits.frame.is_some_and(|limit| length > limit))
            || (is_data
                && limits.message.is_some_and(|limit| message.saturating_add(length) > limit))
        {
            reading.tail = Tail::OverLimit;
            break;
        }
        let is_short = payload_at - start <= 6;
        let came = stream.len() - payload_at;
        let payload = &stream[payload_at..payload_at + length.min(came as u64) as usize];
        let mask: [u8; 4] = key.try_into().unwrap_or_default();
        // Nobody can say yet whose answer it is, or what the code is.
        let has_code = opcode == CLOSE && length >= 2 && is_short;
        if (opcode == PONG && short == 8 && limits.awaits_pong && came < 8)
            || (has_code && came < 2)
        {
            break;
        }
        if opcode == CLOSE {
            let byte = |at: usize| u16::from(payload[at] ^ mask[at]);
            is_wrong |= length == 1 || (has_code && !is_code(byte(0) << 8 | byte(1)));
            if is_wrong && limits.is_strict {
                reading.tail = Tail::Fault;
                break;
            }
        }
        let has_short_length = short < 126;
        let frame = Frame {
            start,
            fin,
            opcode,
            length,
            is_wrong,
            is_short,
            has_short_length,
            mask,
            payload,
        };
        reading.frames.push(frame);
        reading.tail_at = payload_at + payload.len();
        if opcode < 3 {
            reading.in_message = !fin;
            message = if fin { 0 } else { message.saturating_add(length) };
        }
        is_closed |= opcode == CLOSE;
        if came as u64 <= length {
            break;
        }
    }
    reading
}
