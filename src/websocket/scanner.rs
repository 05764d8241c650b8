//! The scanner: follows WebSocket frames in one direction of a tunnel as the bytes go by.
//!
//! Pure: it gets what was read and says how much of it may be passed on. Payload is skipped, never
//! looked at. The scanner keeps the bytes of an unfinished head until the next read and gives them
//! back to be put in front of that, so that a head is always read as one slice. Where a limit or a rule
//! may refuse the frame, those bytes are held: they pass when the head is whole. Otherwise they have
//! passed already when they are given back, and only what may become the Pong to a Ping of ours is held.
//! A message of up to 125 bytes in one frame and one read is what proxies carry most: it has a
//! path of its own, of 33 instructions. It is as small as it can be: an idle tunnel has two of them.

mod counts;
mod encoding;
mod rules;
mod scan;

use std::num::NonZeroU16;

use super::frame::{self, Fault, Head, MAX_CONTROL_PAYLOAD, MAX_HEAD, Masking, Opcode};
use crate::peer::Peer;

#[cfg(any(test, fuzzing))]
pub(crate) use counts::Counts;
pub(crate) use rules::Rules;
pub(crate) use scan::{Scan, Tally, Then, Until};

/// Bytes that are kept between two reads at most: all but the last of the longest head, or of a
/// masked Pong with eight bytes of payload, or of a masked Close up to its code.
pub(crate) const MAX_KEPT: usize = MAX_HEAD - 1;

/// The longest head of a control frame that breaks no rule.
const LONGEST_CONTROL_HEAD: usize = 2 + 4;

/// Payload of our Pings. Only a Pong of this length can be the answer to one.
const NONCE: usize = 8;

/// The close code of a Close that has none (RFC 6455, section 7.1.5).
const NO_STATUS: NonZeroU16 = NonZeroU16::new(1005).unwrap();

/// Where in its stream a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanner {
    position: Position,
    /// Bytes of payload of the unfinished message, 0 if there is none.
    message: u64,
    /// Final frames of messages.
    messages: u64,
    /// Bytes of payload in data frames, as announced.
    payload: u64,
    /// Data frames that were not the last of their message.
    fragments: u32,
    pings: u32,
    pongs: u32,
    /// The code of the first Close.
    close: Option<NonZeroU16>,
    masking: Masking,
    is_in_message: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// A head is next. `have` bytes of it are kept, the last ones of `kept`, and `passed` of the head have
    /// passed: as many as are kept or were given back, or none.
    Head { have: u8, passed: u8, kept: [u8; MAX_KEPT] },
    /// `left` bytes of payload are next, one at least. A control frame's are not counted, nor are those
    /// of a frame whose opcode is reserved.
    Payload { left: u64, is_control: bool },
    /// There are no frames, or it is not known any more where they begin.
    Lost,
}

impl Scanner {
    /// At the start of the WebSocket stream that `sender` sends.
    pub(crate) const fn new(sender: Peer) -> Self {
        Self {
            position: Position::BOUNDARY,
            message: 0,
            messages: 0,
            payload: 0,
            fragments: 0,
            pings: 0,
            pongs: 0,
            close: None,
            masking: Masking::of(sender),
            is_in_message: false,
        }
    }

    /// For what is no WebSocket: everything passes, and there is never a boundary.
    pub(crate) const fn off() -> Self {
        Self { position: Position::Lost, ..Self::new(Peer::Upstream) }
    }

    /// Whether the bytes that were read may all be passed on: they are one small message, and nothing
    /// is kept. Otherwise nothing happened, and [`Scanner::scan`] is to be asked.
    ///
    /// This is the path of most reads, to be inlined where they are passed on.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub(crate) fn is_one_message(&mut self, read: &[u8], rules: &Rules) -> bool {
        if !self.is_between_messages() {
            return false;
        }
        let Some((end, length)) = self.small_message(read, rules) else {
            return false;
        };
        if end != read.len() {
            return false;
        }
        self.count_message(length);
        true
    }

    /// Follows the frames in `bytes`: what was kept and given back, and the bytes that came since.
    ///
    /// Says what may be passed on, up to the first thing that the caller has to know. If that is not
    /// [`Then::More`], it is to be called again with the bytes behind it, as [`Then`] says. At
    /// [`Then::More`] the bytes behind `pass`, [`MAX_KEPT`] at most, are held: get them with
    /// [`Scanner::give_back`] when more have come, or the stream has ended.
    ///
    /// `own_pong` says whether the payload of a Pong, unmasked, is that of an unanswered Ping of ours. It
    /// is there while there is such a Ping.
    pub(crate) fn scan(
        &mut self,
        bytes: &[u8],
        rules: &Rules,
        until: Until,
        tally: &mut Tally,
        own_pong: Option<impl FnMut([u8; NONCE]) -> bool>,
    ) -> Scan {
        let at = self.pass_small_messages(bytes, 0, rules, until);
        self.follow(bytes, at, rules, until, tally, own_pong)
    }

    /// Goes over small messages that break no rule and begin at `at`, as far as they are whole. Says where that is.
    #[inline]
    fn pass_small_messages(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        rules: &Rules,
        until: Until,
    ) -> usize {
        if matches!(until, Until::End | Until::Close) && self.is_between_messages() {
            let mut rest = bytes.get(at..).unwrap_or_default();
            while let Some((end, length)) = self.small_message(rest, rules)
                && let Some(behind) = rest.get(end..)
            {
                self.count_message(length);
                at += end;
                rest = behind;
            }
        }
        at
    }

    /// Puts the bytes that are kept at the end of `front`, to stand right before the next ones. Says
    /// how many they are; they are not kept any more. Some of them may have passed, see
    /// [`Scanner::passed_of_head`].
    #[inline]
    pub(crate) fn give_back(&mut self, front: &mut [u8; MAX_KEPT]) -> usize {
        let Position::Head { have: have @ 1.., passed, kept } = self.position else {
            return 0;
        };
        *front = kept;
        self.position = Position::Head { have: 0, passed, kept: [0; MAX_KEPT] };
        have.into()
    }

    /// How many bytes of the unfinished head have passed, and so of those that were given back.
    pub(crate) fn passed_of_head(&self) -> usize {
        match self.position {
            Position::Head { passed, .. } => passed.into(),
            _ => 0,
        }
    }

    /// The stream has ended: what is held passes, see [`Scanner::give_back`], and nothing may follow it.
    pub(crate) fn finish(&mut self, front: &mut [u8; MAX_KEPT]) -> usize {
        let passed = self.passed_of_head();
        let kept = self.give_back(front);
        if kept > 0 {
            self.position = Position::Lost;
        }
        kept.saturating_sub(passed)
    }

    /// The first Close has passed in full.
    pub(crate) const fn is_behind_close(&self) -> bool {
        self.close.is_some() && matches!(self.position, Position::Head { passed: 0, .. })
    }

    /// How the frames of the sender are masked.
    pub(crate) const fn masking(&self) -> Masking {
        self.masking
    }

    /// What passed so far ends where a frame does, and not behind a Close: a frame of ours may
    /// follow, a control frame at least. What is held has not passed.
    pub(crate) const fn at_boundary(&self) -> bool {
        matches!(self.position, Position::Head { passed: 0, .. }) && self.close.is_none()
    }

    /// A message has begun whose final frame has not; control frames may be put in at a boundary.
    pub(crate) const fn in_message(&self) -> bool {
        self.is_in_message
    }

    /// The frames are followed.
    pub(crate) const fn is_on(&self) -> bool {
        !matches!(self.position, Position::Lost)
    }

    /// The sender sent a Close, and its code: 1005 where it has none (RFC 6455, section 7.1.5), or 0.
    pub(crate) fn close_code(&self) -> Option<u16> {
        self.close.map(NonZeroU16::get)
    }

    /// Bytes of payload that are still to come of the frame that passes, 0 between frames. Where there
    /// are no frames, there is no end to it.
    #[inline]
    pub(crate) const fn payload_left(&self) -> u64 {
        match self.position {
            Position::Head { .. } => 0,
            Position::Payload { left, .. } => left,
            Position::Lost => u64::MAX,
        }
    }

    /// Some of a head has come, and not all.
    pub(crate) const fn is_in_head(&self) -> bool {
        matches!(self.position, Position::Head { have: 1.., .. })
    }

    /// So many bytes of payload, [`Scanner::payload_left`] at most, passed without a look at them.
    pub(crate) const fn skip_payload(&mut self, count: u64) {
        if let Position::Payload { left, is_control } = self.position {
            self.position = if left > count {
                Position::Payload { left: left - count, is_control }
            } else {
                Position::BOUNDARY
            };
        }
    }

    #[inline]
    fn is_between_messages(&self) -> bool {
        // Both at once, without a branch between them.
        (!self.is_in_message & self.close.is_none())
            && matches!(self.position, Position::Head { have: 0, passed: 0, .. })
    }

    /// The end and the length of the first frame, if it is a text or binary message in one frame with
    /// a 7-bit length and breaks no rule. [`frame::parse`] and [`Scanner::begin`] say the same of it.
    #[inline]
    fn small_message(&self, bytes: &[u8], rules: &Rules) -> Option<(usize, u8)> {
        const FIN_AND_OPCODE: u8 = 0x8f;
        const FIN_AND_TEXT: u8 = 0x81;
        const FIN_AND_BINARY: u8 = 0x82;

        let &[first, second] = bytes.first_chunk()?;
        let mask_bit = self.masking as u8;
        // With the other mask bit it is 128 or more.
        let length = second ^ mask_bit;
        let is_small_message = matches!(first & FIN_AND_OPCODE, FIN_AND_TEXT | FIN_AND_BINARY)
            && length <= 125
            && u64::from(length) <= rules.max_whole;
        let key_length = usize::from(mask_bit >> 5);
        is_small_message.then_some((2 + key_length + usize::from(length), length))
    }

    #[inline]
    const fn count_message(&mut self, length: u8) {
        self.messages = self.messages.wrapping_add(1);
        self.payload = self.payload.wrapping_add(length as u64);
    }

    fn follow(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        rules: &Rules,
        until: Until,
        tally: &mut Tally,
        mut own_pong: Option<impl FnMut([u8; NONCE]) -> bool>,
    ) -> Scan {
        loop {
            match self.position {
                Position::Head { .. } => {}
                Position::Payload { left, is_control } => {
                    at = self.skip(bytes, at, left, is_control);
                    if self.has_reached(until) {
                        return Scan { pass: at, then: Then::Reached };
                    }
                    at = self.pass_small_messages(bytes, at, rules, until);
                }
                Position::Lost => at = bytes.len(),
            }
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return Scan { pass: at, then: Then::More };
            }

            // Of a Pong that had begun to pass before, the Ping cannot be ours.
            let may_be_own_pong =
                own_pong.is_some() && self.passed_of_head() == 0 && may_be_own_pong(rest);
            let holds = rules.holds_heads || may_be_own_pong;
            let (head, used, mut fault) = match self.next_head(rest, rules.is_strict) {
                Ok(Some(found)) => found,
                Ok(None) => return self.keep(at, rest, holds),
                Err(fault) if rules.is_strict => {
                    return Scan { pass: at, then: Then::Fault(fault) };
                }
                Err(fault) => {
                    tally.count(Some(fault));
                    self.position = Position::Lost;
                    continue;
                }
            };
            if let Err(limit) = rules.check(&head, self.message) {
                return Scan { pass: at, then: Then::OverLimit(limit) };
            }
            let payload = rest.get(used..).unwrap_or_default();
            let mut is_first_close = false;
            match head.opcode {
                Opcode::Pong if may_be_own_pong => {
                    let Some(nonce) = payload.first_chunk() else {
                        return self.keep(at, rest, holds);
                    };
                    let nonce = frame::apply_mask(*nonce, head.mask);
                    if own_pong.as_mut().is_some_and(|is_ours| is_ours(nonce)) {
                        #[allow(clippy::cast_possible_truncation)]
                        // At most the longest head and 8.
                        let then = Then::OwnPong { length: (used + NONCE) as u8 };
                        return Scan { pass: at, then };
                    }
                }
                Opcode::Close => {
                    let code = match payload.first_chunk() {
                        // Behind a longer head, which breaks a rule, there is no room to keep more.
                        _ if head.length < 2 || used > LONGEST_CONTROL_HEAD => None,
                        Some(code) => Some(u16::from_be_bytes(frame::apply_mask(*code, head.mask))),
                        None => return self.keep(at, rest, holds),
                    };
                    fault = fault.or(match code {
                        Some(code) if !frame::may_be_sent(code) => Some(Fault::InvalidCloseCode),
                        None if head.length == 1 => Some(Fault::CloseTooShort),
                        _ => None,
                    });
                    if let Some(fault) = fault
                        && rules.is_strict
                    {
                        return Scan { pass: at, then: Then::Fault(fault) };
                    }
                    if self.close.is_none() {
                        self.close = code.and_then(NonZeroU16::new).or(Some(NO_STATUS));
                        is_first_close = true;
                    }
                }
                _ => {}
            }

            tally.count(fault);
            if head.fin && head.opcode.is_of_message() {
                tally.count_message(self.message.saturating_add(head.length));
            }
            self.begin(&head);
            at = self.skip(bytes, at + used, head.length, !head.opcode.is_of_message());
            if is_first_close {
                return Scan { pass: at, then: Then::Closed };
            }
            if self.has_reached(until) {
                return Scan { pass: at, then: Then::Reached };
            }
        }
    }

    /// The head that the bytes begin with, how long it is, and the rule that it breaks. Most receivers
    /// are not strict: what breaks a rule is followed by what it says of itself, if we are not either.
    fn next_head(
        &self,
        rest: &[u8],
        is_strict: bool,
    ) -> Result<Option<(Head, usize, Option<Fault>)>, Fault> {
        let found = self.check_order(rest).and_then(|()| frame::parse(rest, self.masking));
        match found {
            Ok(found) => Ok(found.map(|(head, used)| (head, used, None))),
            Err(fault) if is_strict => Err(fault),
            Err(fault) => match frame::announced(rest) {
                Ok(Some((head, used))) => Ok(Some((head, used, Some(fault)))),
                Ok(None) => Ok(None),
                Err(_) => Err(fault),
            },
        }
    }

    /// Whether to stop here, behind a frame or in it.
    const fn has_reached(&self, until: Until) -> bool {
        match until {
            Until::End => false,
            Until::Boundary => self.at_boundary(),
            Until::MessageEnd => self.at_boundary() && !self.is_in_message,
            Until::Close => self.is_behind_close(),
        }
    }

    /// Goes over `left` bytes of payload that begin at `at`, as far as they have come. Says where
    /// that is.
    fn skip(&mut self, bytes: &[u8], at: usize, left: u64, is_control: bool) -> usize {
        let came = bytes.len().saturating_sub(at);
        if left > came as u64 {
            self.position = Position::Payload { left: left - came as u64, is_control };
            return bytes.len();
        }
        self.position = Position::BOUNDARY;
        #[allow(clippy::cast_possible_truncation)] // No more than came.
        let left = left as usize;
        at + left
    }

    /// The order of frames (RFC 6455, sections 5.4 and 5.5.1), by the opcode of the next one.
    fn check_order(&self, head: &[u8]) -> Result<(), Fault> {
        const CONTINUATION: u8 = Opcode::Continuation as u8;
        const TEXT: u8 = Opcode::Text as u8;
        const BINARY: u8 = Opcode::Binary as u8;
        match head.first().map(|first| first & 0x0f) {
            Some(CONTINUATION | TEXT | BINARY) if self.close.is_some() => {
                Err(Fault::DataBehindClose)
            }
            Some(CONTINUATION) if !self.is_in_message => Err(Fault::ContinuationWithoutStart),
            Some(TEXT | BINARY) if self.is_in_message => Err(Fault::MessageInsideMessage),
            _ => Ok(()),
        }
    }

    /// Counts a frame.
    const fn begin(&mut self, head: &Head) {
        match head.opcode {
            Opcode::Ping => self.pings = self.pings.wrapping_add(1),
            Opcode::Pong => self.pongs = self.pongs.wrapping_add(1),
            Opcode::Close | Opcode::OtherData | Opcode::OtherControl => {}
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                self.payload = self.payload.wrapping_add(head.length);
                self.is_in_message = !head.fin;
                if head.fin {
                    self.messages = self.messages.wrapping_add(1);
                    self.message = 0;
                } else {
                    self.fragments = self.fragments.wrapping_add(1);
                    self.message = self.message.saturating_add(head.length);
                }
            }
        }
    }

    /// Keeps what came of a head, or of what decides on its frame, until more comes.
    #[cold]
    fn keep(&mut self, at: usize, rest: &[u8], holds: bool) -> Scan {
        let mut kept = [0; MAX_KEPT];
        let mut have = 0;
        for (place, byte) in kept.iter_mut().rev().zip(rest.iter().rev()) {
            *place = *byte;
            have += 1;
        }
        // Once some of it has passed, nothing is left to decide.
        let passes = !holds || self.passed_of_head() > 0;
        self.position = Position::Head { have, passed: if passes { have } else { 0 }, kept };
        Scan { pass: if passes { at + rest.len() } else { at }, then: Then::More }
    }
}

/// Whether the bytes begin a Pong as long as one to a Ping of ours, or may do so when more have come.
fn may_be_own_pong(bytes: &[u8]) -> bool {
    const PONG: u8 = Opcode::Pong as u8;
    let is_pong = bytes.first().is_some_and(|first| first & 0x0f == PONG);
    is_pong && bytes.get(1).is_none_or(|second| usize::from(second & 0x7f) == NONCE)
}

/// One that is off.
impl Default for Scanner {
    fn default() -> Self {
        Self::off()
    }
}

impl Position {
    /// A head is next and nothing of it came.
    const BOUNDARY: Self = Self::Head { have: 0, passed: 0, kept: [0; MAX_KEPT] };
}

// What is kept always fits: nothing shorter than these is ever undecided.
const _: () =
    assert!(LONGEST_CONTROL_HEAD + NONCE <= MAX_KEPT + 1 && NONCE as u64 <= MAX_CONTROL_PAYLOAD);

#[cfg(test)]
mod tests;
