//! Times go on across handoffs: what is due comes when it is due, however often a tunnel moves meanwhile.

use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::relay::{Relay, Verdict, YOURS};
use super::{Place, talk};
use crate::proxy::Lines;
use crate::web_socket::{CLOSE, PING, PONG, Peer, TEXT, Tunnels, value};

/// One tunnel whose process is replaced again and again until elbows ends it. `client` and `application` are
/// what its sides do until then. Returns how long it lived from its handshake on, and its line of the access log.
fn moved_until_it_ends(
    settings: &[(&str, &str)],
    client: impl FnOnce(Peer) + Send,
    application: impl FnOnce(Peer) + Send,
) -> (Duration, String) {
    let tunnels = Tunnels::start();
    let place = Place::new(tunnels.address);
    let mut old = place.start(settings);
    let start = Instant::now();
    let (client_end, application_end) = tunnels.open(&old);
    thread::scope(|scope| {
        let client = scope.spawn(move || client(client_end));
        let ended = scope.spawn(move || {
            application(application_end);
            start.elapsed()
        });
        let mut handoffs = 0;
        let mut logs = vec![old.access_log.clone()];
        while !ended.is_finished() {
            // So long each process has the tunnel.
            thread::sleep(Duration::from_millis(60));
            old = place.hand_over(&mut old, settings);
            handoffs += 1;
            logs.push(old.access_log.clone());
        }
        let lived = ended.join().unwrap();
        client.join().unwrap();
        assert!(handoffs >= 3, "it has hardly moved");
        eprintln!("{handoffs} handoffs in {lived:?}");
        // Where the tunnel ended while it was not to move any more the process before has its line.
        old.wait_for_report("tunnels_open=0");
        let lines: Vec<_> = logs.iter().map(Lines::all).collect();
        let line = lines.concat().into_iter().find(|line| line.contains("status=101"));
        let line = line.expect("its line");
        let moves: usize = value(&line, "handoffs").parse().unwrap();
        let last = lines.iter().position(|lines| !lines.is_empty()).unwrap();
        assert_eq!(moves, last, "each process counts one: {line}");
        (lived, line)
    })
}

/// Answers Pings until a Close comes, and answers that.
fn answers_until_close(mut peer: Peer) {
    loop {
        let frame = peer.read_frame();
        match frame.opcode {
            PING => peer.send_frame(PONG, frame.payload),
            CLOSE => return peer.send_frame(CLOSE, frame.payload),
            _ => {}
        }
    }
}

/// Not early; and not so late as one would be that begins anew in each process.
fn assert_about(lived: Duration, from: f64, to: f64) {
    let lived = lived.as_secs_f64();
    assert!(lived > from - 0.1 && lived < to * 3.0, "{lived}");
}

#[test]
fn a_client_that_does_not_answer_ends_in_time() {
    let settings = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "2500ms")];
    let (lived, line) = moved_until_it_ends(
        &settings,
        |mut client| {
            assert_eq!(client.read_frame().opcode, PING);
            // And no other Ping, however many processes there are.
            let (rest, _) = client.read_to_end();
            assert!(rest.iter().all(|frame| frame.opcode == CLOSE), "{rest:?}");
        },
        answers_until_close,
    );
    assert_about(lived, 3.0, 3.0);
    assert!(line.contains("by=client during=relay why=timeout"), "{line}");
}

#[test]
fn a_tunnel_without_data_is_idle_in_time() {
    let settings = [("PING_INTERVAL", "300ms"), ("IDLE_TIMEOUT", "3s")];
    let (lived, line) = moved_until_it_ends(&settings, answers_until_close, answers_until_close);
    assert_about(lived, 3.0, 3.0);
    assert!(line.contains("by=elbows during=relay why=idle"), "{line}");
}

#[test]
fn a_busy_tunnel_is_old_in_time() {
    let settings = [("MAX_LIFETIME", "4s"), ("DRAIN_CLOSE_CODE", "1012")];
    let (lived, line) = moved_until_it_ends(
        &settings,
        |mut client| {
            let close = loop {
                client.send_frame(TEXT, "busy");
                let frame = client.read_frame();
                if frame.opcode == CLOSE {
                    break frame;
                }
                assert_eq!(frame.payload, b"busy");
                // A pace: what ends the loop is the Close.
                thread::sleep(Duration::from_millis(2));
            };
            assert_eq!(close.code(), Some(1012));
            client.send_frame(CLOSE, close.payload);
        },
        |mut application| loop {
            let frame = application.read_frame();
            application.send_frame(frame.opcode, frame.payload);
            if frame.opcode == CLOSE {
                return;
            }
        },
    );
    assert_about(lived, 3.6, 4.0);
    assert!(line.contains("by=elbows during=relay why=lifetime"), "{line}");
}

/// An application that takes nothing is given up in time, too.
#[test]
fn a_side_that_takes_nothing_is_given_up_in_time() {
    let settings = [("STALL_TIMEOUT", "3s"), ("PING_INTERVAL", "off")];
    let (ended, is_ended) = mpsc::channel::<()>();
    let (lived, line) = moved_until_it_ends(
        &settings,
        move |mut client| {
            let _ended = ended;
            let mut socket = client.socket.try_clone().unwrap();
            let frame = client.frame(0x82, vec![7; 60_000]);
            thread::scope(|scope| {
                scope.spawn(move || while socket.write_all(&frame).is_ok() {});
                client.expect_close(1001);
                let _ = client.socket.shutdown(Shutdown::Both);
            });
        },
        move |_application| assert!(is_ended.recv().is_err()),
    );
    assert_about(lived, 3.0, 3.5);
    assert!(line.contains("by=upstream during=relay why=stalled"), "{line}");
}

/// What comes while no process has the tunnel is a sign of life.
#[test]
fn an_answer_that_comes_in_the_pause_is_one() {
    let tunnels = Tunnels::start();
    let place = Place::new(tunnels.address);
    let settings = [("PING_INTERVAL", "1s"), ("PONG_TIMEOUT", "2s"), ("STALL_TIMEOUT", "1h")];
    let old = place.start(&settings);
    let (mut client, application) = tunnels.open(&old);
    let ping = client.read_frame();
    assert_eq!(ping.opcode, PING);
    let mut answering = client.socket.try_clone().unwrap();
    let answer = client.frame(0x80 | PONG, ping.payload);
    let relay = Relay::start(place.socket(), move |moment| {
        if moment == (YOURS, 1) {
            answering.write_all(&answer).unwrap();
        }
        Verdict::Pass
    });
    let path = relay.path.to_str().unwrap();
    let new = place.take_over(&[&settings[..], &[("HANDOFF_SOCKET", path)]].concat());
    new.log.wait_for("handoff from=");
    // The next Ping, and not the end, which would come because nobody has heard of the answer.
    assert_eq!(client.read_frame().opcode, PING);
    talk(&mut (client, application), "here");
}
