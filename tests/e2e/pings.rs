//! Pings: who gets them and when, whose pongs are kept, what becomes of who does not answer.
//!
//! Where a test waits for a time, silence is what it is about.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::applications::{self, Application};
use crate::balancers::{Balancer, TRUST};
use crate::browser;
use crate::proxy::Elbows;
use crate::real_clients::{self, Closed, Start};
use crate::web_socket::{BINARY, CLOSE, CONTINUATION, PING, PONG, Peer, TEXT, Tunnels, value};

const FIN: u8 = 0x80;
const OFTEN: (&str, &str) = ("PING_INTERVAL", "100ms");
const NEVER: (&str, &str) = ("PING_INTERVAL", "off");

#[test]
fn silent_client_is_pinged_and_the_application_never_sees_it() {
    let tunnels = Tunnels::start();
    // A Ping that came only when something else is due would not come in this test.
    let settings = [OFTEN, ("PONG_TIMEOUT", "1h"), ("STALL_TIMEOUT", "1h")];
    let elbows = Elbows::start(tunnels.address, &settings);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    for _ in 0..5 {
        let ping = client.read_frame();
        assert!(ping.opcode == PING && ping.fin && ping.rsv == 0, "{ping:?}");
        client.send_frame(PONG, &ping.payload);
    }
    client.send_frame(TEXT, "done");
    upstream.expect(TEXT, "done");
    drop((client, upstream));
    let line = elbows.access_log.wait_for("status=101");
    let [last, worst]: [f64; 2] =
        ["ping_rtt", "ping_rtt_worst"].map(|key| value(&line, key).parse().unwrap());
    assert!(0.0 < last && last <= worst, "{line}");
    for (key, expected) in [("messages_from_client", "1"), ("payload_from_client", "4")] {
        assert_eq!(value(&line, key), expected, "{line}");
    }
}

/// Whatever comes from a client is a sign of life, from which the interval begins anew.
#[test]
fn ping_comes_an_interval_after_the_last_sign_of_life() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[("PING_INTERVAL", "1s"), ("PONG_TIMEOUT", "1h")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    // Data, a Pong that nobody asked for, half a frame: each with what is to follow it.
    let half = client.frame(FIN | TEXT, "in two");
    let signs = [
        (client.frame(FIN | TEXT, "x"), vec![]),
        (client.frame(FIN | PONG, "y"), vec![]),
        (half[..3].to_vec(), half[3..].to_vec()),
    ];
    for (sign, rest) in signs {
        // A machine that is busy elsewhere for a moment gives a sign too late: then another one.
        let is_a_sign = (0..20).any(|_| {
            client.only_answers_for(Duration::from_millis(600));
            // What is sent to it is none.
            upstream.send_frame(TEXT, "and you?");
            let sent = Instant::now();
            client.send(&sign);
            let ping = loop {
                let frame = client.read_frame();
                if frame.opcode == PING {
                    break frame;
                }
                assert_eq!(frame.payload, b"and you?");
            };
            let after = sent.elapsed();
            client.send(&rest);
            client.send_frame(PONG, ping.payload);
            after >= Duration::from_millis(900)
        });
        assert!(is_a_sign, "{sign:?}");
    }
}

#[test]
fn client_that_does_not_answer_ends_and_the_application_is_told() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[OFTEN, ("PONG_TIMEOUT", "300ms")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let start = Instant::now();
    client.send_frame(TEXT, "last words");
    upstream.expect(TEXT, "last words");
    // A Close and the end of the stream, not a reset.
    upstream.expect_close(1001);
    assert!(upstream.try_read_frame().expect("an end, not a reset").is_none());
    let after = start.elapsed();
    assert!(after >= Duration::from_millis(350), "{after:?}");
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("by=client during=relay why=timeout"), "{line}");
    assert_eq!(client.read_frame().opcode, PING);
    elbows.wait_for_report("tunnels_open=0");
}

#[test]
fn anything_that_comes_in_time_is_an_answer() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[OFTEN, ("PONG_TIMEOUT", "4s")]);
    let start = Instant::now();
    let (mut client, mut upstream) = tunnels.open(&elbows);
    // For longer than one answer may take.
    for number in 0.. {
        if start.elapsed() > Duration::from_secs(5) {
            break;
        }
        assert_eq!(client.read_frame().opcode, PING);
        // Not the Pong, but a word.
        client.send_frame(TEXT, number.to_string());
        upstream.expect(TEXT, number.to_string());
    }
    upstream.send_frame(TEXT, "still here");
    assert_eq!(client.read_answering().0.payload, b"still here");
}

#[test]
fn pings_and_pongs_of_the_two_sides_pass_while_ours_are_under_way() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[OFTEN]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    for round in 0..5_u8 {
        let ours = client.read_frame();
        assert_eq!(ours.opcode, PING);
        // The application's own Ping looks like ours, as far as anybody can know: as long, random.
        let theirs: Vec<u8> = ours.payload.iter().map(|byte| byte ^ (0x5a + round)).collect();
        upstream.send_frame(PING, &theirs);
        let ping = client.read_frame();
        assert_eq!((ping.opcode, &ping.payload), (PING, &theirs));
        // Both are answered, the later one first in every other round, and in one write.
        let mut pongs =
            [client.frame(FIN | PONG, &ours.payload), client.frame(FIN | PONG, &theirs)];
        if round % 2 == 1 {
            pongs.reverse();
        }
        let unasked = [client.frame(FIN | PONG, "unasked"), client.frame(FIN | PONG, "")];
        client.send([pongs.concat(), unasked.concat()].concat());
        upstream.expect(PONG, &theirs);
        upstream.expect(PONG, "unasked");
        upstream.expect(PONG, "");
        // The client's own.
        client.send_frame(PING, [round]);
        upstream.expect(PING, [round]);
        upstream.send_frame(PONG, [round]);
        client.expect(PONG, [round]);
    }
}

#[test]
fn pong_to_a_ping_of_ours_that_comes_twice_is_passed_on_once() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[OFTEN]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let ping = client.read_frame();
    let answer = client.frame(FIN | PONG, &ping.payload);
    client.send([answer.clone(), answer].concat());
    // The second one answers nothing: it is unsolicited, and such pass.
    upstream.expect(PONG, &ping.payload);
    client.send_frame(TEXT, "next");
    upstream.expect(TEXT, "next");
}

#[test]
fn pong_in_pieces_is_kept_too() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[OFTEN]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let ping = client.read_frame();
    let answer = client.frame(FIN | PONG, &ping.payload);
    for byte in &answer {
        client.send([*byte]);
        // For a read of its own: nothing here shows that it was read.
        thread::sleep(Duration::from_millis(2));
    }
    client.send_frame(TEXT, "next");
    upstream.expect(TEXT, "next");
}

#[test]
fn ping_waits_for_the_end_of_a_frame_and_no_longer() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[OFTEN, ("PONG_TIMEOUT", "10s")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let frame = upstream.frame(BINARY, [b'f'; 1_000]);
    upstream.send(&frame[..500]);
    assert_eq!(client.read_exact(500), frame[..500]);
    client.hears_nothing_for(Duration::from_millis(500));
    upstream.send(&frame[500..]);
    assert_eq!(client.read_exact(504), frame[500..]);
    // Between fragments it may stand (RFC 6455, section 5.4).
    assert_eq!(client.read_frame().opcode, PING);
    upstream.send(upstream.frame(FIN | CONTINUATION, "end"));
    client.expect(CONTINUATION, "end");
}

#[test]
fn client_in_the_middle_of_a_message_is_pinged_too() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[OFTEN]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let frame = client.frame(FIN | BINARY, [b'f'; 1_000]);
    client.send(&frame[..500]);
    assert_eq!(client.read_frame().opcode, PING);
    client.send(&frame[500..]);
    upstream.expect(BINARY, [b'f'; 1_000]);
}

#[test]
fn no_pings_when_they_are_off() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[NEVER, ("PONG_TIMEOUT", "100ms")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    client.hears_nothing_for(Duration::from_secs(1));
    upstream.hears_nothing_for(Duration::from_millis(100));
    upstream.send_frame(TEXT, "still there");
    client.expect(TEXT, "still there");
}

#[test]
fn upstream_is_pinged_on_request_and_the_client_never_sees_it() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[NEVER, ("PING_UPSTREAM_INTERVAL", "100ms")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    for round in 0..5_u8 {
        // It is masked: `Peer` checks that.
        let ours = upstream.read_frame();
        assert_eq!(ours.opcode, PING);
        client.send_frame(PING, [round]);
        upstream.expect(PING, [round]);
        upstream.send_frame(PONG, &ours.payload);
        upstream.send_frame(PONG, [round]);
        client.expect(PONG, [round]);
    }
}

#[test]
fn upstream_that_does_not_answer_ends_and_the_client_is_told() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(
        tunnels.address,
        &[NEVER, ("PING_UPSTREAM_INTERVAL", "100ms"), ("PONG_TIMEOUT", "300ms")],
    );
    let (mut client, upstream) = tunnels.open(&elbows);
    let close = client.read_frame();
    assert_eq!(close.opcode, CLOSE, "{close:?}");
    client.send_frame(CLOSE, &close.payload);
    assert!(client.try_read_frame().expect("an end, not a reset").is_none());
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("by=upstream during=relay why=timeout"), "{line}");
    drop(upstream);
}

/// A real client is silent for many intervals, in which it must answer, and lives; the
/// application, which looks at every frame, sees its own conversation and nothing else.
fn real_client_answers(start: Start) {
    let tunnels = Tunnels::start();
    let settings = [OFTEN, ("PONG_TIMEOUT", "20s"), ("PROXY_PROTOCOL", "off")];
    let elbows = Elbows::start(tunnels.address, &settings);
    let client = start(elbows.address);
    let mut upstream = tunnels.accept();
    upstream.hears_nothing_for(Duration::from_secs(2));
    upstream.send_frame(TEXT, "are you there?");
    upstream.expect(TEXT, "are you there?");

    // A message in fragments, with time for pings between them.
    upstream.send(upstream.frame(TEXT, "f0 "));
    for number in 1..6 {
        upstream.hears_nothing_for(Duration::from_millis(250));
        upstream.send(upstream.frame(CONTINUATION, format!("f{number} ")));
    }
    // The application's own Ping, among ours.
    upstream.send_frame(PING, "mine");
    upstream.send(upstream.frame(FIN | CONTINUATION, "end"));
    let answers: Vec<_> = [upstream.read_frame(), upstream.read_frame()]
        .into_iter()
        .map(|frame| (frame.opcode, String::from_utf8(frame.payload).unwrap()))
        .collect();
    assert!(answers.contains(&(PONG, String::from("mine"))), "{answers:?}");
    assert!(answers.contains(&(TEXT, String::from("f0 f1 f2 f3 f4 f5 end"))), "{answers:?}");

    upstream.send_close(4001);
    upstream.expect_close(4001);
    drop(upstream);
    assert_eq!(client.join().unwrap(), Closed { code: 4001, was_clean: true });
    let line = elbows.access_log.wait_for("GET /ws HTTP/1.1\" status=101");
    // A number where a Pong came, in which case all of them did.
    assert!(value(&line, "ping_rtt").parse::<f64>().unwrap() > 0.0, "{line}");
    assert_eq!(value(&line, "messages_from_client"), "2", "{line}");
}

#[test]
fn websockets_answers_and_the_application_never_sees_it() {
    real_client_answers(real_clients::websockets);
}

#[test]
fn node_ws_answers_and_the_application_never_sees_it() {
    real_client_answers(real_clients::node_ws);
}

#[test]
fn tungstenite_answers_and_the_application_never_sees_it() {
    real_client_answers(real_clients::tungstenite);
}

#[test]
fn chromium_answers_and_the_application_never_sees_it() {
    real_client_answers(real_clients::chromium);
}

/// Everything is pinged all the time and checked strictly, while `client` holds a compressed conversation
/// with `application`, in which it is silent for some pings before each of its first messages.
fn compressed_conversation(application: &Application, client: impl Fn(SocketAddr) -> Value) {
    let settings = [
        TRUST,
        OFTEN,
        ("PING_UPSTREAM_INTERVAL", "100ms"),
        ("FRAME_CHECK", "strict"),
        ("MAX_MESSAGE_SIZE", "2MiB"),
    ];
    let elbows = Elbows::start(application.address, &settings);
    let balancer = Balancer::haproxy(elbows.address, "send-proxy-v2");
    let who = client(balancer.address);
    assert!(who["host"].is_string(), "{who}");
    let ended = application.ended("/echo", 4002, "the client ends it");
    assert!(ended.contains("extensions=permessage-deflate"), "{ended}");
    let line = elbows.access_log.wait_for("GET /echo HTTP/1.1\" status=101");
    assert!(value(&line, "ping_rtt").parse::<f64>().unwrap() > 0.0, "{line}");
    assert!(line.contains(" close_code=4002 close_by=client "), "{line}");
}

#[test]
fn compressed_conversation_of_websockets_is_untouched_by_pings_and_checks() {
    for application in [Application::websockets, Application::node_ws] {
        compressed_conversation(&application(), |balancer| {
            applications::websockets_with_pauses(balancer, "0.3")
        });
    }
}

#[test]
fn compressed_conversation_of_chromium_is_untouched_by_pings_and_checks() {
    compressed_conversation(&Application::websockets(), |balancer| {
        browser::chromium(balancer, "300")
    });
}

/// `HAProxy` with an idle timer of 3 s, a stand-in for a cloud's balancer, in front of a silent tunnel.
fn behind_an_idle_timer(
    ping: (&str, &str),
) -> (Elbows, Balancer, Peer, thread::JoinHandle<Closed>) {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[TRUST, ping]);
    let timers = "  timeout client 3s\n  timeout server 3s\n  timeout tunnel 3s";
    let balancer = Balancer::haproxy_with(elbows.address, "send-proxy-v2", "", timers);
    let client = real_clients::tungstenite(balancer.address);
    (elbows, balancer, tunnels.accept(), client)
}

#[test]
fn silent_tunnel_outlives_the_balancers_idle_timer() {
    let (_elbows, _balancer, mut upstream, client) = behind_an_idle_timer(("PING_INTERVAL", "1s"));
    upstream.hears_nothing_for(Duration::from_secs(30));
    upstream.send_frame(TEXT, "alive");
    upstream.expect(TEXT, "alive");
    upstream.send_close(1000);
    upstream.expect_close(1000);
    assert_eq!(client.join().unwrap(), Closed { code: 1000, was_clean: true });
}

/// What makes the test before this one worth something.
#[test]
fn silent_tunnel_without_pings_is_cut_by_the_balancers_idle_timer() {
    let start = Instant::now();
    let (_elbows, _balancer, mut upstream, client) = behind_an_idle_timer(NEVER);
    let (frames, _) = upstream.read_to_end();
    assert_eq!(frames, []);
    let lived = start.elapsed();
    assert!(lived >= Duration::from_secs(3), "{lived:?}");
    assert!(!client.join().unwrap().was_clean);
}

/// Payload that both ends of a stream know.
struct Stream(u64);

impl Stream {
    /// The next number (xorshift64; Marsaglia, "Xorshift RNGs", 2003).
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next message: 0 to 64 KiB, mostly small.
    fn message(&mut self) -> Vec<u8> {
        let most = 1 << (self.next() % 17);
        let length = usize::try_from(self.next() % most).unwrap();
        let mut message: Vec<u8> = Vec::with_capacity(length + 8);
        while message.len() < length {
            message.extend(self.next().to_le_bytes());
        }
        message.truncate(length);
        message
    }
}

const BULK: usize = 256 << 20;

/// A hash and the length of the messages that went into it, one behind the other.
#[derive(Default)]
struct Sum(Sha256, u64);

impl Sum {
    fn add(&mut self, message: &[u8]) {
        self.0.update(message);
        self.1 += message.len() as u64;
    }

    fn of(self) -> (Vec<u8>, u64) {
        (self.0.finalize().to_vec(), self.1)
    }
}

/// `source` sends [`BULK`] in two fragments a message, and reads nothing. In the first half it stops now and
/// then, long enough for Pings of ours, which come where `sink` was silent for 100 ms. In the second half it
/// puts its own between the fragments, each few milliseconds. `sink` answers all of them. Says how many
/// were ours.
fn bulk(source: &mut Peer, sink: &mut Peer) -> usize {
    let mut ours = 0;
    let mut got = Sum::default();
    let mut theirs = 0_u32;
    let (sent, asked) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let (mut stream, mut sent, mut asked) = (Stream(42), Sum::default(), 0_u32);
            let (mut out, mut stops) = (Vec::new(), 0);
            while sent.1 < BULK as u64 {
                let message = stream.message();
                sent.add(&message);
                let (first, rest) = message.split_at(message.len() / 3);
                out.extend(source.frame(BINARY, first));
                if out.len() > 200_000 {
                    if sent.1 > BULK as u64 / 2 {
                        out.extend(source.frame(FIN | PING, asked.to_be_bytes()));
                        asked += 1;
                    }
                    source.send(&out);
                    out.clear();
                    if sent.1 > (stops + 1) * BULK as u64 / 8 && stops < 3 {
                        stops += 1;
                        // Silence is what it is about.
                        thread::sleep(Duration::from_millis(300));
                    }
                }
                out.extend(source.frame(FIN | CONTINUATION, rest));
            }
            source.send(&out);
            source.send_frame(TEXT, "all");
            (sent.of(), asked)
        });
        loop {
            let frame = sink.read_frame();
            match frame.opcode {
                // Ours have eight bytes.
                PING if frame.payload == theirs.to_be_bytes() => {
                    theirs += 1;
                    sink.send_frame(PONG, frame.payload);
                }
                PING => {
                    ours += 1;
                    sink.send_frame(PONG, frame.payload);
                }
                TEXT => break assert_eq!(frame.payload, b"all"),
                _ => got.add(&frame.payload),
            }
        }
        sending.join().unwrap()
    });
    assert_eq!(got.of(), sent);
    assert_eq!(theirs, asked);
    // Each Pong came back to whom it answers, and none of ours did; a Ping of ours may be among them, for now
    // the source is silent.
    for number in 0..asked {
        assert_eq!(source.read_answering().0.payload, number.to_be_bytes());
    }
    ours
}

#[test]
fn no_byte_is_lost_or_added_while_pings_are_put_in() {
    let tunnels = Tunnels::start();
    let settings = [
        OFTEN,
        ("PING_UPSTREAM_INTERVAL", "100ms"),
        ("PONG_TIMEOUT", "1h"),
        ("FRAME_CHECK", "strict"),
    ];
    let elbows = Elbows::start(tunnels.address, &settings);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    for from_client in [true, false] {
        let (source, sink) =
            if from_client { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
        let ours = bulk(source, sink);
        assert!(ours >= 3, "{ours}");
        // One that waits is answered, so that both begin the other way at peace.
        source.only_answers_for(Duration::from_millis(150));
    }
    drop((client, upstream));
    let line = elbows.access_log.wait_for("status=101");
    assert_eq!(
        value(&line, "messages_from_client"),
        value(&line, "messages_from_upstream"),
        "{line}"
    );
    assert_eq!(
        value(&line, "payload_from_client"),
        value(&line, "payload_from_upstream"),
        "{line}"
    );
}

/// Many silent tunnels: each gets its pings, none gets another's.
#[test]
fn many_silent_tunnels_are_all_pinged() {
    let tunnels = Tunnels::start();
    let elbows =
        Elbows::start(tunnels.address, &[("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "1h")]);
    let mut open: Vec<_> = (0..500).map(|_| tunnels.open(&elbows)).collect();
    for _ in 0..3 {
        for (client, _) in &mut open {
            let ping = client.read_frame();
            assert_eq!(ping.opcode, PING);
            client.send_frame(PONG, ping.payload);
        }
    }
    for (number, (client, upstream)) in open.iter_mut().enumerate() {
        client.send_frame(TEXT, number.to_string());
        upstream.expect(TEXT, number.to_string());
    }
}
