//! Any bytes behind a 101, in one direction, however they are split: the scanner finds what another
//! reader of RFC 6455 finds, and lets pass, cuts out and holds back each byte as it should.

use std::mem;

use super::Script;
use super::reference::{self, CLOSE, Frame, FrameLimits, PING, PONG, Reading, Tail};
use crate::peer::Peer;
use crate::websocket::scanner::{Counts, MAX_KEPT, Rules, Scan, Scanner, Tally, Then, Until};

/// The payload of the Pong that counts as an answer to a Ping of ours.
const OURS: [u8; 8] = *b"our ping";

/// What the first bytes ask for.
#[derive(Clone, Copy, Debug)]
struct Setup {
    sender: Peer,
    limits: FrameLimits,
    until: Until,
}

/// One byte of switches, two limits, four lengths of pieces, and the stream.
pub fn frames(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let switches = script.byte();
    let limits = [script.byte(), script.byte()].map(u64::from);
    let limit = |bit: u8, limit: u64| (switches & 1 << bit != 0).then_some(limit);
    let setup = Setup {
        sender: if switches & 1 == 0 { Peer::Client } else { Peer::Upstream },
        limits: FrameLimits {
            frame: limit(2, limits[0]),
            message: limit(3, limits[1]),
            is_strict: switches & 2 != 0,
            awaits_pong: switches & 64 == 0,
        },
        until: match switches >> 4 & 3 {
            0 => Until::End,
            1 => Until::Boundary,
            2 => Until::MessageEnd,
            _ => Until::Close,
        },
    };
    let pieces = [script.byte(), script.byte(), script.byte(), script.byte()];
    let stream = script.rest();

    let whole = Follower::new(setup).feed_pieces(stream, &[usize::MAX]);
    let reading = reference::read(stream, setup.sender, setup.limits);
    is_what_was_read(&whole, &reading, stream);
    let lengths = pieces.map(usize::from);
    same(&Follower::new(setup).feed_pieces(stream, &lengths), &whole);
    if stream.len() <= 600 {
        let by_bytes = Follower::new(setup).feed_pieces(stream, &[1]);
        same(&by_bytes, &whole);
        // No frame is a byte, so no place goes by unseen; behind a Close nobody looks for more of them.
        if setup.until != Until::Close {
            assert_eq!(by_bytes.reached, places(&reading, stream, setup));
        }
    }
    let off = Follower { scanner: Scanner::off(), ..Follower::new(setup) };
    let off = off.feed_pieces(stream, &lengths);
    assert!(
        off.passed == stream && off.told.is_empty() && off.scanner.counts() == Counts::default()
    );
}

/// A caller as the relay is one, and all that it was told.
struct Follower {
    scanner: Scanner,
    setup: Setup,
    rules: Rules,
    passed: Vec<u8>,
    cut: usize,
    /// What came from the frame on that may not pass.
    refused: Option<Vec<u8>>,
    told: Vec<Then>,
    tally: Tally,
    /// Bytes that had passed at each place that was asked for.
    reached: Vec<usize>,
    /// What is scanned: memory that is used again and again.
    buffer: Vec<u8>,
}

impl Follower {
    fn new(setup: Setup) -> Self {
        Self {
            scanner: Scanner::new(setup.sender),
            setup,
            rules: Rules::new(setup.limits.frame, setup.limits.message, setup.limits.is_strict),
            passed: Vec::new(),
            cut: 0,
            refused: None,
            told: Vec::new(),
            tally: Tally::default(),
            reached: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// The stream in pieces of these lengths, over and over; 0 is an empty read.
    fn feed_pieces(mut self, mut stream: &[u8], lengths: &[usize]) -> Self {
        let is_stuck = lengths.iter().all(|length| *length == 0);
        for length in lengths.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            let length = if is_stuck { stream.len() } else { (*length).min(stream.len()) };
            let (piece, rest) = stream.split_at(length);
            self.feed(piece);
            stream = rest;
        }
        self
    }

    fn feed(&mut self, read: &[u8]) {
        if let Some(refused) = &mut self.refused {
            refused.extend_from_slice(read);
            return;
        }
        // As `direction::pass` does.
        if self.scanner.is_one_message(read, &self.rules) {
            self.passed.extend_from_slice(read);
            return;
        }
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        let (front, start) = kept(&mut self.scanner);
        buffer.extend_from_slice(&front[start..]);
        buffer.extend_from_slice(read);
        self.scan(&buffer);
        self.buffer = buffer;
    }

    fn scan(&mut self, mut rest: &[u8]) {
        loop {
            let own_pong = |nonce| nonce == OURS;
            let own_pong = self.setup.limits.awaits_pong.then_some(own_pong);
            let passed = self.scanner.passed_of_head();
            let Self { scanner, rules, setup, tally, .. } = &mut *self;
            let Scan { pass, then } = scanner.scan(rest, rules, setup.until, tally, own_pong);
            self.passed.extend_from_slice(&rest[passed..pass]);
            rest = &rest[pass..];
            match then {
                Then::More => break,
                Then::Reached => {
                    self.reached.push(self.passed.len());
                    continue;
                }
                Then::OwnPong { length } => {
                    self.cut += usize::from(length);
                    rest = &rest[usize::from(length)..];
                }
                Then::OverLimit(_) | Then::Fault(_) => self.refused = Some(rest.to_vec()),
                Then::Closed => {}
            }
            self.told.push(then);
            if self.refused.is_some() {
                return;
            }
        }
        assert!(rest.len() <= MAX_KEPT, "it holds {}", rest.len());
        let (front, start) = kept(&mut self.scanner.clone());
        let kept = &front[start..];
        match self.scanner.passed_of_head() {
            0 => assert_eq!(kept, rest, "it holds what did not come"),
            _ => assert!(rest.is_empty() && self.passed.ends_with(kept)),
        }
    }
}

/// What is kept is at the end, from there on.
fn kept(scanner: &mut Scanner) -> ([u8; MAX_KEPT], usize) {
    let mut front = [0xee; MAX_KEPT];
    let kept = scanner.give_back(&mut front);
    (front, MAX_KEPT - kept)
}

/// Everything but the places, which the path of small messages leaves out.
fn same(one: &Follower, other: &Follower) {
    assert_eq!(one.passed, other.passed, "other bytes pass");
    assert_eq!(one.cut, other.cut);
    assert_eq!(one.refused, other.refused);
    assert_eq!(one.told, other.told);
    assert_eq!(one.tally.faults, other.tally.faults);
    assert_eq!(one.scanner, other.scanner);
}

/// Whether the scanner found what the other reader found.
fn is_what_was_read(follower: &Follower, reading: &Reading<'_>, stream: &[u8]) {
    let setup = follower.setup;
    let (mut passed, mut cut, mut counts, mut code) =
        (Vec::<u8>::new(), 0, Counts::default(), None);
    let mut faults = usize::from(reading.tail == Tail::Fault);
    for frame in &reading.frames {
        let bytes = &stream[frame.start..frame.end(stream)];
        let payload = frame.unmasked();
        if is_ours(frame, setup) {
            cut += bytes.len();
            continue;
        }
        passed.extend(bytes);
        faults += usize::from(frame.is_wrong);
        match frame.opcode {
            PING => counts.pings += 1,
            PONG => counts.pongs += 1,
            CLOSE if code.is_none() => {
                let sent = payload.first_chunk::<2>().filter(|_| frame.is_short);
                let sent = sent.map_or(0, |code| u16::from_be_bytes(*code));
                code = Some(if sent == 0 { 1005 } else { sent });
            }
            0..3 => {
                counts.payload += payload.len() as u64;
                counts.messages += u64::from(frame.fin && frame.is_whole());
                counts.data_frames += u64::from(!frame.fin || frame.is_whole());
            }
            _ => {}
        }
    }
    let behind = &stream[reading.tail_at..];
    let is_lost = reading.tail == Tail::Fault && !setup.limits.is_strict;
    let is_refused = reading.tail != Tail::More && !is_lost;
    let held_at = reading.held_at(stream, setup.limits);
    if is_lost {
        passed.extend(behind);
    } else if !is_refused {
        passed.extend(&stream[reading.tail_at..held_at]);
    }
    assert_eq!(follower.passed, passed);
    assert_eq!(follower.cut, cut);
    assert_eq!(follower.refused.as_deref(), is_refused.then_some(behind));
    assert_eq!(follower.scanner.counts(), counts);
    assert_eq!(follower.scanner.close_code(), code);
    assert_eq!(follower.scanner.is_on(), !is_lost);
    let is_in_head = reading.tail == Tail::More && held_at > reading.tail_at;
    let is_between = reading.frames.last().is_none_or(|last| last.is_whole()) && !is_in_head;
    assert_eq!(follower.scanner.at_boundary(), is_between && !is_lost && code.is_none());
    assert_eq!(follower.scanner.is_behind_close(), is_between && !is_lost && code.is_some());
    assert_eq!(follower.scanner.in_message(), reading.in_message);
    let told = |is: fn(&Then) -> bool| follower.told.iter().filter(|then| is(then)).count();
    let is_closed = reading.frames.iter().any(|frame| frame.opcode == CLOSE);
    assert_eq!(told(|then| matches!(then, Then::Closed)), usize::from(is_closed));
    let counted = follower.tally.faults.iter().sum::<u32>() as usize;
    assert_eq!(told(|then| matches!(then, Then::Fault(_))) + counted, faults);
    assert!(counted == 0 || !setup.limits.is_strict);
    let over_limit = usize::from(reading.tail == Tail::OverLimit);
    assert_eq!(told(|then| matches!(then, Then::OverLimit(_))), over_limit);
    let places = places(reading, stream, setup);
    assert!(follower.reached.iter().all(|place| places.contains(place)));
}

/// Bytes that have passed at each place that `setup` asks for.
fn places(reading: &Reading<'_>, stream: &[u8], setup: Setup) -> Vec<usize> {
    let (mut places, mut passed, mut is_closed, mut in_message) = (Vec::new(), 0, false, false);
    for frame in &reading.frames {
        if is_ours(frame, setup) {
            continue;
        }
        passed += frame.end(stream) - frame.start;
        let is_first_close = frame.opcode == CLOSE && !is_closed;
        is_closed |= is_first_close;
        if frame.is_of_message() {
            in_message = !frame.fin;
        }
        let is_place = match setup.until {
            Until::End => false,
            Until::Boundary => !is_closed,
            Until::MessageEnd => !is_closed && !in_message,
            Until::Close => is_closed,
        };
        // The first Close is told of as itself where it came whole with its head and its code.
        let is_told = is_first_close && came_at_once(frame);
        if is_place && frame.is_whole() && !is_told {
            places.push(passed);
        }
    }
    places
}

/// Byte by byte: it is told when it is whole.
const fn came_at_once(close: &Frame<'_>) -> bool {
    close.length == 0 || (close.length == 2 && close.is_short)
}

fn is_ours(frame: &Frame<'_>, setup: Setup) -> bool {
    setup.limits.awaits_pong && frame.may_answer_us() && frame.unmasked() == OURS
}
