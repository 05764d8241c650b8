//! What comes to the port of the open internet: many that say nothing, and some that read nothing.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use test_support::process::open_descriptors;

use super::{Admin, TOKEN, json, text};
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

/// Requests that are nearly good: bytes are changed, left out, put in and doubled, the same ones each time.
#[test]
fn two_thousand_spoilt_requests_are_answered_or_cut_and_harm_nobody() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[]);
    let mut tunnel = Client::tunnel(&admin.elbows);
    let id = text(&admin.only_tunnel(), "id").to_owned();
    let tunnels = admin.ask("GET", "/api/tunnels?sort=client&limit=1", "");
    assert_eq!(tunnels.status, 200);
    let good = [
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n".to_owned(),
        "GET /api/tunnels?client=203.0.113.0%2F24&older=1ms&idle=1h&sort=-age&limit=7&state=open \
         HTTP/1.1\r\nHost: [::1]:9145\r\n\r\n"
            .to_owned(),
        "GET /api/tunnels?cursor=00ff&search=%C3%A4&path=/a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("GET /api/tunnels/{id} HTTP/1.1\r\nHost: 10.0.0.1\r\nOrigin: http://10.0.0.1\r\n\r\n"),
        format!(
            "POST /api/tunnels/{id}/close?code=4000&reason=go+home HTTP/1.1\r\nHost: a\r\n\
             Authorization: Bearer {}\r\nSec-Fetch-Site: none\r\nContent-Length: 2\r\n\r\nab",
            // One that is wrong in its last sign: what is spoilt never becomes the right one.
            TOKEN.replace('9', "8")
        ),
        "POST /api/log?level=debug HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
    let mut below = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % most as u64).unwrap()
    };
    let (mut answered, mut cut) = (0, 0);
    for round in 0..2_000 {
        let mut bytes = good[round % good.len()].clone().into_bytes();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] = u8::try_from(below(256)).unwrap(),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b" \r\n\0%&=:/?\xff"[below(11)]),
                _ => bytes.extend_from_within(at..),
            }
        }
        let mut client = Client::plain(admin.address);
        // It may be cut before all is sent; what has no end of its own gets one here.
        let _ = client.try_send(&bytes);
        let _ = client.socket.shutdown(Shutdown::Write);
        let answer = client.read_to_end().unwrap_or_default();
        let said = String::from_utf8_lossy(&bytes);
        if let Some(rest) = answer.strip_prefix(b"HTTP/1.1 ") {
            assert!(matches!(rest.first(), Some(b'2' | b'4')), "{said}");
            answered += 1;
        } else {
            assert!(answer.is_empty(), "{said}");
            cut += 1;
        }
        if round % 100 == 0 {
            tunnel.echoes();
        }
    }
    assert!(answered > 1_000 && cut > 10, "{answered} answered, {cut} cut");
    assert_eq!(admin.ask("GET", "/ready", "").status, 200);
    assert_eq!(text(&admin.only_tunnel(), "id"), id);
    tunnel.echoes();
    let log = admin.elbows.log.all();
    let bad = log.iter().find(|line| line.contains("panic") || line.contains(TOKEN));
    assert_eq!(bad, None);
}
