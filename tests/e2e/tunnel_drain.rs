//! How tunnels end in a drain: each with a word, none with a cut message, not all at once.
//!
//! `drain.rs` has the stages of the process and what is not a WebSocket.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, handshake, other_handshake};
use crate::proxy::Elbows;
use crate::real_clients::{self, Closed, Start};
use crate::upstream::Upstream;
use crate::web_socket::{BINARY, CLOSE, CONTINUATION, Peer, TEXT, Tunnels, unmasked, value};

const FIN: u8 = 0x80;

/// Closes go out at once, and there is all the time to answer them.
const AT_ONCE: [(&str, &str); 2] = [("DRAIN_PERIOD", "0s"), ("DRAIN_GRACE", "1h")];

/// The client answers its Close, the application answers that, and elbows has nothing left.
fn ends_well(mut elbows: Elbows, mut client: Peer, mut upstream: Peer, code: u16) {
    client.send_close(code);
    upstream.expect_close(code);
    upstream.send_close(code);
    upstream.finish();
    assert!(upstream.try_read_frame().expect("an end, not a reset").is_none());
    let (frames, end) = client.read_to_end();
    assert!(frames.is_empty() && end.is_ok(), "{frames:?} {end:?}");
    drop((client, upstream));
    assert_eq!(elbows.wait().code(), Some(0));
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("by=elbows during=drain "), "{line}");
    assert_eq!(
        (value(&line, "close_code"), value(&line, "close_by")),
        (&*code.to_string(), "elbows")
    );
}

#[test]
fn client_gets_the_close_and_its_answer_reaches_the_application() {
    let tunnels = Tunnels::start();
    for code in [1001, 1012, 4321] {
        let text = code.to_string();
        let settings = [AT_ONCE[0], AT_ONCE[1], ("DRAIN_CLOSE_CODE", text.as_str())];
        let elbows = Elbows::start(tunnels.address, &settings);
        let (mut client, upstream) = tunnels.open(&elbows);
        elbows.drain();
        client.expect_close(code);
        ends_well(elbows, client, upstream, code);
    }
}

#[test]
fn what_the_client_sent_before_its_close_reaches_the_application_in_full_and_in_order() {
    const MESSAGES: u32 = 4_000;
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &AT_ONCE);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let message = |number: u32| -> Vec<u8> {
        // 16 MB in all, more than the buffers on the way hold.
        number.to_be_bytes().repeat(1 + usize::try_from(number % 2_000).unwrap())
    };
    thread::scope(|scope| {
        let client = &mut client;
        let elbows = &elbows;
        scope.spawn(move || {
            for number in 0..MESSAGES {
                if number == MESSAGES / 2 {
                    elbows.drain();
                    // It is in the middle of a message when it hears of it.
                    let frame = client.frame(FIN | BINARY, message(number));
                    client.send(&frame[..2]);
                    client.expect_close(1001);
                    client.send(&frame[2..]);
                } else {
                    client.send_frame(BINARY, message(number));
                }
            }
            client.send_close(1001);
        });
        for number in 0..MESSAGES {
            let frame = upstream.read_frame();
            assert!(frame.opcode == BINARY && frame.payload == message(number), "message {number}");
            if number % 500 == 0 {
                // A slow application: time is what it takes.
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    upstream.expect_close(1001);
    upstream.send_close(1001);
    drop(upstream);
    let mut elbows = elbows;
    drop(client);
    assert_eq!(elbows.wait().code(), Some(0));
    let line = elbows.access_log.wait_for("status=101");
    assert_eq!(value(&line, "messages_from_client"), MESSAGES.to_string(), "{line}");
}

#[test]
fn close_waits_for_the_end_of_the_message_that_the_application_has_begun() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &AT_ONCE);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    upstream.send(upstream.frame(TEXT, "begun "));
    client.expect(TEXT, "begun ");
    elbows.drain();
    elbows.wait_until_refused();
    client.hears_nothing_for(Duration::from_millis(300));
    // Half a frame is no boundary either.
    let frame = upstream.frame(FIN | CONTINUATION, "and ended");
    upstream.send(&frame[..5]);
    assert_eq!(client.read_exact(5), frame[..5]);
    client.hears_nothing_for(Duration::from_millis(100));
    upstream.send(&frame[5..]);
    assert_eq!(client.read_exact(frame.len() - 5), frame[5..]);
    client.expect_close(1001);
    // What the application says after it is not the client's any more.
    upstream.send_frame(TEXT, "too late");
    ends_well(elbows, client, upstream, 1001);
}

#[test]
fn message_that_does_not_end_is_cut_after_the_grace() {
    let tunnels = Tunnels::start();
    let settings = [("DRAIN_PERIOD", "0s"), ("DRAIN_GRACE", "500ms")];
    let mut elbows = Elbows::start(tunnels.address, &settings);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let frame = upstream.frame(BINARY, [1; 100]);
    upstream.send(&frame[..50]);
    assert_eq!(client.read_exact(50), frame[..50]);
    let start = Instant::now();
    elbows.drain();
    // No Close inside of a frame: the stream just ends.
    let mut rest = Vec::new();
    let _ = client.socket.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(400), "{waited:?}");
    elbows.wait();
    drop(upstream);
}

#[test]
fn client_that_does_not_answer_its_close_is_cut_after_the_grace() {
    let tunnels = Tunnels::start();
    let settings = [("DRAIN_PERIOD", "0s"), ("DRAIN_GRACE", "3s")];
    let mut elbows = Elbows::start(tunnels.address, &settings);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let start = Instant::now();
    elbows.drain();
    client.expect_close(1001);
    // What it says meanwhile still arrives.
    client.send_frame(TEXT, "not done");
    upstream.expect(TEXT, "not done");
    // The application gets a proper end.
    upstream.expect_close(1001);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(2_900), "{waited:?}");
    upstream.send_close(1001);
    drop(upstream);
    elbows.wait();
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("during=drain why="), "{line}");
}

/// When each of so many clients got its Close, from the beginning of a drain of 4 s.
fn times_of_closes(count: usize) -> Vec<Duration> {
    let tunnels = Tunnels::start();
    // With one thread, neighbours are neighbours there too.
    let settings = [("DRAIN_PERIOD", "4s"), ("DRAIN_GRACE", "1h"), ("THREADS", "1")];
    let mut elbows = Elbows::start(tunnels.address, &settings);
    let open: Vec<_> = (0..count).map(|_| tunnels.open(&elbows)).collect();
    let start = Instant::now();
    elbows.drain();
    let times = thread::scope(|scope| {
        let told: Vec<_> = open
            .into_iter()
            .map(|(mut client, mut upstream)| {
                scope.spawn(move || {
                    client.expect_close(1001);
                    let time = start.elapsed();
                    client.send_close(1001);
                    upstream.expect_close(1001);
                    upstream.send_close(1001);
                    time
                })
            })
            .collect();
        told.into_iter().map(|told| told.join().unwrap()).collect()
    });
    assert_eq!(elbows.wait().code(), Some(0));
    times
}

/// A machine that is busy elsewhere sees Closes late and in heaps, but never early: so none may be early, and
/// in one of some drains none may be late.
#[test]
fn closes_go_out_evenly_over_the_period() {
    const TUNNELS: usize = 400;
    const SECONDS: usize = 4;
    let is_even = (0..6).any(|_| {
        let times = times_of_closes(TUNNELS);
        let mut by_then = [0; SECONDS];
        for (second, count) in by_then.iter_mut().enumerate() {
            let end = Duration::from_secs(second as u64 + 1);
            *count = times.iter().filter(|time| **time < end).count();
            let due = TUNNELS * (second + 1) / SECONDS;
            assert!(*count <= due + 30, "{count} within {end:?}");
        }
        // And not in the order in which they came: half of the neighbours change places.
        let later = times.windows(2).filter(|pair| pair[0] < pair[1]).count();
        eprintln!("by the end of each second {by_then:?}, {later} in their order");
        let due = |second| TUNNELS * (second + 1) / SECONDS;
        by_then.iter().enumerate().all(|(second, count)| *count + 30 >= due(second))
            && (TUNNELS / 4..TUNNELS * 3 / 4).contains(&later)
    });
    assert!(is_even);
}

#[test]
fn handshake_under_way_gets_its_tunnel_and_is_drained_like_the_rest() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[("DRAIN_PERIOD", "3s"), ("DRAIN_GRACE", "1h")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws"));
    let asked = tunnels.asked();
    elbows.drain();
    elbows.wait_until_refused();
    // In one write with the 101, so that it is there before any Close.
    let upstream = asked.accept_with(unmasked(FIN | TEXT, b"welcome"));
    assert_eq!(client.read_head().status, 101);
    let mut client = Peer::client(client);
    client.expect(TEXT, "welcome");
    client.expect_close(1001);
    ends_well(elbows, client, upstream, 1001);
}

#[test]
fn tunnel_that_is_not_a_websocket_is_left_until_the_end_of_the_period() {
    let upstream = Upstream::other_echo();
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", "1500ms")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(other_handshake("/ws"));
    assert_eq!(client.read_head().status, 101);
    let start = Instant::now();
    elbows.drain();
    elbows.wait_until_refused();
    // It goes on until it is cut, and nothing of ours is put in.
    let mut echo = [0; 5];
    while client.socket.write_all(b"hello").is_ok() && client.socket.read_exact(&mut echo).is_ok() {
        assert_eq!(&echo, b"hello");
    }
    let lived = start.elapsed();
    assert!(lived >= Duration::from_millis(1_500), "{lived:?}");
    elbows.wait();
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("by=elbows during=drain why=period_over"), "{line}");
}

#[test]
fn tunnel_that_is_closing_already_is_not_told_again() {
    let tunnels = Tunnels::start();
    let mut elbows = Elbows::start(tunnels.address, &AT_ONCE);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    client.send_close(4000);
    upstream.expect_close(4000);
    elbows.drain();
    elbows.wait_until_refused();
    upstream.send_close(4000);
    upstream.finish();
    client.expect_close(4000);
    assert!(client.try_read_frame().expect("an end").is_none());
    drop((client, upstream));
    assert_eq!(elbows.wait().code(), Some(0));
    let line = elbows.access_log.wait_for("status=101");
    assert_eq!(
        (value(&line, "close_code"), value(&line, "close_by")),
        ("4000", "client"),
        "{line}"
    );
}

#[test]
fn client_is_pinged_until_it_is_told() {
    let tunnels = Tunnels::start();
    let settings = [("DRAIN_DELAY", "3s"), ("PING_INTERVAL", "100ms"), AT_ONCE[0], AT_ONCE[1]];
    let elbows = Elbows::start(tunnels.address, &settings);
    let (mut client, upstream) = tunnels.open(&elbows);
    elbows.drain();
    let (close, pings) = client.read_answering();
    assert_eq!(close.code(), Some(1001), "{close:?}");
    assert!(pings >= 2, "{pings}");
    // And not after it (RFC 6455, section 5.5.1: nothing follows a Close).
    client.hears_nothing_for(Duration::from_millis(300));
    ends_well(elbows, client, upstream, 1001);
}

#[test]
fn second_signal_ends_tunnels_at_once_with_a_close_where_one_can_stand() {
    let tunnels = Tunnels::start();
    let settings = [("DRAIN_DELAY", "0s"), ("DRAIN_PERIOD", "1h"), ("DRAIN_GRACE", "1h")];
    let mut elbows = Elbows::start(tunnels.address, &settings);
    let (mut client, _upstream) = tunnels.open(&elbows);
    let (mut other_client, mut other_upstream) = tunnels.open(&elbows);
    // In the middle of a frame there is no place for a Close.
    let frame = other_upstream.frame(FIN | TEXT, "cut");
    other_upstream.send(&frame[..frame.len() - 1]);
    assert_eq!(other_client.read_exact(frame.len() - 1), frame[..frame.len() - 1]);
    elbows.drain();
    elbows.wait_until_refused();
    assert_eq!(elbows.hurry().code(), Some(1));
    client.expect_close(1001);
    assert!(other_client.read_to_end().0.is_empty());
    elbows.log.wait_for(" cut=2 ");
}

#[test]
fn log_says_how_many_ended_how() {
    let tunnels = Tunnels::start();
    let settings = [("DRAIN_PERIOD", "0s"), ("DRAIN_GRACE", "3s")];
    let mut elbows = Elbows::start(tunnels.address, &settings);
    let open: Vec<_> = (0..3).map(|_| tunnels.open(&elbows)).collect();
    elbows.drain();
    let mut answering = 2;
    for (client, upstream) in open {
        let (mut client, mut upstream) = (client, upstream);
        client.expect_close(1001);
        if answering > 0 {
            client.send_close(1001);
            upstream.expect_close(1001);
            upstream.send_close(1001);
            answering -= 1;
        } else {
            upstream.expect_close(1001);
        }
    }
    elbows.wait();
    let last = elbows.log.wait_for("ended; ");
    assert!(last.contains(" drained=2 unanswered=1 "), "{last}");
}

/// A real client is told, and sees it as an orderly end; what it said before is there.
fn real_client_sees_1001(start: Start) {
    let tunnels = Tunnels::start();
    let settings = [("PROXY_PROTOCOL", "off"), ("DRAIN_PERIOD", "200ms"), ("DRAIN_GRACE", "10s")];
    let mut elbows = Elbows::start(tunnels.address, &settings);
    let client = start(elbows.address);
    let mut upstream = tunnels.accept();
    for number in 0..100 {
        upstream.send_frame(TEXT, format!("{number}"));
    }
    for number in 0..100 {
        upstream.expect(TEXT, format!("{number}"));
    }
    elbows.drain();
    let close = upstream.read_frame();
    assert_eq!((close.opcode, close.code()), (CLOSE, Some(1001)), "{close:?}");
    upstream.send_close(1001);
    assert_eq!(client.join().unwrap(), Closed { code: 1001, was_clean: true });
    drop(upstream);
    assert_eq!(elbows.wait().code(), Some(0));
    let line = elbows.access_log.wait_for("GET /ws HTTP/1.1\" status=101");
    assert!(line.contains("by=elbows during=drain"), "{line}");
}

#[test]
fn websockets_sees_1001() {
    real_client_sees_1001(real_clients::websockets);
}

#[test]
fn node_ws_sees_1001() {
    real_client_sees_1001(real_clients::node_ws);
}

#[test]
fn tungstenite_sees_1001() {
    real_client_sees_1001(real_clients::tungstenite);
}

#[test]
fn chromium_sees_1001_and_a_clean_end() {
    real_client_sees_1001(real_clients::chromium);
}
