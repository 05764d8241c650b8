//! Frames are followed: what passes is untouched, rules that are broken are seen, messages are counted.
//!
//! The cases, [`good_frames_pass`] and [`Breach`], are tried once more while the proxy is handed over (`handoff/verdicts.rs`).

use std::net::SocketAddr;

use crate::client::{Client, other_handshake};
use crate::proxy::Elbows;
use crate::upstream::Upstream;
use crate::web_socket::{
    BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Peer, TEXT, Tunnels, head, masked, unmasked,
    value,
};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

/// Frames of one side by its own rules: whole messages, fragments with control frames between
/// them, each form of the length, bits of extensions, nothing at all.
fn good(frame: impl Fn(u8, &[u8]) -> Vec<u8>) -> Vec<u8> {
    let large = vec![b'l'; 70_000];
    [
        frame(FIN | TEXT, b"hello"),
        frame(FIN | BINARY, &[0; 125]),
        frame(FIN | BINARY, &[1; 126]),
        frame(FIN | BINARY, &large),
        frame(FIN | TEXT, b""),
        frame(TEXT, b"one "),
        frame(FIN | PING, b"between"),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"unsolicited"),
        frame(FIN | CONTINUATION, b"two"),
        frame(FIN | RSV1 | BINARY, b"compressed"),
        frame(RSV1 | BINARY, b"compressed "),
        frame(FIN | CONTINUATION, b"too"),
    ]
    .concat()
}

/// Messages and payload bytes of [`good`].
const MESSAGES: &str = "8";
const PAYLOAD: usize = 5 + 125 + 126 + 70_000 + 7 + 10 + 14;

/// What a stream does that breaks a rule of RFC 6455, section 5: the bytes, and those of them in
/// front of the frame that does. `mask` is the mask bit that is right for the side.
fn bad(frame: impl Fn(u8, &[u8]) -> Vec<u8>, mask: u8) -> Vec<(&'static str, Vec<u8>, usize)> {
    let key: &[u8] = if mask == 0 { b"" } else { b"\x37\xfa\x21\x3d" };
    let raw = |bytes: &[u8]| [bytes, key, &[b'x'; 200]].concat();
    let first = frame(FIN | TEXT, b"before");
    let alone = [
        ("reserved data opcode", frame(FIN | 0x3, b"what")),
        ("reserved control opcode", frame(FIN | 0xb, b"what")),
        ("fragmented Ping", frame(PING, b"part")),
        ("Ping of 126 bytes", frame(FIN | PING, &[0; 126])),
        ("length with its top bit", raw(&[FIN | TEXT, mask | 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 1])),
        ("length that is not the shortest", raw(&[FIN | TEXT, mask | 0x7e, 0, 5])),
        ("wrong mask bit", [&[FIN | TEXT, (mask ^ 0x80) | 5], b"hello, world".as_slice()].concat()),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"what")),
        ("Close with half a code", frame(FIN | CLOSE, b"\x03")),
        ("Close with 1005", frame(FIN | CLOSE, b"\x03\xed")),
        ("Close with 2000", frame(FIN | CLOSE, b"\x07\xd0why")),
    ];
    let mut all: Vec<_> = alone
        .into_iter()
        .map(|(rule, bytes)| (rule, [first.clone(), bytes].concat(), first.len()))
        .collect();
    let open = frame(TEXT, b"begun");
    all.push((
        "message in a message",
        [open.clone(), frame(FIN | TEXT, b"new")].concat(),
        open.len(),
    ));
    all
}

/// A tunnel whose first word was understood, so that the first frame does not stand alone.
fn tunnel(tunnels: &Tunnels, proxy: SocketAddr) -> (Peer, Peer) {
    let (mut client, mut upstream) = tunnels.open_at(proxy);
    client.send_frame(TEXT, "up");
    upstream.expect(TEXT, "up");
    (client, upstream)
}

/// What each side says by the rules arrives as it was sent, at once and in pieces.
pub fn good_frames_pass(tunnels: &Tunnels, proxy: SocketAddr) {
    let (mut client, mut upstream) = tunnel(tunnels, proxy);
    for (piece, from_client) in [(usize::MAX, true), (usize::MAX, false), (7, true), (7, false)] {
        let (source, sink) =
            if from_client { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
        let sent = good(|first, payload| source.frame(first, payload));
        for piece in sent.chunks(piece) {
            source.send(piece);
        }
        assert!(sink.read_exact(sent.len()) == sent, "{piece} {from_client}");
    }
}

/// A tunnel on which one side is to break a rule.
pub struct Breach {
    rule: &'static str,
    source: Peer,
    sink: Peer,
    bytes: Vec<u8>,
    /// How many of the bytes are in front of the frame that breaks it.
    before: usize,
    sent: usize,
}

impl Breach {
    /// One of each kind by the client.
    pub fn by_client(tunnels: &Tunnels, proxy: SocketAddr) -> Vec<Self> {
        let all = bad(masked, 0x80).into_iter();
        all.map(|case| {
            let (client, upstream) = tunnel(tunnels, proxy);
            Self::new(case, client, upstream)
        })
        .collect()
    }

    /// One of each kind by the application.
    pub fn by_upstream(tunnels: &Tunnels, proxy: SocketAddr) -> Vec<Self> {
        let all = bad(unmasked, 0).into_iter();
        all.map(|case| {
            let (client, upstream) = tunnel(tunnels, proxy);
            Self::new(case, upstream, client)
        })
        .collect()
    }

    fn new(
        (rule, bytes, before): (&'static str, Vec<u8>, usize),
        source: Peer,
        sink: Peer,
    ) -> Self {
        Self { rule, source, sink, bytes, before, sent: 0 }
    }

    /// How many bytes there are in front of the frame that breaks the rule, and with it.
    pub fn lengths(&self) -> [usize; 2] {
        [self.before, self.bytes.len()]
    }

    /// Sends so many of the bytes in all.
    pub fn send_up_to(&mut self, end: usize) {
        self.source.send(&self.bytes[self.sent..end]);
        self.sent = end;
    }

    /// All of it arrives as it was sent, and what follows it by no rule, too.
    pub fn passes(mut self) {
        self.bytes.extend(b"and more, by no rule at all");
        self.send_up_to(self.bytes.len());
        assert!(self.sink.read_exact(self.bytes.len()) == self.bytes, "{}", self.rule);
        self.sink.send_frame(TEXT, "the other way is whole");
        self.source.expect(TEXT, "the other way is whole");
    }

    /// The source gets to read 1002, and so does the sink, behind what came before the frame that broke the rule.
    pub fn ends_with_1002(mut self) {
        self.send_up_to(self.bytes.len());
        let Self { rule, mut source, mut sink, bytes, before, .. } = self;
        assert!(sink.read_exact(before) == bytes[..before], "{rule}");
        let (frames, end) = sink.read_to_end();
        let codes: Vec<_> = frames.iter().map(Frame::code).collect();
        assert!(codes == [Some(1002)] && end.is_ok(), "{rule}: {frames:?} {end:?}");
        source.expect_close(1002);
    }
}

#[test]
fn frames_pass_as_they_came_however_they_are_split() {
    let tunnels = Tunnels::start();
    for check in ["observe", "strict"] {
        let elbows = Elbows::start(tunnels.address, &[("FRAME_CHECK", check)]);
        good_frames_pass(&tunnels, elbows.address);
    }
}

#[test]
fn messages_and_payload_of_each_side_are_logged() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let sent = good(masked);
    client.send(&sent);
    assert!(upstream.read_exact(sent.len()) == sent);
    upstream.send_frame(TEXT, "one");
    upstream.send_frame(TEXT, "three");
    client.expect(TEXT, "one");
    client.expect(TEXT, "three");
    client.send_close(4321);
    upstream.expect_close(4321);
    upstream.send_close(4322);
    client.expect_close(4322);
    upstream.finish();
    client.finish();
    let line = elbows.access_log.wait_for("status=101");
    for (key, expected) in [
        ("messages_from_client", MESSAGES),
        ("payload_from_client", &PAYLOAD.to_string()),
        ("messages_from_upstream", "2"),
        ("payload_from_upstream", "8"),
        ("close_code", "4321"),
        ("close_by", "client"),
        ("ping_rtt", "-"),
        ("ping_rtt_worst", "-"),
        ("handoffs", "0"),
    ] {
        assert_eq!(value(&line, key), expected, "{key}: {line}");
    }
}

#[test]
fn close_of_the_upstream_is_logged_as_its_own() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    upstream.send_frame(CLOSE, b"");
    client.expect(CLOSE, b"");
    client.send_close(1000);
    upstream.expect_close(1000);
    drop((client, upstream));
    let line = elbows.access_log.wait_for("status=101");
    // What a Close without a code means (RFC 6455, section 7.1.5).
    assert_eq!(
        (value(&line, "close_code"), value(&line, "close_by")),
        ("1005", "upstream"),
        "{line}"
    );
}

#[test]
fn broken_rules_pass_as_they_came_when_they_are_only_observed() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[]);
    for breaches in [Breach::by_client, Breach::by_upstream] {
        breaches(&tunnels, elbows.address).into_iter().for_each(Breach::passes);
    }
}

#[test]
fn client_that_breaks_a_rule_ends_with_1002_when_the_check_is_strict() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[("FRAME_CHECK", "strict")]);
    Breach::by_client(&tunnels, elbows.address).into_iter().for_each(Breach::ends_with_1002);
}

#[test]
fn upstream_that_breaks_a_rule_ends_with_1002_when_the_check_is_strict() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[("FRAME_CHECK", "strict")]);
    Breach::by_upstream(&tunnels, elbows.address).into_iter().for_each(Breach::ends_with_1002);
}

#[test]
fn data_behind_a_close_does_not_pass_when_the_check_is_strict() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[("FRAME_CHECK", "strict")]);
    let (mut client, mut upstream) = tunnel(&tunnels, elbows.address);
    client.send_close(1000);
    upstream.expect_close(1000);
    client.send_frame(TEXT, "more");
    let (frames, end) = upstream.read_to_end();
    assert!(frames.is_empty() && end.is_ok(), "{frames:?} {end:?}");
    client.expect_close(1002);
}

#[test]
fn length_that_is_only_claimed_costs_no_memory() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[]);
    let (mut client, mut upstream) = tunnel(&tunnels, elbows.address);
    let before = elbows.memory("VmHWM");
    // 2^62 bytes are announced; what comes of them passes.
    let claim = [&[FIN | BINARY, 0x80 | 0x7f][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    client.send(&claim);
    assert_eq!(upstream.read_exact(claim.len()), claim);
    client.send([7; 10_000]);
    assert_eq!(upstream.read_exact(10_000), [7; 10_000]);
    assert!(elbows.memory("VmHWM") < before + 4_096, "{} kB", elbows.memory("VmHWM") - before);
}

#[test]
fn other_upgrades_are_not_followed() {
    let upstream = Upstream::other_echo();
    let elbows = Elbows::start(
        upstream.address,
        &[("FRAME_CHECK", "strict"), ("MAX_FRAME_SIZE", "125"), ("PING_INTERVAL", "100ms")],
    );
    let mut client = Client::behind_balancer(elbows.address);
    client.send(other_handshake("/ws"));
    assert_eq!(client.read_head().status, 101);
    // By the rules of frames: a reserved opcode; and a text that is too large.
    let bytes = [vec![0xff; 300], head(FIN | TEXT, 0x80, 100_000), vec![b'x'; 290]].concat();
    client.send(&bytes);
    assert_eq!(client.read_exact(bytes.len()), bytes);
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b"");
}
