//! The way to zero: signals, what goes on, what is cut, exit codes.
//!
//! Each test waits for what it asserts; `DRAIN_PERIOD` is either so long that only an early end
//! passes, or so short that only a cut does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, PROXY_V1, field, handshake};
use crate::proxy::{Elbows, free_port};
use crate::upstream::{SWITCHING, Upstream, read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// No test waits for it: whoever ends before it has ended early.
const FOREVER: &str = "1h";

/// An application that answers each request only when it is let.
fn patient(answer: &'static [u8]) -> (Upstream, Sender<()>) {
    let (let_answer, lets) = channel();
    let lets: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(lets));
    let upstream = Upstream::start(move |mut socket| {
        let head = read_head(&mut socket);
        let _ = lets.lock().unwrap().recv();
        let _ = socket.write_all(answer);
        let mut sink = socket.try_clone().unwrap();
        let _ = io::copy(&mut socket, &mut sink);
        head
    });
    (upstream, let_answer)
}

#[test]
fn sigterm_and_sigint_fail_checks_then_close_listeners_then_end_with_0() {
    let upstream = Upstream::answering(OK);
    for signal in [Signal::TERM, Signal::INT] {
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut elbows = Elbows::start(
            upstream.address,
            &[
                ("HEALTH_LISTEN_ON", &health.to_string()),
                ("DRAIN_DELAY", "3s"),
                ("DRAIN_PERIOD", FOREVER),
            ],
        );
        let start = Instant::now();
        let mut kept = Client::behind_balancer(elbows.address);
        assert_eq!(kept.get("/ping").status, 200);
        elbows.signal(signal);
        elbows.log.wait_for("draining");
        for address in [elbows.address, health] {
            let response = Client::plain(address).get("/ping");
            assert_eq!((response.status, response.text().as_str()), (503, "draining\n"));
        }
        assert_eq!(kept.get("/ping").status, 503);
        // New connections are still served, and kept alive.
        let response = Client::behind_balancer(elbows.address).get("/new");
        assert_eq!((response.status, response.field("connection")), (200, None));
        elbows.wait_until_refused();
        assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(elbows.wait().code(), Some(0));
        elbows.access_log.wait_for("/new");
    }
}

#[test]
fn idle_connections_close_at_once() {
    let upstream = Upstream::answering(OK);
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", FOREVER)]);
    let mut used = Client::behind_balancer(elbows.address);
    assert_eq!(used.get("/").status, 200);
    let mut identified = Client::behind_balancer(elbows.address);
    let mut silent = Client::plain(elbows.address);
    let mut inside_header = Client::plain(elbows.address);
    inside_header.send(&PROXY_V1[..20]);
    elbows.wait_for_report("open=4");
    elbows.signal(Signal::TERM);
    for client in [&mut used, &mut identified, &mut silent] {
        assert_eq!(client.read_to_end().unwrap(), b"");
    }
    // Its bytes were read, or are thrown away with a reset.
    assert_eq!(inside_header.read_to_end().unwrap_or_default(), b"");
    assert_eq!(elbows.wait().code(), Some(0));
    elbows.log.wait_for(" cut=0 ");
}

#[test]
fn request_under_way_finishes_with_connection_close() {
    let (upstream, let_answer) = patient(OK);
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", FOREVER)]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    elbows.wait_for_report("requests=1");
    elbows.drain();
    elbows.wait_until_refused();
    let_answer.send(()).unwrap();
    let response = client.read_response();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(client.read_to_end().unwrap(), b"");
    assert_eq!(elbows.wait().code(), Some(0));
    let line = elbows.access_log.wait_for("/slow");
    assert!(line.contains("status=200") && line.contains("why=complete"), "{line}");
}

#[test]
fn request_that_outlasts_the_period_is_cut_and_logged_so() {
    let (upstream, _never) = patient(OK);
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", "200ms")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    elbows.wait_for_report("requests=1");
    elbows.signal(Signal::TERM);
    assert_eq!(client.read_to_end().unwrap_or_default(), b"");
    assert_eq!(elbows.wait().code(), Some(0), "the period was over as planned");
    let line = elbows.access_log.wait_for("/slow");
    assert!(line.contains("status=- "), "{line}");
    assert!(line.contains("by=elbows during=drain why=period_over"), "{line}");
    elbows.log.wait_for(" cut=1 ");
}

#[test]
fn response_that_outlasts_the_period_is_cut_and_never_looks_complete() {
    let (upstream, let_answer) =
        patient(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning");
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", "200ms")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    let_answer.send(()).unwrap();
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_exact(9), b"beginning");
    elbows.signal(Signal::TERM);
    assert_eq!(client.read_to_end().unwrap_or_default(), b"");
    assert_eq!(elbows.wait().code(), Some(0));
    let line = elbows.access_log.wait_for("/cut");
    assert!(line.contains("status=200 from_client=0 from_upstream=9"), "{line}");
    assert!(line.contains("by=elbows during=drain why=period_over"), "{line}");
}

#[test]
fn tunnels_get_the_period_and_are_cut_after_it() {
    let upstream = Upstream::other_echo();
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", "3s")]);
    let mut tunnels: Vec<_> = (0..5).map(|_| Client::other_tunnel(&elbows)).collect();
    let start = Instant::now();
    elbows.drain();
    elbows.wait_until_refused();
    tunnels.iter_mut().for_each(Client::echoes);
    for tunnel in &mut tunnels {
        assert_eq!(tunnel.read_to_end().unwrap_or_default(), b"");
        upstream.seen();
    }
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(elbows.wait().code(), Some(0));
    elbows.access_log.wait_until("5 lines", |lines| (lines.len() == 5).then_some(()));
    for line in elbows.access_log.all() {
        assert!(line.contains("status=101 from_client=10 from_upstream=10"), "{line}");
        assert!(line.contains("by=elbows during=drain why=period_over"), "{line}");
    }
    elbows.log.wait_for(" cut=5 ");
}

#[test]
fn process_ends_when_the_last_tunnel_does() {
    let upstream = Upstream::echo();
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", FOREVER)]);
    let (mut first, mut last) = (Client::tunnel(&elbows), Client::tunnel(&elbows));
    elbows.drain();
    elbows.wait_until_refused();
    drop(first.socket);
    elbows.wait_for_report("tunnels_open=1");
    last.echoes();
    first = last;
    first.finish();
    assert_eq!(first.read_to_end().unwrap(), b"");
    assert_eq!(elbows.wait().code(), Some(0));
    elbows.access_log.wait_until("2 lines", |lines| (lines.len() == 2).then_some(()));
    for line in elbows.access_log.all() {
        assert!(line.contains("by=client during=drain why="), "{line}");
    }
    elbows.log.wait_for(" cut=0 ");
}

#[test]
fn handshake_under_way_gets_its_tunnel() {
    let (upstream, let_answer) = patient(SWITCHING);
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", FOREVER)]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws"));
    elbows.wait_for_report("requests=1");
    elbows.drain();
    elbows.wait_until_refused();
    let_answer.send(()).unwrap();
    let response = client.read_head();
    assert_eq!(response.status, 101);
    let connection: Vec<_> = response
        .head
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    assert_eq!(connection.len(), 1, "{}", response.head);
    assert!(field(&response.head, "connection").unwrap().eq_ignore_ascii_case("upgrade"));
    client.echoes();
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b"");
    assert_eq!(elbows.wait().code(), Some(0));
    elbows.access_log.wait_for("status=101 from_client=5 from_upstream=5");
}

#[test]
fn second_signal_ends_at_once_with_1_if_it_cut_something() {
    let upstream = Upstream::echo();
    for delay in ["0s", FOREVER] {
        let mut elbows =
            Elbows::start(upstream.address, &[("DRAIN_DELAY", delay), ("DRAIN_PERIOD", FOREVER)]);
        let mut tunnel = Client::tunnel(&elbows);
        elbows.drain();
        if delay == "0s" {
            elbows.wait_until_refused();
        }
        assert_eq!(elbows.hurry().code(), Some(1));
        assert_eq!(tunnel.read_to_end().unwrap_or_default(), b"");
        elbows.access_log.wait_for("by=elbows during=drain why=period_over");
    }
}

/// Some supervisors send SIGTERM and SIGINT for one stop.
#[test]
fn two_signals_within_a_second_are_one() {
    let upstream = Upstream::other_echo();
    let settings = [("DRAIN_DELAY", "0s"), ("DRAIN_PERIOD", FOREVER)];
    let mut elbows = Elbows::start(upstream.address, &settings);
    let mut tunnel = Client::other_tunnel(&elbows);
    let start = Instant::now();
    elbows.drain();
    let mut signals = [Signal::INT, Signal::TERM].into_iter().cycle();
    while start.elapsed() < Duration::from_millis(800) {
        elbows.signal(signals.next().unwrap());
        tunnel.echoes();
    }
    // What has its time ends well.
    tunnel.finish();
    assert_eq!(tunnel.read_to_end().unwrap(), b"");
    assert_eq!(elbows.wait().code(), Some(0));
}

#[test]
fn second_signal_ends_with_0_if_nothing_was_under_way() {
    let upstream = Upstream::answering(OK);
    for idle in [false, true] {
        let mut elbows = Elbows::start(upstream.address, &[("DRAIN_DELAY", FOREVER)]);
        let mut clients: Vec<_> =
            (0..20).map(|_| Client::behind_balancer(elbows.address)).collect();
        if idle {
            for client in &mut clients {
                assert_eq!(client.get("/").status, 200);
            }
        } else {
            clients.clear();
        }
        elbows.drain();
        assert_eq!(elbows.hurry().code(), Some(0));
        for mut client in clients {
            assert_eq!(client.read_to_end().unwrap(), b"");
        }
    }
}

#[test]
fn checks_on_their_own_port_fail_to_the_end() {
    let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let upstream = Upstream::echo();
    let mut elbows = Elbows::start(
        upstream.address,
        &[("HEALTH_LISTEN_ON", &health.to_string()), ("DRAIN_PERIOD", FOREVER)],
    );
    let tunnel = Client::tunnel(&elbows);
    elbows.drain();
    elbows.wait_until_refused();
    assert_eq!(Client::plain(health).get("/ping").status, 503);
    // An idle check connection is nothing to wait for.
    let mut idle = Client::plain(health);
    assert_eq!(idle.get("/ping").status, 503);
    drop(tunnel);
    assert_eq!(elbows.wait().code(), Some(0));
}

#[test]
fn every_line_is_written_before_the_end() {
    let upstream = Upstream::other_echo();
    let mut elbows = Elbows::start(upstream.address, &[("DRAIN_PERIOD", "0s")]);
    let tunnels: Vec<_> = (0..100).map(|_| Client::other_tunnel(&elbows)).collect();
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
    elbows.access_log.wait_until("100 lines", |lines| (lines.len() == 100).then_some(()));
    for mut tunnel in tunnels {
        let mut rest = Vec::new();
        let _ = tunnel.socket.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    elbows.log.wait_for(" cut=100 ");
}
