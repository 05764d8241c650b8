//! Tunnels with frames in them: what passes, what is put in, and how they end.

use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as `sender` would send it.
fn frame(sender: Side, opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final: fin,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask: (sender == Side::Client).then_some(MASK),
    };
    let mut bytes = Vec::new();
    Frame::from_payload(header, payload.to_vec().into()).format(&mut bytes).unwrap();
    bytes
}

fn text(sender: Side, payload: &[u8]) -> Vec<u8> {
    frame(sender, OpCode::Data(Data::Text), true, payload)
}

fn fragment(sender: Side, opcode: Data, fin: bool, payload: &[u8]) -> Vec<u8> {
    frame(sender, OpCode::Data(opcode), fin, payload)
}

fn control(sender: Side, opcode: Control, payload: &[u8]) -> Vec<u8> {
    frame(sender, OpCode::Control(opcode), true, payload)
}

fn close(sender: Side, code: u16) -> Vec<u8> {
    control(sender, Control::Close, &u16::from(CloseCode::from(code)).to_be_bytes())
}

/// One frame from a socket: opcode with FIN, and payload, unmasked.
fn read_frame(mut socket: &TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            socket.read_exact(&mut length).unwrap();
            u16::from_be_bytes(length).into()
        }
        127 => {
            let mut length = [0; 8];
            socket.read_exact(&mut length).unwrap();
            usize::try_from(u64::from_be_bytes(length)).unwrap()
        }
        length => length.into(),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        socket.read_exact(&mut mask).unwrap();
    }
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).unwrap();
    for (place, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[place % 4];
    }
    (head[0], payload)
}

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

fn expect_close(socket: &TcpStream, code: u16) {
    assert_eq!(read_frame(socket), (CLOSE, code.to_be_bytes().to_vec()));
}

fn websocket(engine: &Engine) -> Ends {
    websocket_with(engine, Vec::new(), Vec::new())
}

fn websocket_with(engine: &Engine, from_client: Vec<u8>, from_upstream: Vec<u8>) -> Ends {
    let (tunnel, ends) = tunnel_with(Protocol::WebSocket, from_client, from_upstream);
    engine.relay.adopt(tunnel);
    ends
}

fn by(side: Side, why: Reason) -> End {
    End::new(side, Phase::Relay, why)
}

/// Messages in fragments with control frames between them, of many sizes.
fn stream(sender: Side, seed: u64, messages: usize) -> Vec<u8> {
    let mut pattern = Pattern::new(seed);
    let mut bytes = Vec::new();
    for number in 0..messages {
        let size = [0, 1, 7, 64, 125, 126, 127, 4000, 65_535, 65_536, 200_000][number % 11];
        match number % 4 {
            0 | 1 => bytes.extend(text(sender, &pattern.take(size))),
            2 => {
                bytes.extend(fragment(sender, Data::Binary, false, &pattern.take(size)));
                bytes.extend(control(sender, Control::Ping, &pattern.take(9)));
                bytes.extend(fragment(sender, Data::Continue, false, b""));
                bytes.extend(control(sender, Control::Pong, &pattern.take(8)));
                bytes.extend(fragment(sender, Data::Continue, true, &pattern.take(3)));
            }
            _ => bytes.extend(control(sender, Control::Pong, &pattern.take(8))),
        }
    }
    bytes
}

// ---- passing ----

/// Every cut of a short stream, and odd pieces of a long one; the ends of pieces fall anywhere.
#[test]
fn frames_pass_wherever_they_are_split() {
    let engine = Engine::start(1);
    for side in [Side::Client, Side::Upstream] {
        let short = [
            text(side, b"!"),
            fragment(side, Data::Text, false, &[b'x'; 126]),
            control(side, Control::Pong, b"8 bytes."),
            fragment(side, Data::Continue, true, b""),
            text(side, &vec![b'y'; 70_000])[..12].to_vec(),
        ]
        .concat();
        for cut in 0..short.len() {
            let ends = websocket(&engine);
            let (one, other) = ends.from(side);
            one.write_all_ref(&short[..cut]);
            // For a read of its own: what is no whole head is not passed on, so that nothing shows it.
            thread::sleep(Duration::from_micros(200));
            one.write_all_ref(&short[cut..]);
            // The last head is not whole: it passes when the stream ends.
            one.shutdown(Shutdown::Write).unwrap();
            expect(other, &short);
            expect_end_of_stream(other);
        }
    }
}

#[test]
fn long_streams_of_frames_pass_both_ways() {
    let engine = Engine::start(1);
    let ends = websocket(&engine);
    let (forth, back) = (stream(Side::Client, 1, 400), stream(Side::Upstream, 2, 400));
    let pieces = |mut socket: &TcpStream, bytes: &[u8], sizes: &[usize]| {
        let (mut at, mut sizes) = (0, sizes.iter().cycle());
        while at < bytes.len() {
            let end = bytes.len().min(at + sizes.next().unwrap());
            socket.write_all(&bytes[at..end]).unwrap();
            at = end;
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| pieces(&ends.client, &forth, &[1, 5000, 3, 13, 70_000]));
        scope.spawn(|| pieces(&ends.upstream, &back, &[9000, 1, 100_000, 2]));
        scope.spawn(|| expect(&ends.client, &back));
        expect(&ends.upstream, &forth);
    });
    let tunnel = engine.relay.take_all().pop().unwrap();
    assert_eq!(tunnel.state.flows.client.delivered(), forth.len() as u64);
    assert_eq!(tunnel.state.flows.upstream.delivered(), back.len() as u64);
}

#[test]
fn early_frames_are_followed_once() {
    let options = Options { max_message_size: Some(10), ..Options::default() };
    let engine = Engine::with(1, &options);
    // Early bytes end within a head; the rest of it comes later.
    let message = text(Side::Client, b"0123456789");
    let ends = websocket_with(&engine, message[..3].to_vec(), text(Side::Upstream, b"first"));
    (&ends.client).write_all(&message[3..]).unwrap();
    expect(&ends.upstream, &message);
    expect(&ends.client, &text(Side::Upstream, b"first"));
    (&ends.client).write_all(&text(Side::Client, b"0123456789a")).unwrap();
    expect_close(&ends.client, 1009);
}

#[test]
fn what_is_no_stream_of_frames_passes_and_is_counted() {
    let options = Options::default();
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    let bytes = Pattern::new(9).take(100_000);
    let sent = [&text(Side::Client, b"ok")[..], b"\xff\xff", &bytes].concat();
    thread::scope(|scope| {
        scope.spawn(|| (&ends.client).write_all(&sent).unwrap());
        expect(&ends.upstream, &sent);
    });
    let broken: Vec<_> = options.counters.frame_faults.broken().collect();
    assert_eq!(broken, [("reserved_opcode", 1)]);
}

// ---- rules and limits ----

#[test]
fn strict_ends_with_1002_that_the_offender_can_read() {
    for side in [Side::Client, Side::Upstream] {
        let options = Options { strict: true, ..Options::default() };
        let engine = Engine::with(1, &options);
        let ends = websocket(&engine);
        let (one, other) = ends.from(side);
        one.write_all_ref(&text(side, b"ok"));
        expect(other, &text(side, b"ok"));
        // Much behind it, unread: it must not make a reset that overtakes the Close.
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut one = one;
                let _ = one.write_all(&[&b"\x83\x00"[..], &vec![0; 4 * MIB]].concat());
                one.shutdown(Shutdown::Write).unwrap();
            });
            expect_close(one, 1002);
            expect_end_of_stream(one);
        });
        expect_close(other, 1002);
        expect_end_of_stream(other);
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(engine.next_end().1, by(side, Reason::Malformed));
        assert_eq!(options.counters.frame_faults.broken().count(), 1);
    }
}

#[test]
fn a_limit_ends_with_1009_that_the_sender_can_read() {
    for side in [Side::Client, Side::Upstream] {
        let options = Options { max_frame_size: Some(1000), ..Options::default() };
        let engine = Engine::with(1, &options);
        let ends = websocket(&engine);
        let (one, other) = ends.from(side);
        let fits = text(side, &[b'x'; 1000]);
        one.write_all_ref(&fits);
        expect(other, &fits);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut one = one;
                let _ = one.write_all(&text(side, &vec![b'x'; 8 * MIB]));
                one.shutdown(Shutdown::Write).unwrap();
            });
            expect_close(one, 1009);
            expect_end_of_stream(one);
        });
        // No byte of it came.
        expect_close(other, 1001);
        expect_end_of_stream(other);
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(engine.next_end().1, by(side, Reason::TooBig));
    }
}

#[test]
fn a_message_over_the_limit_ends_between_its_frames_for_whoever_has_half_of_it() {
    let options = Options { max_message_size: Some(1000), ..Options::default() };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    let half = fragment(Side::Client, Data::Binary, false, &[0; 600]);
    (&ends.client).write_all(&half).unwrap();
    expect(&ends.upstream, &half);
    (&ends.client).write_all(&fragment(Side::Client, Data::Continue, true, &[0; 401])).unwrap();
    // The client answers only when the upstream has been told.
    expect_close(&ends.upstream, 1001);
    expect_end_of_stream(&ends.upstream);
    expect_close(&ends.client, 1009);
    expect_end_of_stream(&ends.client);
    assert_eq!(engine.next_end().1, by(Side::Client, Reason::TooBig));
}

// ---- pings ----

fn pinging() -> Options {
    Options {
        ping_interval: Some(Duration::from_millis(100)),
        pong_timeout: Duration::from_millis(400),
        ..Options::default()
    }
}

#[test]
fn a_silent_client_is_pinged_and_its_pongs_are_kept_from_the_upstream() {
    // A ping that came only when something else is due would not come in this test.
    let hour = Duration::from_secs(3600);
    let options = Options { pong_timeout: hour, stall_timeout: hour, ..pinging() };
    let engine = Engine::with(1, &options);
    let started = Instant::now();
    let ends = websocket(&engine);
    for _ in 0..5 {
        let (opcode, payload) = read_frame(&ends.client);
        assert_eq!((opcode, payload.len()), (PING, 8));
        // One that nobody asked for, one with another payload, and ours, in pieces.
        let pong = control(Side::Client, Control::Pong, &payload);
        let other = control(Side::Client, Control::Pong, b"8 others");
        (&ends.client).write_all(&other).unwrap();
        (&ends.client).write_all(&pong[..7]).unwrap();
        // For a read of its own.
        thread::sleep(Duration::from_millis(5));
        (&ends.client).write_all(&pong[7..]).unwrap();
        expect(&ends.upstream, &other);
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    (&ends.client).write_all(&text(Side::Client, b"on")).unwrap();
    expect(&ends.upstream, &text(Side::Client, b"on"));
    let tunnel = engine.relay.take_all().pop().unwrap();
    assert!(tunnel.state.ping_round_trips().is_some());
}

#[test]
fn a_client_that_does_not_answer_is_gone_and_the_upstream_hears_of_it() {
    let engine = Engine::with(1, &pinging());
    let ends = websocket(&engine);
    assert_eq!(read_frame(&ends.client).0, PING);
    let mut head = [0; 2];
    ends.upstream.peek(&mut head).unwrap();
    assert_eq!(head, [CLOSE, 0x82]);
    expect_close(&ends.upstream, 1001);
    expect_end_of_stream(&ends.upstream);
    (&ends.upstream).write_all(&close(Side::Upstream, 1001)).unwrap();
    ends.upstream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(engine.next_end().1, by(Side::Client, Reason::Timeout));
}

#[test]
fn any_byte_from_the_client_is_life() {
    let options = Options { ping_interval: Some(Duration::from_secs(2)), ..pinging() };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    ends.client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let bytes = text(Side::Client, &[b'x'; 60]);
    for byte in bytes.chunks(1) {
        (&ends.client).write_all(byte).unwrap();
        // Half as long again as the interval, in all.
        thread::sleep(Duration::from_millis(50));
        assert!((&ends.client).read(&mut [0; 16]).is_err(), "pinged");
    }
    expect(&ends.upstream, &bytes);
}

#[test]
fn a_ping_stands_between_frames() {
    let engine = Engine::with(1, &Options { pong_timeout: PATIENCE, ..pinging() });
    let ends = websocket(&engine);
    // Half a frame: no ping until its end; then one, although the stream never rests at a boundary.
    let first = fragment(Side::Upstream, Data::Binary, false, &[1; 1000]);
    let second = fragment(Side::Upstream, Data::Continue, true, &[2; 1000]);
    let both = [first, second].concat();
    let (half, rest) = both.split_at(500);
    (&ends.upstream).write_all(half).unwrap();
    expect(&ends.client, half);
    ends.client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!((&ends.client).read(&mut [0; 16]).is_err(), "something was put into a frame");
    ends.client.set_read_timeout(Some(PATIENCE)).unwrap();
    (&ends.upstream).write_all(&rest[..1000]).unwrap();
    expect(&ends.client, &rest[..504]);
    let (opcode, payload) = read_frame(&ends.client);
    assert_eq!((opcode, payload.len()), (PING, 8));
    (&ends.client).write_all(&control(Side::Client, Control::Pong, &payload)).unwrap();
    (&ends.upstream).write_all(&rest[1000..]).unwrap();
    expect(&ends.client, &rest[504..]);
}

/// The stream minus our pings is what was sent, byte by byte, wherever they are put in.
#[test]
fn pings_are_all_that_is_added() {
    let options = Options {
        ping_interval: Some(Duration::from_millis(1)),
        pong_timeout: PATIENCE,
        ..Options::default()
    };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    let sent = stream(Side::Upstream, 7, 300);
    let mut pings = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for piece in sent.chunks(7_777) {
                (&ends.upstream).write_all(piece).unwrap();
                // It is to last for some pings.
                thread::sleep(Duration::from_millis(4));
            }
        });
        let mut at = 0;
        while at < sent.len() {
            let mut head = [0; 2];
            (&ends.client).read_exact(&mut head).unwrap();
            // The stream's own pings have nine bytes.
            if head == [PING, 8] {
                pings += 1;
                let mut payload = [0; 8];
                (&ends.client).read_exact(&mut payload).unwrap();
                let pong = control(Side::Client, Control::Pong, &payload);
                (&ends.client).write_all(&pong).unwrap();
                continue;
            }
            assert_eq!(head, sent[at..at + 2]);
            let (length, extended) = match head[1] {
                126 => (u16::from_be_bytes(sent[at + 2..at + 4].try_into().unwrap()).into(), 2),
                127 => (u64::from_be_bytes(sent[at + 2..at + 10].try_into().unwrap()), 8),
                length => (length.into(), 0),
            };
            let rest = extended + usize::try_from(length).unwrap();
            expect(&ends.client, &sent[at + 2..at + 2 + rest]);
            at += 2 + rest;
        }
    });
    assert!(pings > 5, "{pings}");
    // None of the pongs came through.
    (&ends.client).write_all(&text(Side::Client, b"end")).unwrap();
    expect(&ends.upstream, &text(Side::Client, b"end"));
}

#[test]
fn a_silent_upstream_is_pinged_where_that_is_asked_for() {
    let options = Options {
        ping_upstream_interval: Some(Duration::from_millis(100)),
        ping_interval: None,
        pong_timeout: Duration::from_secs(3),
        ..Options::default()
    };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    // Masked, as a client's frames are.
    let mut head = [0; 2];
    ends.upstream.peek(&mut head).unwrap();
    assert_eq!(head, [PING, 0x88]);
    let (_, payload) = read_frame(&ends.upstream);
    (&ends.upstream).write_all(&control(Side::Upstream, Control::Pong, &payload)).unwrap();
    assert_eq!(read_frame(&ends.upstream).0, PING);
    // No answer to this one. The client was sent no pong, only the end.
    expect_close(&ends.client, 1001);
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(engine.next_end().1, by(Side::Upstream, Reason::Timeout));
}

#[test]
fn what_is_no_websocket_is_not_pinged() {
    let engine = Engine::with(1, &pinging());
    let ends = adopted(&engine);
    ends.client.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert!((&ends.client).read(&mut [0; 16]).is_err());
    assert_eq!(engine.relay.open(), 1);
}

// ---- times ----

#[test]
fn an_idle_tunnel_ends_with_a_close() {
    let options = Options {
        idle_timeout: Some(Duration::from_millis(300)),
        pong_timeout: PATIENCE,
        ..pinging()
    };
    let engine = Engine::with(1, &options);
    let started = Instant::now();
    let ends = websocket(&engine);
    // Pings are no data.
    loop {
        let (opcode, payload) = read_frame(&ends.client);
        if opcode == CLOSE {
            assert_eq!(payload, 1001_u16.to_be_bytes());
            break;
        }
        (&ends.client).write_all(&control(Side::Client, Control::Pong, &payload)).unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(300));
    (&ends.client).write_all(&close(Side::Client, 1001)).unwrap();
    expect(&ends.upstream, &close(Side::Client, 1001));
    expect_end_of_stream(&ends.client);
    drop(ends);
    assert_eq!(engine.next_end().1, by(Side::Elbows, Reason::Idle));
}

#[test]
fn data_keeps_a_tunnel_from_being_idle() {
    let options = Options { idle_timeout: Some(Duration::from_secs(3)), ..Options::default() };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    // For longer than it may be idle.
    for _ in 0..8 {
        // The pace of a side that is alive: time is what it takes.
        thread::sleep(Duration::from_millis(500));
        (&ends.upstream).write_all(&text(Side::Upstream, b"!")).unwrap();
        expect(&ends.client, &text(Side::Upstream, b"!"));
    }
}

#[test]
fn a_tunnel_ends_at_its_age() {
    let options = Options {
        max_lifetime: Some(Duration::from_millis(500)),
        close_code: 1012,
        ..Options::default()
    };
    let engine = Engine::with(1, &options);
    let started = Instant::now();
    let ends = websocket(&engine);
    expect_close(&ends.client, 1012);
    assert!(started.elapsed() >= Duration::from_millis(450));
    (&ends.client).write_all(&close(Side::Client, 1012)).unwrap();
    expect_end_of_stream(&ends.client);
    drop(ends);
    assert_eq!(engine.next_end().1, by(Side::Elbows, Reason::Lifetime));
}

#[test]
fn a_side_that_takes_nothing_is_given_up() {
    let options = Options { stall_timeout: Duration::from_millis(500), ..Options::default() };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    let bulk = text(Side::Upstream, &vec![0; 64 * MIB]);
    thread::scope(|scope| {
        // Nobody reads: the sender is stuck until the tunnel ends.
        scope.spawn(|| {
            let _ = (&ends.upstream).write_all(&bulk);
            let _ = ends.upstream.shutdown(Shutdown::Write);
        });
        expect_close(&ends.upstream, 1001);
    });
    assert_eq!(engine.next_end().1, by(Side::Client, Reason::Stalled));
}

// ---- drain ----

const DRAINED: End = End::new(Side::Elbows, Phase::Drain, Reason::Drained);

#[test]
fn what_the_client_sent_before_its_close_reaches_the_upstream_then_the_close_does() {
    let options = Options { grace: PATIENCE, ..Options::default() };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    engine.relay.drain(Duration::from_millis(100));
    expect_close(&ends.client, 1001);
    let sent = [stream(Side::Client, 5, 200), close(Side::Client, 1001)].concat();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&ends.client).write_all(&sent).unwrap();
            // What is behind its Close goes nowhere.
            (&ends.client).write_all(&text(Side::Client, b"too late")).unwrap();
        });
        // Nothing goes to the client any more.
        (&ends.upstream).write_all(&text(Side::Upstream, b"too late")).unwrap();
        expect(&ends.upstream, &sent);
        expect_end_of_stream(&ends.upstream);
    });
    expect_end_of_stream(&ends.client);
    drop(ends);
    assert_eq!(engine.next_end().1, DRAINED);
    engine.no_further_end();
}

#[test]
fn close_waits_for_the_end_of_a_message() {
    let options = Options { grace: PATIENCE, close_code: 1012, ..Options::default() };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    let first = fragment(Side::Upstream, Data::Text, false, b"begun");
    (&ends.upstream).write_all(&first).unwrap();
    expect(&ends.client, &first);
    engine.relay.drain(Duration::from_millis(1));
    ends.client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!((&ends.client).read(&mut [0; 16]).is_err(), "a message was cut");
    ends.client.set_read_timeout(Some(PATIENCE)).unwrap();
    let last = fragment(Side::Upstream, Data::Continue, true, b"ended");
    // The next message comes in the same read, and stays behind.
    (&ends.upstream).write_all(&[last.clone(), text(Side::Upstream, b"next")].concat()).unwrap();
    expect(&ends.client, &last);
    expect_close(&ends.client, 1012);
    (&ends.client).write_all(&close(Side::Client, 1012)).unwrap();
    expect_end_of_stream(&ends.client);
    drop(ends);
    assert_eq!(engine.next_end().1, DRAINED);
}

#[test]
fn a_message_without_end_is_given_up_after_the_grace() {
    // Without a drain, which has its end, the client has the grace to answer once more.
    let options = Options {
        grace: Duration::from_secs(3),
        max_lifetime: Some(Duration::from_millis(500)),
        ..Options::default()
    };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    let first = fragment(Side::Upstream, Data::Text, false, b"begun");
    (&ends.upstream).write_all(&first).unwrap();
    expect(&ends.client, &first);
    expect_close(&ends.client, 1001);
    (&ends.client).write_all(&close(Side::Client, 1001)).unwrap();
    expect(&ends.upstream, &close(Side::Client, 1001));
    drop(ends);
    assert_eq!(engine.next_end().1, by(Side::Elbows, Reason::Lifetime));
}

#[test]
fn a_client_that_does_not_answer_in_the_grace_is_cut() {
    let options = Options { grace: Duration::from_millis(300), ..Options::default() };
    let engine = Engine::with(1, &options);
    let ends = websocket(&engine);
    engine.relay.drain(Duration::ZERO);
    expect_close(&ends.client, 1001);
    expect_close(&ends.upstream, 1001);
    expect_end_of_stream(&ends.client);
    drop(ends);
    assert_eq!(engine.next_end().1, End { why: Reason::Timeout, ..DRAINED });
}

#[test]
fn what_comes_while_it_drains_is_drained() {
    let options = Options { grace: PATIENCE, ..Options::default() };
    let engine = Engine::with(1, &options);
    engine.relay.drain(Duration::from_millis(200));
    let ends = websocket(&engine);
    expect_close(&ends.client, 1001);
    // The period is over.
    thread::sleep(Duration::from_millis(250));
    let late = websocket(&engine);
    expect_close(&late.client, 1001);
}

/// Nobody can say where a Close could stand in them, so they have the whole period, and end as streams do.
#[test]
fn what_is_no_websocket_ends_with_the_period() {
    let engine = Engine::start(1);
    let early = adopted(&engine);
    engine.relay.drain(Duration::from_secs(3));
    let late = adopted(&engine);
    for ends in [&early, &late] {
        (&ends.client).write_all(b"on").unwrap();
        expect(&ends.upstream, b"on");
    }
    for ends in [&early, &late] {
        expect_end_of_stream(&ends.client);
        expect_end_of_stream(&ends.upstream);
    }
    drop((early, late));
    for _ in 0..2 {
        assert_eq!(engine.next_end().1, End { why: Reason::PeriodOver, ..DRAINED });
    }
}

/// When each of so many clients got its Close, from the beginning of a drain over `period`.
fn times_of_closes(count: usize, period: Duration) -> Vec<Duration> {
    let options = Options { grace: PATIENCE, ..Options::default() };
    let engine = Engine::with(2, &options);
    let all: Vec<_> = (0..count).map(|_| websocket(&engine)).collect();
    let started = Instant::now();
    engine.relay.drain(period);
    let mut seen = vec![Duration::MAX; count];
    for ends in &all {
        ends.client.set_nonblocking(true).unwrap();
    }
    while seen.contains(&Duration::MAX) {
        assert!(started.elapsed() < PATIENCE);
        for (ends, seen) in all.iter().zip(&mut seen) {
            if *seen == Duration::MAX && (&ends.client).read(&mut [0; 16]).is_ok() {
                *seen = started.elapsed();
            }
        }
        // It looks at all of them in turn.
        thread::sleep(Duration::from_millis(2));
    }
    seen
}

/// Each tenth of the period has its tenth of the tunnels. A machine that is busy elsewhere sees Closes late
/// and in heaps, but never early: so none may be early, and in one of some drains none may be late.
#[test]
fn closes_are_spread_evenly() {
    const TUNNELS: usize = 1000;
    const TENTH: usize = TUNNELS / 10;
    raise_descriptor_limit();
    let period = Duration::from_secs(4);
    let is_even = (0..6).any(|_| {
        let seen = times_of_closes(TUNNELS, period);
        let by = |time: Duration| seen.iter().filter(|at| **at < time).count();
        let by_tenth: Vec<_> = (1..=10).map(|tenth| by(period * tenth / 10)).collect();
        for (tenth, count) in (1..).zip(&by_tenth) {
            assert!(*count <= tenth * TENTH + 15, "{count} by tenth {tenth}");
        }
        // In no order: of two neighbours either is first.
        let ascending = seen.windows(2).filter(|pair| pair[0] < pair[1]).count();
        println!("{by_tenth:?} by each tenth, {ascending} in their order");
        (1..).zip(&by_tenth).all(|(tenth, count)| count + 15 >= tenth * TENTH)
            && (420..580).contains(&ascending)
    });
    assert!(is_even);
}
