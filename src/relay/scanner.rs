//! The scanner: follows WebSocket frames in one direction of a tunnel as the bytes go by.
//!
//! Pure: it gets what was read and says how much of it may be passed on. Payload is skipped, never
//! looked at. The scanner keeps the bytes of an unfinished head until the next read and gives them
//! back to be put in front of that, so that a head is always read as one slice. Where a limit or a rule
//! may refuse the frame, those bytes are held: they pass when the head is whole. Otherwise they have
//! passed already when they are given back, and only what may become the Pong to a Ping of ours is held.
//! A message of up to 125 bytes in one frame and one read is what proxies carry most: it has a
//! path of its own, of 33 instructions. It is as small as it can be: an idle tunnel has two of them.

use std::num::NonZeroU16;

use super::frame::{self, Fault, Head, MAX_CONTROL_PAYLOAD, MAX_HEAD, Masking, Opcode};
use crate::end::Side;

/// Bytes that are kept between two reads at most: all but the last of the longest head, or of a
/// masked Pong with eight bytes of payload, or of a masked Close up to its code.
pub(crate) const MAX_KEPT: usize = MAX_HEAD - 1;

/// The longest head of a control frame that breaks no rule.
const LONGEST_CONTROL_HEAD: usize = 2 + 4;

/// Payload of our Pings. Only a Pong of this length can be the answer to one.
const NONCE: usize = 8;

/// The close code of a Close that has none (RFC 6455, section 7.1.5).
const NO_STATUS: NonZeroU16 = NonZeroU16::new(1005).unwrap();

/// What is asked of the frames, beside that they can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    max_frame: u64,
    max_message: u64,
    is_strict: bool,
    /// A frame may be refused: no byte of its head passes before that is decided.
    holds_heads: bool,
    /// The smaller one of the two limits: the one that a message in one frame meets first.
    max_whole: u64,
}

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

/// What a scan met on its way, for the caller to add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Frames, but for small messages that break no rule: what a scan costs beside them.
    pub(crate) frames: u32,
    /// Rules that were broken by frames that pass all the same, by [`Fault::index`].
    pub(crate) faults: [u32; Fault::COUNT],
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

/// Which limit a frame exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `MAX_FRAME_SIZE`.
    Frame,
    /// `MAX_MESSAGE_SIZE`.
    Message,
}

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
}

impl Scanner {
    /// At the start of the WebSocket stream that `sender` sends.
    pub(crate) const fn new(sender: Side) -> Self {
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
        Self { position: Position::Lost, ..Self::new(Side::Upstream) }
    }

    /// Whether the bytes that were read may all be passed on: they are one small message, and nothing
    /// is kept. Otherwise nothing happened, and [`Scanner::scan`] is to be asked.
    ///
    /// This is the path of most reads, to be inlined where they are passed on.
    #[inline]
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
        let mut at = 0;
        if matches!(until, Until::End | Until::Close) && self.is_between_messages() {
            let mut rest = bytes;
            while let Some((end, length)) = self.small_message(rest, rules)
                && let Some(behind) = rest.get(end..)
            {
                self.count_message(length);
                at += end;
                rest = behind;
            }
        }
        self.follow(bytes, at, rules, until, tally, own_pong)
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

    #[inline]
    fn is_between_messages(&self) -> bool {
        !self.is_in_message
            && self.close.is_none()
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
            if let Err(limit) = self.check_limits(&head, rules) {
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

    /// Asked behind a frame, or in it.
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

    /// Control frames have a limit of their own; one that breaks it is no better than a data frame.
    const fn check_limits(&self, head: &Head, rules: &Rules) -> Result<(), Limit> {
        if head.opcode.is_control() && head.length <= MAX_CONTROL_PAYLOAD {
            return Ok(());
        }
        if head.length > rules.max_frame {
            return Err(Limit::Frame);
        }
        if !head.opcode.is_control() && self.message.saturating_add(head.length) > rules.max_message
        {
            return Err(Limit::Message);
        }
        Ok(())
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

impl Tally {
    /// Counts a frame, and the rule that it breaks.
    fn count(&mut self, fault: Option<Fault>) {
        self.frames += 1;
        if let Some(count) = fault.and_then(|fault| self.faults.get_mut(fault.index())) {
            *count += 1;
        }
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

    use super::*;

    const OURS: [u8; NONCE] = *b"our ping";

    /// A caller as the relay is one, and all that it was told.
    #[derive(Clone, Debug, PartialEq)]
    struct Follower {
        scanner: Scanner,
        rules: Rules,
        passed: Vec<u8>,
        /// Pongs that were cut out, one behind the other.
        cut: Vec<u8>,
        /// What came behind the end that a rule or limit put to it.
        refused: Option<Vec<u8>>,
        told: Vec<Then>,
        faults: [u32; Fault::COUNT],
        until: Until,
        /// Bytes that had passed where it was told that the place is reached.
        reached: Vec<usize>,
    }

    impl Follower {
        fn new(sender: Side, rules: Rules) -> Self {
            Self {
                scanner: Scanner::new(sender),
                rules,
                passed: Vec::new(),
                cut: Vec::new(),
                refused: None,
                told: Vec::new(),
                faults: Default::default(),
                until: Until::End,
                reached: Vec::new(),
            }
        }

        fn feed(&mut self, read: &[u8]) {
            if let Some(refused) = &mut self.refused {
                refused.extend(read);
                return;
            }
            if self.scanner.is_one_message(read, &self.rules) {
                self.passed.extend(read);
                return;
            }
            let mut buffer = self.take_kept();
            buffer.extend(read);
            let mut rest = &buffer[..];
            loop {
                let mut tally = Tally::default();
                let passed = self.scanner.passed_of_head();
                let own_pong = Some(|nonce| nonce == OURS);
                let Scan { pass, then } =
                    self.scanner.scan(rest, &self.rules, self.until, &mut tally, own_pong);
                for (sum, more) in self.faults.iter_mut().zip(tally.faults) {
                    *sum += more;
                }
                self.passed.extend(&rest[passed..pass]);
                rest = &rest[pass..];
                if then != Then::More {
                    self.told.push(then);
                }
                match then {
                    Then::More => break,
                    Then::OwnPong { length } => {
                        let (pong, behind) = rest.split_at(length.into());
                        self.cut.extend(pong);
                        rest = behind;
                    }
                    Then::Reached => {
                        assert!(self.scanner.at_boundary());
                        assert!(self.until == Until::Boundary || !self.scanner.in_message());
                        self.told.pop();
                        self.reached.push(self.passed.len());
                    }
                    Then::Closed => {}
                    Then::OverLimit(_) | Then::Fault(_) => {
                        assert!(self.scanner.at_boundary() || self.scanner.close.is_some());
                        self.refused = Some(rest.to_vec());
                        return;
                    }
                }
            }
            // It holds exactly what it did not let pass.
            assert!(rest.len() <= MAX_KEPT);
            let kept = self.clone().take_kept();
            match self.scanner.passed_of_head() {
                0 => assert_eq!(kept, rest),
                _ => assert!(rest.is_empty() && self.passed.ends_with(&kept)),
            }
        }

        /// The rules that were broken by what passed.
        fn broken(&self) -> Vec<Fault> {
            Fault::ALL.iter().copied().filter(|fault| self.faults[fault.index()] > 0).collect()
        }

        /// What is held back.
        fn take_held(&mut self) -> Vec<u8> {
            let passed = self.scanner.passed_of_head();
            self.take_kept().split_off(passed)
        }

        fn take_kept(&mut self) -> Vec<u8> {
            let mut front = [0xee; MAX_KEPT];
            let held = self.scanner.give_back(&mut front);
            front[MAX_KEPT - held..].to_vec()
        }

        fn feed_all(mut self, bytes: &[u8]) -> Self {
            self.feed(bytes);
            self
        }

        /// The same in pieces; one that is empty changes nothing.
        fn feed_pieces(mut self, bytes: &[u8], cuts: &[usize]) -> Self {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut from = 0;
            for to in cuts {
                self.feed(&bytes[from..to]);
                from = to;
            }
            self
        }
    }

    fn lenient() -> Rules {
        Rules::new(None, None, false)
    }

    fn strict() -> Rules {
        Rules::new(None, None, true)
    }

    /// A frame, in tungstenite's words.
    #[derive(Clone, Debug)]
    struct Sent {
        opcode: OpCode,
        fin: bool,
        rsv1: bool,
        payload: Vec<u8>,
    }

    impl Sent {
        fn encode(&self, sender: Side) -> Vec<u8> {
            let header = FrameHeader {
                is_final: self.fin,
                rsv1: self.rsv1,
                rsv2: false,
                rsv3: false,
                opcode: self.opcode,
                mask: (sender == Side::Client).then_some([0x37, 0xfa, 0x21, 0x3d]),
            };
            let mut bytes = Vec::new();
            Frame::from_payload(header, self.payload.clone().into()).format(&mut bytes).unwrap();
            bytes
        }
    }

    fn control(opcode: Control, payload: &[u8]) -> Sent {
        Sent { opcode: OpCode::Control(opcode), fin: true, rsv1: false, payload: payload.to_vec() }
    }

    fn data(opcode: Data, fin: bool, payload: &[u8]) -> Sent {
        Sent { opcode: OpCode::Data(opcode), fin, rsv1: false, payload: payload.to_vec() }
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => prop::collection::vec(any::<u8>(), 0..20),
            2 => prop::collection::vec(any::<u8>(), 120..130),
            1 => (65_530..65_540_usize).prop_map(|length| vec![0x5a; length]),
        ]
    }

    fn control_frame() -> impl Strategy<Value = Sent> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..126)
                .prop_map(|payload| control(Control::Ping, &payload)),
            prop::collection::vec(any::<u8>(), 0..126)
                .prop_map(|payload| control(Control::Pong, &payload)),
            any::<[u8; 8]>().prop_map(|payload| control(Control::Pong, &payload)),
            Just(control(Control::Pong, &OURS)),
        ]
    }

    /// In any order, so mostly the wrong one.
    fn any_data_frame() -> impl Strategy<Value = Sent> {
        let opcode = prop_oneof![Just(Data::Text), Just(Data::Binary), Just(Data::Continue)];
        (opcode, any::<bool>(), payload())
            .prop_map(|(opcode, fin, payload)| data(opcode, fin, &payload))
    }

    /// A message in its frames, with control frames between them.
    fn message() -> impl Strategy<Value = Vec<Sent>> {
        let between = prop::collection::vec(control_frame(), 0..2);
        let fragments = prop::collection::vec((payload(), between), 1..4);
        (any::<bool>(), any::<bool>(), fragments).prop_map(|(text, rsv1, fragments)| {
            let last = fragments.len() - 1;
            let mut sent = Vec::new();
            for (number, (payload, between)) in fragments.into_iter().enumerate() {
                let opcode = match number {
                    0 if text => Data::Text,
                    0 => Data::Binary,
                    _ => Data::Continue,
                };
                let mut frame = data(opcode, number == last, &payload);
                frame.rsv1 = rsv1 && number == 0;
                sent.push(frame);
                if number < last {
                    sent.extend(between);
                }
            }
            sent
        })
    }

    /// Frames that break no rule.
    fn stream() -> impl Strategy<Value = Vec<Sent>> {
        let part = prop_oneof![message(), control_frame().prop_map(|frame| vec![frame])];
        let code = prop_oneof![1000..=1003_u16, 1007..=1014_u16, 3000..=4999_u16];
        let close = prop::option::of((code, any::<[u8; 2]>()));
        (prop::collection::vec(part, 0..6), close).prop_map(|(parts, close)| {
            let mut sent = parts.concat();
            sent.extend(close.map(|(code, reason)| {
                control(Control::Close, &[code.to_be_bytes(), reason].concat())
            }));
            sent
        })
    }

    /// Frames, then one byte of them changed, then anything.
    fn disturbed(sender: Side) -> impl Strategy<Value = Vec<u8>> {
        let tail = prop::collection::vec(any::<u8>(), 0..40);
        (stream(), any::<Option<(prop::sample::Index, u8)>>(), tail).prop_map(
            move |(sent, change, tail)| {
                let mut bytes: Vec<_> =
                    sent.iter().flat_map(|frame| frame.encode(sender)).collect();
                if let Some((place, value)) = change
                    && !bytes.is_empty()
                {
                    // Near the start: the middle of a long payload would change nothing.
                    let place = place.index(bytes.len().min(80));
                    bytes[place] = value;
                }
                bytes.extend(tail);
                bytes
            },
        )
    }

    fn disturbed_by_either() -> impl Strategy<Value = (Side, Vec<u8>)> {
        prop_oneof![Just(Side::Client), Just(Side::Upstream)]
            .prop_flat_map(|sender| (Just(sender), disturbed(sender)))
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let limit = || prop::option::weighted(0.3, 0..200_u64);
        (limit(), limit(), any::<bool>())
            .prop_map(|(frame, message, is_strict)| Rules::new(frame, message, is_strict))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        /// Boundaries, counts, what passes, what is cut, what is told: of the bytes alone.
        #[test]
        fn any_split_of_any_bytes_gives_the_same(
            (sender, bytes) in disturbed_by_either(),
            rules in rules(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let whole = Follower::new(sender, rules).feed_all(&bytes);
            let pieces = Follower::new(sender, rules).feed_pieces(&bytes, &cuts);
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn byte_by_byte_gives_the_same(
            (sender, mut bytes) in disturbed_by_either(),
            rules in rules(),
        ) {
            bytes.truncate(500);
            let whole = Follower::new(sender, rules).feed_all(&bytes);
            let every: Vec<_> = (0..bytes.len()).collect();
            prop_assert_eq!(Follower::new(sender, rules).feed_pieces(&bytes, &every), whole);
        }

        /// One frame, one read: the path of small messages, at each place in and out of messages.
        #[test]
        fn frame_by_frame_gives_the_same(
            sent in prop::collection::vec(prop_oneof![any_data_frame(), control_frame()], 0..8),
            from_client: bool,
            rules in rules(),
        ) {
            let sender = if from_client { Side::Client } else { Side::Upstream };
            let frames: Vec<_> = sent.iter().map(|frame| frame.encode(sender)).collect();
            let whole = Follower::new(sender, rules).feed_all(&frames.concat());
            let by_frame =
                frames.iter().fold(Follower::new(sender, rules), |follower, frame| {
                    follower.feed_all(frame)
                });
            prop_assert_eq!(&by_frame, &whole);
            let bytes = frames.concat();
            let every: Vec<_> = (0..bytes.len().min(500)).collect();
            prop_assert_eq!(Follower::new(sender, rules).feed_pieces(&bytes, &every), whole);
        }

        /// Nothing is lost, doubled or made up: what passed, what was cut, what was refused and what
        /// is held are what came.
        #[test]
        fn each_byte_goes_one_way(
            (sender, bytes) in disturbed_by_either(),
            rules in rules(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut follower = Follower::new(sender, rules).feed_pieces(&bytes, &cuts);
            let held = follower.take_held();
            let rest = follower.refused.take().unwrap_or_default();
            prop_assert!(held.is_empty() || rest.is_empty());
            if follower.cut.is_empty() {
                let all = [&follower.passed[..], &held, &rest].concat();
                prop_assert_eq!(all, bytes);
                return Ok(());
            }
            // Cut pongs are somewhere between: put back where they were, all is there again.
            let length = if sender == Side::Client { 14 } else { 10 };
            let mut pongs = follower.cut.chunks(length).peekable();
            let mut passed = [&follower.passed[..], &held, &rest].concat().into_iter().peekable();
            let mut at = 0;
            while at < bytes.len() {
                // A pong that passed in the middle of a payload looks the same.
                if let Some(pong) = pongs.next_if(|pong| {
                    bytes[at..].starts_with(pong) && is_frame_start(sender, rules, &bytes, at)
                }) {
                    at += pong.len();
                    continue;
                }
                prop_assert_eq!(passed.next(), Some(bytes[at]));
                at += 1;
            }
            prop_assert!(passed.peek().is_none() && pongs.peek().is_none());
        }

        /// What is sent by the rules is never called wrong, and is counted as it was sent.
        #[test]
        fn what_was_sent_is_counted(
            sent in stream(),
            from_client: bool,
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let sender = if from_client { Side::Client } else { Side::Upstream };
            let mut expected = Counts::default();
            let mut bytes = Vec::new();
            let mut passed = Vec::new();
            let mut told = Vec::new();
            let mut code = None;
            for frame in &sent {
                let encoded = frame.encode(sender);
                bytes.extend(&encoded);
                let is_ours = matches!(frame.opcode, OpCode::Control(Control::Pong))
                    && frame.payload == OURS;
                if is_ours {
                    told.push(Then::OwnPong { length: encoded.len().try_into().unwrap() });
                    continue;
                }
                passed.extend(encoded);
                match frame.opcode {
                    OpCode::Data(_) => {
                        expected.data_frames += 1;
                        expected.messages += u64::from(frame.fin);
                        expected.payload += frame.payload.len() as u64;
                    }
                    OpCode::Control(Control::Ping) => expected.pings += 1,
                    OpCode::Control(Control::Pong) => expected.pongs += 1,
                    OpCode::Control(_) => {
                        told.push(Then::Closed);
                        code = Some(u16::from_be_bytes([frame.payload[0], frame.payload[1]]));
                    }
                }
            }
            let follower = Follower::new(sender, strict()).feed_pieces(&bytes, &cuts);
            prop_assert_eq!(follower.scanner.counts(), expected);
            prop_assert_eq!(follower.scanner.close_code(), code);
            prop_assert_eq!(follower.scanner.at_boundary(), code.is_none());
            prop_assert!(!follower.scanner.in_message());
            prop_assert_eq!(follower.passed, passed);
            prop_assert_eq!(follower.told, told);
        }

        /// At any byte: a boundary is where what passed ends with whole frames, and nowhere else.
        #[test]
        fn a_boundary_is_between_frames(sent in stream(), from_client: bool) {
            let sender = if from_client { Side::Client } else { Side::Upstream };
            let mut follower = Follower::new(sender, lenient());
            for frame in &sent {
                let is_close = matches!(frame.opcode, OpCode::Control(Control::Close));
                let passed = follower.passed.len();
                let bytes = frame.encode(sender);
                // Long payloads are long, not interesting.
                let (ends, middle) = (bytes.len().min(200), bytes.len().saturating_sub(10).max(200));
                let (first, rest) = bytes.split_at(ends);
                let (middle, last) = rest.split_at(middle.min(bytes.len()) - ends);
                let pieces = first.chunks(1).chain([middle]).chain(last.chunks(1));
                let mut came = 0;
                for piece in pieces {
                    follower.feed(piece);
                    came += piece.len();
                    let gone = follower.passed.len() - passed;
                    if came == bytes.len() {
                        prop_assert!(follower.scanner.at_boundary() != is_close);
                    } else {
                        prop_assert_eq!(follower.scanner.at_boundary(), gone == 0);
                    }
                }
                if let OpCode::Data(_) = frame.opcode {
                    prop_assert_eq!(follower.scanner.in_message(), !frame.fin);
                }
            }
        }

        /// Each place is told, however the bytes are split, and what passes is the same.
        #[test]
        fn each_boundary_is_reached(
            sent in stream(),
            from_client: bool,
            after_message: bool,
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let sender = if from_client { Side::Client } else { Side::Upstream };
            let mut follower = Follower::new(sender, lenient());
            follower.until = if after_message { Until::MessageEnd } else { Until::Boundary };
            let (mut bytes, mut expected, mut unfinished, mut cut) = (Vec::new(), vec![], false, 0);
            for frame in &sent {
                let encoded = frame.encode(sender);
                bytes.extend(&encoded);
                match frame.opcode {
                    OpCode::Control(Control::Close) => continue,
                    OpCode::Control(Control::Pong) if frame.payload == OURS => {
                        cut += encoded.len();
                        continue;
                    }
                    OpCode::Control(_) => {}
                    OpCode::Data(_) => unfinished = !frame.fin,
                }
                if !(unfinished && after_message) {
                    expected.push(bytes.len() - cut);
                }
            }
            let follower = follower.feed_pieces(&bytes, &cuts);
            if cuts.is_empty() && sent.len() > 1 {
                prop_assert_eq!(&follower.reached, &expected);
            }
            prop_assert_eq!(follower.passed.len(), bytes.len() - cut);
            // A small message in a read of its own has a path that tells nothing.
            prop_assert!(follower.reached.iter().all(|place| expected.contains(place)));
        }

        #[test]
        fn what_is_no_websocket_passes(bytes: Vec<u8>, rules in rules()) {
            let mut follower = Follower::new(Side::Client, rules);
            follower.scanner = Scanner::off();
            follower.feed(&bytes);
            prop_assert_eq!(follower.passed, bytes);
            prop_assert!(follower.told.is_empty());
            prop_assert!(!follower.scanner.at_boundary());
            prop_assert_eq!(follower.scanner.counts(), Counts::default());
        }
    }

    /// Whether a frame begins at `at`, asked of a scanner that got exactly the bytes before it.
    fn is_frame_start(sender: Side, rules: Rules, bytes: &[u8], at: usize) -> bool {
        let mut follower = Follower::new(sender, rules).feed_all(&bytes[..at]);
        matches!(follower.scanner.position, Position::Head { .. })
            && follower.refused.is_none()
            && follower.take_held().is_empty()
    }

    #[test]
    fn an_idle_direction_is_small() {
        assert!(size_of::<Scanner>() <= 56, "{}", size_of::<Scanner>());
        // In two registers.
        assert!(size_of::<Scan>() <= 16, "{}", size_of::<Scan>());
    }

    #[test]
    fn a_small_message_has_its_own_path() {
        for sender in [Side::Client, Side::Upstream] {
            for (opcode, length) in [(Data::Text, 0), (Data::Binary, 64), (Data::Text, 125)] {
                let message = data(opcode, true, &vec![0; length]).encode(sender);
                let mut scanner = Scanner::new(sender);
                assert!(!scanner.is_one_message(&message[1..], &strict()));
                assert!(!scanner.is_one_message(&message.repeat(2), &strict()));
                assert_eq!(scanner, Scanner::new(sender), "it happened nevertheless");
                assert!(scanner.is_one_message(&message, &strict()));
                assert_eq!((scanner.messages, scanner.payload), (1, length as u64));
                assert!(!Scanner::off().is_one_message(&message, &strict()));
            }
            for other in [
                data(Data::Text, false, b"!"),
                data(Data::Continue, true, b"!"),
                control(Control::Ping, b"!"),
            ] {
                assert!(!Scanner::new(sender).is_one_message(&other.encode(sender), &strict()));
            }
        }
    }

    /// What comes behind half a head may look like a message.
    #[test]
    fn what_is_held_goes_first() {
        let mut follower = Follower::new(Side::Upstream, strict());
        follower.feed(b"\x82\x7e");
        follower.feed(b"\x81\x02ok");
        assert_eq!(follower.passed, b"\x82\x7e\x81\x02ok");
        assert_eq!(follower.scanner.counts().payload, 2);
        assert!(!follower.scanner.at_boundary());
    }

    #[test]
    fn a_broken_rule_is_told_before_its_frame() {
        let text = b"\x81\x02ok";
        let cases: &[(&[u8], Fault)] = &[
            (b"\x83\x00", Fault::ReservedOpcode),
            (b"\x09\x00", Fault::FragmentedControl),
            (b"\x89\x7e\x00\x7e", Fault::ControlTooLong),
            (b"\x81\x81abcd!", Fault::MaskUnexpected),
            (b"\x82\x7f\xff\0\0\0\0\0\0\0", Fault::LengthTopBit),
            (b"\x82\x7e\x00\x01!", Fault::LengthNotMinimal),
            (b"\x80\x01!", Fault::ContinuationWithoutStart),
            (b"\x00\x01!", Fault::ContinuationWithoutStart),
        ];
        for (bad, fault) in cases {
            let bytes = [text, *bad, text].concat();
            let refusing = Follower::new(Side::Upstream, strict()).feed_all(&bytes);
            assert_eq!(refusing.told, [Then::Fault(*fault)]);
            assert_eq!(refusing.passed, text);
            assert!(refusing.scanner.at_boundary(), "a Close could not go out");

            let observing = Follower::new(Side::Upstream, lenient()).feed_all(&bytes);
            assert_eq!(observing.broken()[0], *fault);
            assert!(observing.told.is_empty());
            assert_eq!(observing.passed, bytes);
            let is_lost = *fault == Fault::LengthTopBit;
            assert_eq!(observing.scanner.is_on(), !is_lost, "{fault}");
        }
        let unmasked = Follower::new(Side::Client, strict()).feed_all(b"\x81\x01!");
        assert_eq!(unmasked.told, [Then::Fault(Fault::MaskMissing)]);
        let inside = Follower::new(Side::Upstream, strict()).feed_all(b"\x01\x01!\x82\x01!");
        assert_eq!(inside.told, [Then::Fault(Fault::MessageInsideMessage)]);
        assert_eq!(inside.passed, b"\x01\x01!");
        assert!(inside.scanner.at_boundary() && inside.scanner.in_message());
    }

    #[test]
    fn where_frames_are_only_observed_a_broken_rule_changes_nothing_behind_it() {
        let rules = Rules::new(Some(1000), None, false);
        let ours = control(Control::Pong, &OURS).encode(Side::Client);
        let too_big = data(Data::Binary, true, &[0; 1001]).encode(Side::Client);
        let cases: &[(&[u8], Fault)] = &[
            (b"\x83\x81abcd!", Fault::ReservedOpcode),
            (b"\x8b\x81abcd!", Fault::ReservedOpcode),
            (b"\x09\x80abcd", Fault::FragmentedControl),
            (b"\x89\xfe\x00\x02abcd!!", Fault::ControlTooLong),
            (b"\x81\x01!", Fault::MaskMissing),
            (b"\x82\xfe\x00\x01abcd!", Fault::LengthNotMinimal),
            (b"\x82\xff\0\0\0\0\0\0\0\x01abcd!", Fault::LengthNotMinimal),
            (b"\x80\x81abcd!", Fault::ContinuationWithoutStart),
        ];
        for (bad, fault) in cases {
            let mut bytes = [bad, &ours[..], &too_big].concat();
            let told = [Then::OwnPong { length: 14 }, Then::OverLimit(Limit::Frame)];
            for cuts in [vec![], (0..bytes.len()).collect()] {
                let follower = Follower::new(Side::Client, rules).feed_pieces(&bytes, &cuts);
                assert_eq!(follower.told, told, "{fault}");
                assert_eq!(follower.broken(), [*fault]);
                assert_eq!(follower.passed, *bad, "{fault}");
                assert!(follower.scanner.at_boundary());
            }
            bytes.truncate(bad.len());
            bytes.extend(control(Control::Close, b"\x03\xe9").encode(Side::Client));
            let follower = Follower::new(Side::Client, rules).feed_all(&bytes);
            assert_eq!(follower.scanner.close_code(), Some(1001), "{fault}");
        }
        // A Close that breaks a rule is one, too, and no control frame is a way around a limit.
        let close = Follower::new(Side::Client, rules).feed_all(b"\x88\x02\x03\xe9");
        assert_eq!((close.scanner.close_code(), close.passed.len()), (Some(1001), 4));
        let ping = Follower::new(Side::Upstream, rules).feed_all(b"\x89\x7e\x03\xe9");
        assert_eq!(ping.told, [Then::OverLimit(Limit::Frame)]);
    }

    #[test]
    fn a_limit_acts_at_the_head() {
        let max_frame = Rules::new(Some(200), None, false);
        let max_message = Rules::new(None, Some(300), false);
        // Neither path may let one byte more through than the other.
        for limit in [0, 1, 125] {
            for length in [limit, limit + 1] {
                let frame = data(Data::Text, true, &vec![b'x'; length]).encode(Side::Client);
                let rules = Rules::new(Some(limit as u64), None, false);
                let told = Follower::new(Side::Client, rules).feed_all(&frame).told;
                assert_eq!(told.is_empty(), length == limit, "{length} with {limit}");
            }
        }
        let frame = data(Data::Binary, true, &[0; 201]).encode(Side::Client);
        let follower = Follower::new(Side::Client, max_frame).feed_all(&frame[..8]);
        assert_eq!(follower.told, [Then::OverLimit(Limit::Frame)]);
        assert!(follower.passed.is_empty() && follower.scanner.at_boundary());

        let frame = data(Data::Binary, true, &[0; 200]).encode(Side::Client);
        let follower = Follower::new(Side::Client, max_frame).feed_all(&frame);
        assert_eq!((follower.told, follower.passed), (vec![], frame));

        let first = data(Data::Binary, false, &[0; 200]).encode(Side::Client);
        let ping = control(Control::Ping, &[0; 125]).encode(Side::Client);
        let fits = data(Data::Continue, true, &[0; 100]).encode(Side::Client);
        let exceeds = data(Data::Continue, false, &[0; 101]).encode(Side::Client);
        let whole = [&first[..], &ping, &fits, &first, &fits].concat();
        let follower = Follower::new(Side::Client, max_message).feed_all(&whole);
        assert_eq!((follower.told, follower.passed), (vec![], whole));
        let begun = [&first[..], &ping].concat();
        let mut follower = Follower::new(Side::Client, max_message).feed_all(&begun);
        follower.feed(&exceeds);
        assert_eq!(follower.told, [Then::OverLimit(Limit::Message)]);
        assert_eq!(follower.passed, begun);
        assert!(follower.scanner.in_message());
    }

    #[test]
    fn only_what_passed_is_counted() {
        let first = data(Data::Text, false, &[b'x'; 10]).encode(Side::Upstream);
        let ping = control(Control::Ping, &[0; 10]).encode(Side::Upstream);
        let last = data(Data::Continue, true, &[b'x'; 200]).encode(Side::Upstream);
        let mut follower = Follower::new(Side::Upstream, strict());
        let mut expected = Counts { data_frames: 1, payload: 7, ..Counts::default() };
        follower.feed(&first[..9]);
        assert_eq!(follower.scanner.counts(), expected);
        follower.feed(&first[9..]);
        expected.payload = 10;
        assert_eq!(follower.scanner.counts(), expected);
        follower.feed(&ping[..4]);
        expected.pings = 1;
        assert_eq!(follower.scanner.counts(), expected);
        follower.feed(&ping[4..]);
        follower.feed(&last[..103]);
        expected.payload = 10 + 99;
        assert_eq!(follower.scanner.counts(), expected);
        follower.feed(&last[103..]);
        expected = Counts { messages: 1, data_frames: 2, payload: 210, ..expected };
        assert_eq!(follower.scanner.counts(), expected);
    }

    /// A length is only a claim: neither sum overflows.
    #[test]
    fn huge_lengths_add_up_to_the_limit() {
        let huge = b"\x02\x7f\x7f\xff\xff\xff\xff\xff\xff\xff";
        let mut follower =
            Follower::new(Side::Upstream, Rules::new(None, Some(u64::MAX - 1), true));
        follower.feed(huge);
        follower.feed(&[0; 100]);
        assert_eq!(follower.scanner.counts().payload, 100);
        assert_eq!(follower.scanner.counts().messages, 0);
        follower.scanner.position = Position::BOUNDARY;
        follower.feed(b"\x00\x7f\x7f\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(follower.scanner.message, u64::MAX - 1);
        follower.scanner.position = Position::BOUNDARY;
        follower.feed(b"\x00\x03!!!");
        assert_eq!(follower.told, [Then::OverLimit(Limit::Message)]);
    }

    #[test]
    fn a_close_goes_at_once_with_its_code() {
        let close = control(Control::Close, b"\x03\xe9away").encode(Side::Client);
        let mut follower = Follower::new(Side::Client, strict());
        follower.feed(&close[..7]);
        assert!(follower.passed.is_empty(), "its code is half there");
        follower.feed(&close[7..8]);
        assert_eq!(follower.passed, close[..8]);
        assert_eq!(follower.told, [Then::Closed]);
        assert_eq!(follower.scanner.close_code(), Some(1001));
        follower.feed(&close[8..]);
        assert_eq!(follower.passed, close);
        assert!(!follower.scanner.at_boundary(), "nothing may follow a Close");

        let mut follower = Follower::new(Side::Client, lenient());
        for (place, byte) in close.iter().enumerate() {
            assert_eq!(follower.scanner.close_code().is_some(), place >= 8);
            follower.feed(&[*byte]);
            assert_eq!(follower.passed, close[..=place], "held for nothing");
        }
        assert_eq!(follower.scanner.close_code(), Some(1001));

        for without in [&b"\x88\x00"[..], b"\x88\x01!", b"\x88\x02\0\0"] {
            let bytes = [without, b"\x8a\x01!"].concat();
            let follower = Follower::new(Side::Upstream, lenient()).feed_all(&bytes);
            assert_eq!(follower.scanner.close_code(), Some(1005));
            assert_eq!(follower.passed, bytes);
        }
        let twice = Follower::new(Side::Upstream, lenient()).feed_all(b"\x88\x02\x03\xe8\x88\x00");
        assert_eq!(twice.told, [Then::Closed]);
        assert_eq!(twice.scanner.close_code(), Some(1000));
    }

    #[test]
    fn only_a_pong_of_ours_is_cut() {
        for sender in [Side::Client, Side::Upstream] {
            let ours = control(Control::Pong, &OURS).encode(sender);
            for other in [
                control(Control::Pong, b"others ."),
                control(Control::Pong, b""),
                control(Control::Pong, b"our ping."),
                control(Control::Ping, &OURS),
                data(Data::Binary, true, &ours),
            ] {
                let other = other.encode(sender);
                let bytes = [&other[..], &ours, &other, &ours].concat();
                let follower = Follower::new(sender, strict()).feed_all(&bytes);
                assert_eq!(follower.passed, [&other[..], &other].concat());
                assert_eq!(follower.cut, [&ours[..], &ours].concat());
            }
        }
    }

    #[test]
    fn a_pong_goes_on_with_its_last_byte() {
        let pong = control(Control::Pong, b"not ours").encode(Side::Client);
        let mut follower = Follower::new(Side::Client, lenient());
        follower.feed(&pong[..13]);
        assert!(follower.passed.is_empty() && follower.scanner.at_boundary());
        follower.feed(&pong[13..]);
        assert_eq!(follower.passed, pong);
        assert_eq!(follower.scanner.counts().pongs, 1);
    }
}
