//! However a stream is split, the scanner says the same of it, and what it says is what was sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::rules::Limit;
use super::*;
use crate::encoding::{Reader, RecordFault};

const OURS: [u8; NONCE] = *b"our ping";

impl Scanner {
    /// One with any value in each field.
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let kept = prop::collection::vec(any::<u8>(), 0..=MAX_KEPT);
        let position = prop_oneof![
            (kept, any::<bool>()).prop_map(|(bytes, has_passed)| {
                let mut kept = [0; MAX_KEPT];
                kept[MAX_KEPT - bytes.len()..].copy_from_slice(&bytes);
                let have = u8::try_from(bytes.len()).unwrap();
                Position::Head { have, passed: if has_passed { have } else { 0 }, kept }
            }),
            (1..=u64::MAX, any::<bool>())
                .prop_map(|(left, is_control)| Position::Payload { left, is_control }),
            Just(Position::Lost),
        ];
        let counts = (any::<[u64; 3]>(), any::<[u32; 3]>());
        let masking = prop_oneof![Just(Masking::Required), Just(Masking::Forbidden)];
        (position, counts, any::<u16>(), masking, any::<bool>()).prop_map(
            |(position, (long, short), close, masking, is_in_message)| {
                let [message, messages, payload] = long;
                let [fragments, pings, other_pongs] = short;
                Self {
                    position,
                    message,
                    messages,
                    payload,
                    fragments,
                    pings,
                    pongs: other_pongs,
                    close: NonZeroU16::new(close),
                    masking,
                    is_in_message,
                }
            },
        )
    }
}

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
    fn new(sender: Peer, rules: Rules) -> Self {
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
    fn encode(&self, sender: Peer) -> Vec<u8> {
        let header = FrameHeader {
            is_final: self.fin,
            rsv1: self.rsv1,
            rsv2: false,
            rsv3: false,
            opcode: self.opcode,
            mask: (sender == Peer::Client).then_some([0x37, 0xfa, 0x21, 0x3d]),
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
        sent.extend(
            close.map(|(code, reason)| {
                control(Control::Close, &[code.to_be_bytes(), reason].concat())
            }),
        );
        sent
    })
}

/// Frames, then one byte of them changed, then anything.
fn disturbed(sender: Peer) -> impl Strategy<Value = Vec<u8>> {
    let tail = prop::collection::vec(any::<u8>(), 0..40);
    (stream(), any::<Option<(prop::sample::Index, u8)>>(), tail).prop_map(
        move |(sent, change, tail)| {
            let mut bytes: Vec<_> = sent.iter().flat_map(|frame| frame.encode(sender)).collect();
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

fn disturbed_by_either() -> impl Strategy<Value = (Peer, Vec<u8>)> {
    prop_oneof![Just(Peer::Client), Just(Peer::Upstream)]
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
        let sender = if from_client { Peer::Client } else { Peer::Upstream };
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
        let length = if sender == Peer::Client { 14 } else { 10 };
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
        let sender = if from_client { Peer::Client } else { Peer::Upstream };
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
        let sender = if from_client { Peer::Client } else { Peer::Upstream };
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
        let sender = if from_client { Peer::Client } else { Peer::Upstream };
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
        let mut follower = Follower::new(Peer::Client, rules);
        follower.scanner = Scanner::off();
        follower.feed(&bytes);
        prop_assert_eq!(follower.passed, bytes);
        prop_assert!(follower.told.is_empty());
        prop_assert!(!follower.scanner.at_boundary());
        prop_assert_eq!(follower.scanner.counts(), Counts::default());
    }
}

/// Whether a frame begins at `at`, asked of a scanner that got exactly the bytes before it.
fn is_frame_start(sender: Peer, rules: Rules, bytes: &[u8], at: usize) -> bool {
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
    for sender in [Peer::Client, Peer::Upstream] {
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
    let mut follower = Follower::new(Peer::Upstream, strict());
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
        let refusing = Follower::new(Peer::Upstream, strict()).feed_all(&bytes);
        assert_eq!(refusing.told, [Then::Fault(*fault)]);
        assert_eq!(refusing.passed, text);
        assert!(refusing.scanner.at_boundary(), "a Close could not go out");

        let observing = Follower::new(Peer::Upstream, lenient()).feed_all(&bytes);
        assert_eq!(observing.broken()[0], *fault);
        assert!(observing.told.is_empty());
        assert_eq!(observing.passed, bytes);
        let is_lost = *fault == Fault::LengthTopBit;
        assert_eq!(observing.scanner.is_on(), !is_lost, "{fault}");
    }
    let unmasked = Follower::new(Peer::Client, strict()).feed_all(b"\x81\x01!");
    assert_eq!(unmasked.told, [Then::Fault(Fault::MaskMissing)]);
    let inside = Follower::new(Peer::Upstream, strict()).feed_all(b"\x01\x01!\x82\x01!");
    assert_eq!(inside.told, [Then::Fault(Fault::MessageInsideMessage)]);
    assert_eq!(inside.passed, b"\x01\x01!");
    assert!(inside.scanner.at_boundary() && inside.scanner.in_message());
}

#[test]
fn where_frames_are_only_observed_a_broken_rule_changes_nothing_behind_it() {
    let rules = Rules::new(Some(1000), None, false);
    let ours = control(Control::Pong, &OURS).encode(Peer::Client);
    let too_big = data(Data::Binary, true, &[0; 1001]).encode(Peer::Client);
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
            let follower = Follower::new(Peer::Client, rules).feed_pieces(&bytes, &cuts);
            assert_eq!(follower.told, told, "{fault}");
            assert_eq!(follower.broken(), [*fault]);
            assert_eq!(follower.passed, *bad, "{fault}");
            assert!(follower.scanner.at_boundary());
        }
        bytes.truncate(bad.len());
        bytes.extend(control(Control::Close, b"\x03\xe9").encode(Peer::Client));
        let follower = Follower::new(Peer::Client, rules).feed_all(&bytes);
        assert_eq!(follower.scanner.close_code(), Some(1001), "{fault}");
    }
    // A Close that breaks a rule is one, too, and no control frame is a way around a limit.
    let close = Follower::new(Peer::Client, rules).feed_all(b"\x88\x02\x03\xe9");
    assert_eq!((close.scanner.close_code(), close.passed.len()), (Some(1001), 4));
    let ping = Follower::new(Peer::Upstream, rules).feed_all(b"\x89\x7e\x03\xe9");
    assert_eq!(ping.told, [Then::OverLimit(Limit::Frame)]);
}

#[test]
fn a_limit_acts_at_the_head() {
    let max_frame = Rules::new(Some(200), None, false);
    let max_message = Rules::new(None, Some(300), false);
    // Neither path may let one byte more through than the other.
    for limit in [0, 1, 125] {
        for length in [limit, limit + 1] {
            let frame = data(Data::Text, true, &vec![b'x'; length]).encode(Peer::Client);
            let rules = Rules::new(Some(limit as u64), None, false);
            let told = Follower::new(Peer::Client, rules).feed_all(&frame).told;
            assert_eq!(told.is_empty(), length == limit, "{length} with {limit}");
        }
    }
    let frame = data(Data::Binary, true, &[0; 201]).encode(Peer::Client);
    let follower = Follower::new(Peer::Client, max_frame).feed_all(&frame[..8]);
    assert_eq!(follower.told, [Then::OverLimit(Limit::Frame)]);
    assert!(follower.passed.is_empty() && follower.scanner.at_boundary());

    let frame = data(Data::Binary, true, &[0; 200]).encode(Peer::Client);
    let follower = Follower::new(Peer::Client, max_frame).feed_all(&frame);
    assert_eq!((follower.told, follower.passed), (vec![], frame));

    let first = data(Data::Binary, false, &[0; 200]).encode(Peer::Client);
    let ping = control(Control::Ping, &[0; 125]).encode(Peer::Client);
    let fits = data(Data::Continue, true, &[0; 100]).encode(Peer::Client);
    let exceeds = data(Data::Continue, false, &[0; 101]).encode(Peer::Client);
    let whole = [&first[..], &ping, &fits, &first, &fits].concat();
    let follower = Follower::new(Peer::Client, max_message).feed_all(&whole);
    assert_eq!((follower.told, follower.passed), (vec![], whole));
    let begun = [&first[..], &ping].concat();
    let mut follower = Follower::new(Peer::Client, max_message).feed_all(&begun);
    follower.feed(&exceeds);
    assert_eq!(follower.told, [Then::OverLimit(Limit::Message)]);
    assert_eq!(follower.passed, begun);
    assert!(follower.scanner.in_message());
}

#[test]
fn only_what_passed_is_counted() {
    let first = data(Data::Text, false, &[b'x'; 10]).encode(Peer::Upstream);
    let ping = control(Control::Ping, &[0; 10]).encode(Peer::Upstream);
    let last = data(Data::Continue, true, &[b'x'; 200]).encode(Peer::Upstream);
    let mut follower = Follower::new(Peer::Upstream, strict());
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
    let mut follower = Follower::new(Peer::Upstream, Rules::new(None, Some(u64::MAX - 1), true));
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
    let close = control(Control::Close, b"\x03\xe9away").encode(Peer::Client);
    let mut follower = Follower::new(Peer::Client, strict());
    follower.feed(&close[..7]);
    assert!(follower.passed.is_empty(), "its code is half there");
    follower.feed(&close[7..8]);
    assert_eq!(follower.passed, close[..8]);
    assert_eq!(follower.told, [Then::Closed]);
    assert_eq!(follower.scanner.close_code(), Some(1001));
    follower.feed(&close[8..]);
    assert_eq!(follower.passed, close);
    assert!(!follower.scanner.at_boundary(), "nothing may follow a Close");

    let mut follower = Follower::new(Peer::Client, lenient());
    for (place, byte) in close.iter().enumerate() {
        assert_eq!(follower.scanner.close_code().is_some(), place >= 8);
        follower.feed(&[*byte]);
        assert_eq!(follower.passed, close[..=place], "held for nothing");
    }
    assert_eq!(follower.scanner.close_code(), Some(1001));

    for without in [&b"\x88\x00"[..], b"\x88\x01!", b"\x88\x02\0\0"] {
        let bytes = [without, b"\x8a\x01!"].concat();
        let follower = Follower::new(Peer::Upstream, lenient()).feed_all(&bytes);
        assert_eq!(follower.scanner.close_code(), Some(1005));
        assert_eq!(follower.passed, bytes);
    }
    let twice = Follower::new(Peer::Upstream, lenient()).feed_all(b"\x88\x02\x03\xe8\x88\x00");
    assert_eq!(twice.told, [Then::Closed]);
    assert_eq!(twice.scanner.close_code(), Some(1000));
}

#[test]
fn only_a_pong_of_ours_is_cut() {
    for sender in [Peer::Client, Peer::Upstream] {
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
    let pong = control(Control::Pong, b"not ours").encode(Peer::Client);
    let mut follower = Follower::new(Peer::Client, lenient());
    follower.feed(&pong[..13]);
    assert!(follower.passed.is_empty() && follower.scanner.at_boundary());
    follower.feed(&pong[13..]);
    assert_eq!(follower.passed, pong);
    assert_eq!(follower.scanner.counts().pongs, 1);
}

/// The payload of a frame that has ended is no place, nor are more bytes of a head than a head has.
#[test]
fn what_is_no_position_is_refused() {
    let none_left = [&[1, 0x80, 1, 0, 0, 0, 8][..], &[0; 8]].concat();
    let too_many = [&[0, 0x80, 1, 0, 0, 0, 14][..], &[0; 14]].concat();
    for bytes in [none_left, too_many] {
        let read = Reader::new(&bytes).whole::<Position>();
        assert_eq!(read, Err(RecordFault::Malformed), "{bytes:?}");
    }
}
