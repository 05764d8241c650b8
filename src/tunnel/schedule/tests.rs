//! Schedules with a name: what has to come of each.

use std::time::Duration;

use super::*;
use crate::clock::ticks;
use crate::end::{End, Phase};

const TEXT: u8 = 0x81;
const CLOSED: u8 = 0x80 | CLOSE;
const HALF: [u8; 2] = [0x01, 0x80];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn close(sender: Peer, code: u16) -> Vec<u8> {
    encode(sender, CLOSED, &code.to_be_bytes())
}

fn drained(by: impl Into<Side>, why: Reason) -> End {
    End::new(by.into(), Phase::Drain, why)
}

fn relayed(by: Peer, why: Reason) -> End {
    End::new(by.into(), Phase::Relay, why)
}

impl Run {
    fn with(options: &Options) -> Self {
        Self::of(Protocol::WebSocket, options)
    }

    fn of(protocol: Protocol, options: &Options) -> Self {
        let buffer = vec![0xff; MAX_KEPT + 4096];
        let early = <[Vec<u8>; 2]>::default();
        let mut run = Self::start(options, FrameLimits::default(), protocol, buffer, early, 0x5eed);
        for side in BOTH {
            run.wires[side].make_room(1 << 20);
        }
        run.serve();
        run
    }

    /// No room for a byte more.
    fn fill(&self, side: Peer) {
        self.wires[side].room.set(0);
    }

    fn says(&mut self, side: Peer, bytes: &[u8]) {
        self.send(side, bytes, false);
        self.serve();
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.wrapping_add(ticks(time));
        while is_reached(self.look_at, until) && !self.is_over {
            self.now = self.look_at;
            self.look();
            if !self.is_over {
                self.serve();
            }
        }
        self.now = until;
    }

    /// It is drained now: the Close goes out, if it may.
    fn drain(&mut self) {
        let now = self.now;
        self.moment().drain_at(now);
        self.rearm();
        self.wait(TICK * 2);
    }

    fn got(&self, side: Peer) -> Vec<u8> {
        self.wires[side].taken.borrow().clone()
    }

    fn frames(&self, side: Peer) -> Vec<(u8, Vec<u8>)> {
        let got = self.got(side);
        let read = reference::read(&got, side.other(), FrameLimits::default());
        assert_eq!(read.tail_at, got.len());
        read.frames.iter().map(|frame| (frame.opcode, frame.unmasked())).collect()
    }

    fn last_close(&self, side: Peer) -> Option<u16> {
        let (opcode, payload) = self.frames(side).pop()?;
        (opcode == CLOSE).then(|| u16::from_be_bytes([payload[0], payload[1]]))
    }

    fn is_told(&self, side: Peer) -> bool {
        self.wires[side].is_told.get()
    }

    fn ended_by_us(&self) -> Option<End> {
        self.state.close_handshake.end()
    }

    fn ended(&self) -> End {
        assert!(self.is_over, "it goes on");
        self.state.end()
    }
}

fn silent() -> Options {
    Options { grace: seconds(2), stall_timeout: seconds(60), ..Options::default() }
}

#[test]
fn words_before_the_answer_wait_for_a_slow_application() {
    let mut run = Run::with(&silent());
    run.drain();
    run.fill(Peer::Upstream);
    let said = [encode(Peer::Client, TEXT, &[7; 3000]), close(Peer::Client, 1001)].concat();
    run.says(Peer::Client, &said);
    for _ in 0..10 {
        // It moves, and no event tells.
        run.wait(seconds(30));
        let room = &run.wires.upstream.room;
        room.set(room.get() + 100);
    }
    assert!(!run.is_over);
    run.wires.upstream.make_room(1 << 20);
    run.serve();
    assert_eq!(run.got(Peer::Upstream), said);
    assert!(run.is_told(Peer::Upstream) && run.is_told(Peer::Client));
    run.wait(seconds(1));
    assert!(!run.is_over, "no time to read it");
    run.wait(seconds(3));
    assert_eq!(run.ended(), drained(Side::Elbows, Reason::Drained));
}

#[test]
fn what_did_not_arrive_is_not_called_drained() {
    for is_end_of_process in [true, false] {
        let mut run = Run::with(&silent());
        run.drain();
        run.fill(Peer::Upstream);
        let said = [encode(Peer::Client, TEXT, b"lost"), close(Peer::Client, 1001)].concat();
        run.says(Peer::Client, &said);
        if is_end_of_process {
            run.state.cut();
            let end = run.state.end();
            assert_eq!(end, drained(Side::Elbows, Reason::PeriodOver));
            continue;
        }
        run.wait(seconds(90));
        assert_eq!(run.ended(), drained(Peer::Upstream, Reason::Stalled));
    }
}

#[test]
fn messages_before_one_that_is_too_big_wait_for_a_slow_other_side() {
    for side in BOTH {
        let mut run = Run::with(&Options { max_frame_size: Some(1000), ..silent() });
        run.fill(side.other());
        let good = encode(side, TEXT, &[7; 999]);
        run.says(side, &[&good[..], &encode(side, TEXT, &[7; 1001])].concat());
        run.wait(seconds(30));
        run.wires[side.other()].make_room(1 << 20);
        run.serve();
        assert!(run.got(side.other()).starts_with(&good), "words are lost");
        assert_eq!(run.last_close(side.other()), Some(1001));
        assert_eq!(run.last_close(side), Some(1009));
        assert_eq!(run.state.close(), Some((1009, Side::Elbows)));
        run.wait(seconds(5));
        assert_eq!(run.ended(), relayed(side, Reason::TooBig));
    }
}

#[test]
fn a_sender_that_goes_on_has_longer_to_read_its_close_but_not_for_ever() {
    let mut run = Run::with(&Options { max_frame_size: Some(1000), ..silent() });
    run.says(Peer::Client, &encode(Peer::Client, TEXT, &[7; 1001]));
    for _ in 0..20 {
        run.says(Peer::Client, b"more");
        run.wait(seconds(1));
    }
    assert!(!run.is_over);
    for _ in 0..20 {
        if !run.is_over {
            run.says(Peer::Client, b"more");
            run.wait(seconds(1));
        }
    }
    assert_eq!(run.ended(), relayed(Peer::Client, Reason::TooBig));
}

#[test]
fn a_client_that_takes_what_stands_before_a_ping_is_not_gone() {
    let options =
        Options { ping_interval: Some(seconds(10)), pong_timeout: seconds(4), ..silent() };
    let mut run = Run::with(&options);
    run.wait(seconds(9));
    run.fill(Peer::Client);
    run.says(Peer::Upstream, &encode(Peer::Upstream, TEXT, &[7; 4000]));
    run.wait(seconds(2));
    for _ in 0..30 {
        run.wires.client.room.set(100);
        run.wait(seconds(1));
    }
    assert!(!run.is_over, "{}", run.state.end());
    // It takes nothing any more.
    run.wait(seconds(6));
    assert_eq!(run.ended_by_us(), Some(relayed(Peer::Client, Reason::Timeout)));
}

#[test]
fn a_slow_reader_that_no_event_tells_of_is_not_stalled() {
    for side in BOTH {
        let mut run = Run::with(&Options { stall_timeout: seconds(5), ..silent() });
        run.fill(side);
        run.says(side.other(), &encode(side.other(), TEXT, &[7; 4000]));
        for _ in 0..20 {
            run.wires[side].room.set(50);
            run.wait(seconds(1));
        }
        assert!(!run.is_over && run.ended_by_us().is_none());
        run.wait(seconds(8));
        assert_eq!(run.ended_by_us(), Some(relayed(side, Reason::Stalled)));
    }
}

#[test]
fn pings_do_not_pile_up_before_a_client_that_takes_nothing() {
    let options = Options {
        ping_interval: Some(seconds(1)),
        pong_timeout: seconds(30),
        stall_timeout: seconds(100),
        ..silent()
    };
    let mut run = Run::with(&options);
    run.fill(Peer::Client);
    for _ in 0..20 {
        run.says(Peer::Client, &encode(Peer::Client, TEXT, b"here"));
        run.wait(seconds(2));
    }
    assert!(run.state.flows.upstream.waiting.len() <= 20);
    run.wires.client.make_room(1 << 20);
    run.serve();
    assert_eq!(run.frames(Peer::Client).len(), 1);
}

#[test]
fn a_message_that_moves_is_not_idle() {
    let mut run = Run::with(&Options { idle_timeout: Some(seconds(3)), ..silent() });
    let message = encode(Peer::Upstream, TEXT, &[7; 3000]);
    for piece in message.chunks(100) {
        run.says(Peer::Upstream, piece);
        run.wait(seconds(1));
    }
    assert!(!run.is_over && run.state.close().is_none());
    run.wait(seconds(4));
    assert_eq!(run.last_close(Peer::Client), Some(1001));
}

#[test]
fn a_client_that_resets_in_its_goodbye_is_gone_at_once() {
    let mut run = Run::with(&silent());
    run.drain();
    run.says(Peer::Client, &encode(Peer::Client, TEXT, b"last words"));
    run.reset(Peer::Client);
    run.serve();
    assert_eq!(run.last_close(Peer::Upstream), Some(1001));
    assert_eq!(run.frames(Peer::Upstream)[0].1, b"last words");
    assert_eq!(run.ended_by_us(), Some(relayed(Peer::Client, Reason::Reset)));
}

#[test]
fn a_client_answers_although_its_application_was_reset() {
    for is_within_message in [false, true] {
        let mut run = Run::with(&silent());
        if is_within_message {
            run.says(Peer::Upstream, &encode(Peer::Upstream, 1, b"begun"));
        }
        run.drain();
        run.reset(Peer::Upstream);
        run.serve();
        assert_eq!(run.last_close(Peer::Client), Some(1001));
        run.says(Peer::Client, &encode(Peer::Client, TEXT, b"nobody hears it"));
        assert!(!run.is_told(Peer::Client));
        let answer = close(Peer::Client, 1001);
        run.says(Peer::Client, &answer[..5]);
        run.says(Peer::Client, &answer[5..]);
        assert!(run.is_told(Peer::Client));
        run.end(Peer::Client);
        run.serve();
        assert_eq!(run.ended(), drained(Side::Elbows, Reason::Drained));
    }
}

#[test]
fn a_side_that_does_not_end_when_the_other_has_is_given_the_time_of_a_pong() {
    for is_half_closed in [false, true] {
        for side in BOTH {
            let options = Options { pong_timeout: seconds(20), ..silent() };
            let mut run = Run::with(&options);
            run.wait(seconds(100));
            run.says(side, &close(side, 1000));
            if is_half_closed {
                run.end(side);
                run.serve();
            }
            // What it still says has time.
            for _ in 0..3 {
                run.wait(seconds(15));
                run.says(side.other(), &encode(side.other(), TEXT, b"more"));
            }
            assert!(!run.is_over && run.ended_by_us().is_none());
            run.wait(seconds(30));
            assert_eq!(run.ended(), relayed(side.other(), Reason::Timeout));
            assert!(run.is_told(side) && run.is_told(side.other()));
            if !is_half_closed {
                assert_eq!(run.last_close(side), Some(1001));
            }
        }
    }
}

#[test]
fn both_have_said_goodbye_and_nobody_ends() {
    let mut run = Run::with(&silent());
    for side in BOTH {
        run.says(side, &close(side, 1000));
    }
    run.wait(seconds(30));
    assert_eq!(run.ended(), relayed(Peer::Upstream, Reason::Timeout));
}

#[test]
fn a_half_open_tunnel_ends_when_nothing_passes_for_as_long_as_a_ping_and_its_answer() {
    for side in BOTH {
        let options = Options { ping_interval: Some(seconds(50)), ..silent() };
        let mut run = Run::with(&options);
        run.end(side);
        run.serve();
        for _ in 0..4 {
            run.wait(seconds(60));
            run.says(side.other(), &encode(side.other(), TEXT, b"on"));
        }
        assert!(!run.is_over && run.ended_by_us().is_none());
        run.wait(seconds(100));
        assert_eq!(run.ended(), relayed(side.other(), Reason::Timeout));
    }
}

#[test]
fn a_message_and_its_goodbye_have_one_grace_in_a_drain() {
    let mut run = Run::with(&silent());
    let now = run.now;
    run.rulebook.drains(ticks(seconds(5)), now);
    run.says(Peer::Upstream, &encode(Peer::Upstream, HALF[0], b"begun"));
    run.wait(seconds(5));
    run.drain();
    run.wait(Duration::from_millis(1_900));
    assert_eq!(run.last_close(Peer::Client), None);
    run.wait(Duration::from_millis(150));
    assert_eq!(run.last_close(Peer::Client), Some(1001));
    assert_eq!(run.ended_by_us(), None);
    run.wait(Duration::from_millis(200));
    assert_eq!(run.ended_by_us(), Some(drained(Side::Elbows, Reason::Timeout)));
    assert_eq!(run.last_close(Peer::Upstream), Some(1001));
}

#[test]
fn a_client_that_had_closed_itself_gets_a_close_back_and_is_not_blamed() {
    let mut run = Run::with(&Options { close_code: 1012, ..silent() });
    run.says(Peer::Client, &close(Peer::Client, 1000));
    run.drain();
    assert_eq!(run.last_close(Peer::Client), None, "the application's answer may come");
    run.wait(seconds(3));
    assert_eq!(run.last_close(Peer::Client), Some(1012));
    assert_eq!(run.ended_by_us(), Some(drained(Peer::Upstream, Reason::Timeout)));
}

#[test]
fn where_no_close_can_be_both_streams_end_and_are_not_cut() {
    let mut run = Run::of(Protocol::Other, &silent());
    run.says(Peer::Upstream, b"half a wor");
    run.drain();
    assert!(run.is_told(Peer::Client) && run.is_told(Peer::Upstream));
    assert_eq!(run.ended_by_us(), Some(drained(Side::Elbows, Reason::PeriodOver)));
}

#[test]
fn strict_tells_both_sides_1002() {
    for side in BOTH {
        let mut run = Run::with(&Options { strict: true, ..silent() });
        run.says(side, &HALF.map(|_| 0xff));
        assert_eq!(run.last_close(side), Some(1002));
        assert_eq!(run.last_close(side.other()), Some(1002));
    }
}

#[test]
fn a_broken_rule_that_is_observed_switches_nothing_off() {
    let options = Options { ping_interval: Some(seconds(10)), ..silent() };
    let mut run = Run::with(&options);
    run.says(Peer::Client, b"\x81\xfe\x00\x01abcd!");
    run.says(Peer::Upstream, b"\x81\x7e\x00\x01!");
    run.wait(seconds(11));
    let (opcode, payload) = run.frames(Peer::Client).pop().unwrap();
    assert_eq!(opcode, PING);
    run.says(Peer::Client, &encode(Peer::Client, 0x80 | PONG, &payload));
    assert_eq!(run.frames(Peer::Upstream).len(), 1, "our pong leaked");
    run.drain();
    assert_eq!(run.last_close(Peer::Client), Some(1001));
}

/// RFC 6455, section 5.3: a fresh key for each frame, that nobody can foresee.
#[test]
fn pings_to_the_application_have_a_mask_each() {
    let options = Options {
        ping_upstream_interval: Some(seconds(10)),
        pong_timeout: seconds(3000),
        ..silent()
    };
    let mut run = Run::with(&options);
    for _ in 0..5 {
        run.wait(seconds(11));
        run.says(Peer::Upstream, &encode(Peer::Upstream, TEXT, b"here"));
    }
    let got = run.got(Peer::Upstream);
    let mut masks: Vec<_> = got.chunks(14).map(|ping| ping[2..6].to_vec()).collect();
    assert!(got.chunks(14).all(|ping| ping[..2] == [0x89, 0x88]), "{got:x?}");
    masks.sort();
    masks.dedup();
    assert!(masks.len() >= 4, "{masks:x?}");
}

#[test]
fn a_side_whose_frames_are_lost_is_not_pinged() {
    let options = Options { ping_interval: Some(seconds(10)), ..silent() };
    let mut run = Run::with(&options);
    run.says(Peer::Client, b"\x82\xff\xff\0\0\0\0\0\0\0abcd!");
    run.wait(seconds(100));
    assert!(run.got(Peer::Client).is_empty());
    assert!(!run.is_over);
}

/// Frames of two or six bytes that each break a rule, by the side that sends them.
fn faulty(side: Peer) -> [(&'static str, Vec<u8>); 4] {
    let raw = |first: u8, is_masked: bool| {
        if is_masked { vec![first, 0x80, 1, 2, 3, 4] } else { vec![first, 0] }
    };
    let is_client = side == Peer::Client;
    [
        ("mask", raw(0x82, !is_client)),
        ("opcode", raw(0x83, is_client)),
        ("continuation", raw(0x80, is_client)),
        ("control in pieces", raw(0x09, is_client)),
    ]
}

#[test]
fn faulty_frames_are_written_together_as_good_ones_are() {
    for side in BOTH {
        for (fault, frame) in faulty(side) {
            let options = silent();
            let mut run = Run::with(&options);
            let sent = frame.repeat((1 << 14) / frame.len());
            let writes = run.wires[side.other()].writes.get();
            run.says(side, &sent);
            assert_eq!(run.got(side.other()), sent, "{fault}");
            let writes = run.wires[side.other()].writes.get() - writes;
            // Where frames are dense, little is read at once.
            assert!(writes <= sent.len() / 2048 + 1, "{fault}: {writes} writes");
            let counted: u64 = options.counters.frame_faults.broken().map(|(_, n)| n).sum();
            assert_eq!(counted, (sent.len() / frame.len()) as u64, "{fault}");
        }
    }
}

#[test]
fn a_turn_has_fewer_bytes_where_frames_break_rules() {
    for side in BOTH {
        let (_, faulty) = faulty(side).into_iter().next().unwrap();
        for (frame, is_faulty) in [(faulty, true), (encode(side, 0x82, &[7; 8]), false)] {
            let mut run = Run::with(&silent());
            let sent = frame.repeat(12_000 / frame.len());
            run.send(side, &sent, false);
            let events = run.wires[side].events().unwrap();
            run.moment().note(side, events);
            let next = run.turn_once();
            let got = run.got(side.other()).len();
            assert_eq!(got < 5000, is_faulty, "{got}");
            assert_eq!(next == Next::Again, is_faulty);
        }
    }
}

#[test]
fn little_is_read_at_once_where_frames_are_dense() {
    for side in BOTH {
        let mut run = Run::with(&silent());
        let (_, faulty) = faulty(side).into_iter().next().unwrap();
        let dense = faulty.repeat(12_000 / faulty.len());
        let sparse = encode(side, 0x82, &[7; 8]).repeat(1_000);
        run.send(side, &[dense.as_slice(), &sparse].concat(), false);
        let events = run.wires[side].events().unwrap();
        run.moment().note(side, events);
        let mut turns = Vec::new();
        let mut got = 0;
        loop {
            let next = run.turn_once();
            let all = run.got(side.other()).len();
            turns.push(all - got);
            got = all;
            if next != Next::Again {
                break;
            }
        }
        assert_eq!(got, dense.len() + sparse.len());
        // The first one cannot know.
        let (first, dense) = turns.split_first().unwrap();
        assert!(*first <= 4096, "{turns:?}");
        assert!(dense.iter().take(3).all(|got| *got <= 2048), "{turns:?}");
        // As much as there is room for, as soon as frames are what they are mostly.
        assert!(turns.iter().any(|got| *got > 4096), "{turns:?}");
    }
}

#[test]
fn who_has_half_of_a_message_that_is_refused_is_told_between_its_frames_at_once() {
    for side in BOTH {
        for is_limit in [true, false] {
            let mut run = Run::with(&Options {
                max_message_size: is_limit.then_some(1000),
                strict: !is_limit,
                ..silent()
            });
            let first = encode(side, 1, &[7; 600]);
            run.says(side, &first);
            let second = if is_limit { 0x80 } else { TEXT };
            run.says(side, &encode(side, second, &[7; 401]));
            let (to_it, to_other) = if is_limit { (1009, 1001) } else { (1002, 1002) };
            assert_eq!(run.last_close(side), Some(to_it));
            assert_eq!(run.last_close(side.other()), Some(to_other));
            assert!(run.got(side.other()).starts_with(&first));
            assert!(run.is_told(side) && run.is_told(side.other()));
        }
    }
}

#[test]
fn strict_refuses_a_close_that_breaks_a_rule_and_data_behind_one() {
    let code = |code: u16| code.to_be_bytes().to_vec();
    let wrong = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535];
    let right = [1000, 1003, 1007, 1014, 3000, 4999];
    for side in BOTH {
        let payloads = wrong.map(code).into_iter().chain([vec![3], b"\x03\xedwhy".to_vec()]);
        for payload in payloads {
            for piece in [1, 200] {
                let options = Options { strict: true, ..silent() };
                let mut run = Run::with(&options);
                for piece in encode(side, CLOSED, &payload).chunks(piece) {
                    run.says(side, piece);
                }
                assert_eq!(run.last_close(side), Some(1002), "{payload:?}");
                assert_eq!(run.last_close(side.other()), Some(1002), "{payload:?}");
                assert_eq!(options.counters.frame_faults.broken().count(), 1);
            }
        }
        for payload in right.map(code).into_iter().chain([vec![]]) {
            let mut run = Run::with(&Options { strict: true, ..silent() });
            let close = encode(side, CLOSED, &payload);
            // What is no data may follow.
            let all = [&close[..], &encode(side, 0x80 | PING, b"?")].concat();
            run.says(side, &all);
            assert_eq!(run.got(side.other()), all);
            run.says(side, &encode(side, TEXT, b"more"));
            assert_eq!(run.got(side.other()), all, "data passed behind a Close");
            assert!(run.is_told(side.other()));
            assert_eq!(run.last_close(side), Some(1002));
        }
    }
}

#[test]
fn a_client_has_the_time_of_a_pong_once() {
    let options = Options { ping_interval: Some(seconds(1)), pong_timeout: seconds(1), ..silent() };
    let mut run = Run::with(&options);
    let start = run.now;
    while run.ended_by_us().is_none() {
        run.now = run.look_at;
        run.look();
    }
    let took = TICK * run.now.wrapping_sub(start);
    assert!(took >= seconds(2) && took <= seconds(2) + 4 * TICK, "{took:?}");
}

#[test]
fn what_is_only_observed_passes_byte_by_byte() {
    for side in BOTH {
        let frames = [
            encode(side, TEXT, &[7; 300]),
            encode(side, 0x80 | PONG, b"8 bytes."),
            encode(side, 0x09, b"in pieces"),
            close(side, 1000),
        ];
        let large = encode(side, 2, &vec![7; 70_000])[..20].to_vec();
        for (sent, is_closed) in [(frames.concat(), true), (large, false)] {
            let mut run = Run::with(&silent());
            for (place, byte) in sent.iter().enumerate() {
                run.says(side, &[*byte]);
                assert!(run.got(side.other()) == sent[..=place], "{place}");
            }
            assert_eq!(run.state.close(), is_closed.then_some((1000, side.into())));
        }
    }
}

#[test]
fn only_what_can_be_a_pong_of_ours_is_held_and_only_while_a_ping_has_none() {
    let options =
        Options { ping_interval: Some(seconds(1)), pong_timeout: seconds(100), ..silent() };
    let mut run = Run::with(&options);
    run.wait(seconds(2));
    let (_, ping) = run.frames(Peer::Client).pop().unwrap();
    let mut sent = Vec::new();
    let ours = encode(Peer::Client, 0x80 | PONG, &ping);
    let others = [
        encode(Peer::Client, 0x80 | PONG, b"not eight"),
        encode(Peer::Client, TEXT, &[7; 200]),
        encode(Peer::Client, 0x80 | PONG, b"8 others"),
    ];
    for other in &others[..2] {
        for (place, byte) in other.iter().enumerate() {
            run.says(Peer::Client, &[*byte]);
            sent.push(*byte);
            // The first byte of any Pong may be the first one of ours.
            let is_held = place == 0 && *byte == 0x80 | PONG;
            assert_eq!(run.got(Peer::Upstream).len() + usize::from(is_held), sent.len());
        }
    }
    for byte in &others[2][..13] {
        run.says(Peer::Client, &[*byte]);
    }
    assert!(run.got(Peer::Upstream) == sent);
    run.says(Peer::Client, &others[2][13..]);
    sent.extend(&others[2]);
    assert!(run.got(Peer::Upstream) == sent);
    for byte in ours {
        run.says(Peer::Client, &[byte]);
    }
    assert!(run.got(Peer::Upstream) == sent, "our pong leaked");
    // Nothing is asked any more.
    for byte in &others[2] {
        run.says(Peer::Client, &[*byte]);
        sent.push(*byte);
        assert!(run.got(Peer::Upstream) == sent);
    }
}

#[test]
fn a_flow_of_large_frames_is_read_into_the_process_at_its_heads_alone() {
    for side in BOTH {
        let mut run = Run::with(&silent());
        // The first read takes what the buffer holds; each head behind the first payload is read by itself.
        let frame = encode(side, 0x82, &[7; BULK * 70]);
        let sent = frame.repeat(8);
        let head = frame.len() - BULK * 70;
        for piece in sent.chunks(1000) {
            run.says(side, piece);
        }
        assert!(run.got(side.other()) == sent);
        let copied = run.wires[side].copied.get();
        // What is left of a payload may be less than one call carries.
        let most = 4096 + 7 * (14 + 14 + BULK);
        assert!(copied >= 8 * head && copied <= most, "{copied} of {}", sent.len());
        // A small message behind them comes whole.
        let small = encode(side, TEXT, b"a small message");
        run.says(side, &small);
        assert!(run.got(side.other()).ends_with(&small));
    }
}
