//! What comes to the port of the open internet: many that say nothing, and some that read nothing.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use test_support::process::open_descriptors;

use super::{Admin, json, text};
use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::upstream::Upstream;

#[test]
fn thousand_that_say_nothing_are_few_and_keep_nobody_out() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[]);
    let mut tunnel = Client::tunnel(&admin.elbows);
    let before = open_descriptors(admin.elbows.pid()).len();
    let mut slow = Client::plain(admin.address);
    slow.send("GET /live HT");
    let idle: Vec<_> = (0..1_000)
        .map(|number| {
            if number % 100 == 0 {
                tunnel.echoes();
                assert_eq!(admin.ask("GET", "/live", "").status, 200, "{number}");
                // All before that one were accepted, and lost their places then, not some time later.
                let open = open_descriptors(admin.elbows.pid()).len();
                assert!(open <= before + 80, "{open} descriptors after {number}");
            }
            TcpStream::connect(admin.address).unwrap()
        })
        .collect();
    wait_until("what is over the bound is closed", || {
        open_descriptors(admin.elbows.pid()).len() <= before + 70
    });
    assert_eq!(admin.ask("GET", "/ready", "").status, 200);
    assert!(admin.ask("GET", "/metrics", "").text().contains("\nelbows_tunnels_open 1\n"));
    // They are none of the connections of clients.
    assert!(admin.ask("GET", "/metrics", "").text().contains("\nelbows_connections_open 0\n"));
    // Whoever began a head was as idle as they: its place is another's now.
    assert!(slow.read_to_end().map_or(true, |bytes| bytes.is_empty()));
    let ended = idle.into_iter().filter(|socket| {
        socket.set_nonblocking(true).unwrap();
        let mut socket = socket;
        let read = socket.read(&mut [0; 1]);
        !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    assert!(ended.count() >= 900);
    tunnel.echoes();
}

#[test]
fn follower_that_reads_nothing_holds_up_nobody() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[]);
    let followers: Vec<_> = (0..16)
        .map(|_| {
            let mut client = Client::plain(admin.address);
            client.send(format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address));
            assert_eq!(client.read_head().status, 200);
            client
        })
        .collect();
    let response = admin.ask("GET", "/api/events", "");
    assert_eq!((response.status, text(&json(&response), "error").is_empty()), (503, false));
    // Opens and ends, far more than are told.
    let start = Instant::now();
    for _ in 0..200 {
        let mut client = Client::behind_balancer(admin.elbows.address);
        client.send(handshake("/ws"));
        assert_eq!(client.read_response().status, 101);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    drop(followers);
    wait_until("there is a place again", || {
        let mut client = Client::plain(admin.address);
        client.send(format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address));
        client.read_head().status == 200
    });
}

#[test]
fn what_is_no_request_is_refused_or_cut() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[]);
    let large = format!("GET /live HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(40_000));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 80\r\n\r\n",
        b"GET /live\r\n\r\n",
        b"GET  /live HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        large.as_bytes(),
    ] {
        let mut client = Client::plain(admin.address);
        // It may be cut before all is sent.
        let _ = client.try_send(bytes);
        let answer = client.read_to_end().unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Bodies are nobody's; the connection ends, or goes on behind it.
    let response = admin.ask("POST", "/live", "Content-Length: 5\r\n");
    assert_eq!(response.status, 405);
    for target in ["//live", "/live/", "/LIVE", "/../live", "/api/tunnels//close", "*", "/%00"] {
        let status = admin.ask("GET", target, "").status;
        assert!(matches!(status, 400 | 404 | 405), "{target}: {status}");
    }
    assert_eq!(admin.ask("GET", "/live", "").status, 200);
}
