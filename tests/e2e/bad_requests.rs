//! Requests that must not pass: each gets its status and a close, a log line, and the upstream sees
//! nothing of it.

use crate::client::Client;
use crate::proxy::Elbows;
use crate::upstream::Upstream;

/// Sends `request` and expects `status`, a close, a log line with it, and silence at the upstream.
fn refused(request: impl AsRef<[u8]>, status: u16) {
    let upstream = Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(request.as_ref());
    let shown = String::from_utf8_lossy(&request.as_ref()[..request.as_ref().len().min(200)]);
    let answer = client.read_to_end().unwrap_or_else(|error| panic!("{error} after {shown:?}"));
    // Its line is written when its connection is over.
    drop(client);
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(
        answer.split(' ').nth(1),
        Some(status.to_string().as_str()),
        "{answer:?} to {shown:?}"
    );
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer:?} to {shown:?}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer:?}");
    let line = elbows.access_log.wait_for(&format!("status={status} "));
    assert!(line.contains("client=203.0.113.7:51234"), "{line}");
    assert!(line.contains("by=client during=request"), "{line}");
    assert!(upstream.saw_nothing(), "the upstream heard of {shown:?}");
}

#[test]
fn host_is_demanded_once_and_well_formed() {
    refused("GET / HTTP/1.1\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400);
    refused("GET http://a/ HTTP/1.1\r\n\r\n", 400);
}

#[test]
fn connect_is_not_implemented() {
    refused("CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n", 501);
}

#[test]
fn other_transfer_codings_are_not_implemented() {
    refused("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501);
}

#[test]
fn framing_that_can_be_read_two_ways_is_refused() {
    for fields in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 2",
        "Content-Length: +1",
        "Content-Length: -1",
        "Content-Length: 1x",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding : chunked",
        "X: 1\r\n folded: 2",
    ] {
        refused(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n1"), 400);
    }
    refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

#[test]
fn garbage_is_refused() {
    refused("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400);
    refused("GET\r\n\r\n", 400);
    refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\u{fc}: 1\r\n\r\n", 400);
    refused("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused([b"\xff".repeat(200_000), b"\r\n\r\n".to_vec()].concat(), 400);
}

#[test]
fn target_that_names_no_resource_is_refused() {
    refused("GET shop.example:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET shop HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400);
}

#[test]
fn head_over_64_kib_is_too_large() {
    let long = "x".repeat(70_000);
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431);
    // A client that does not read before it has sent everything still gets the answer.
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long.repeat(10)), 431);
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(101)), 431);
}

#[test]
fn long_target_is_too_long() {
    refused(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40_000)), 414);
}

#[test]
fn versions_other_than_1_are_refused() {
    refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505);
    refused("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505);
    refused("GET /\r\n\r\n", 400);
}

#[test]
fn http_2_preface_is_not_supported() {
    let upstream = Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let answer = client.read_to_end().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 505 "), "{}", String::from_utf8_lossy(&answer));
    let line = elbows.access_log.wait_for("by=client during=request why=malformed");
    assert!(line.contains(" status=505 "), "{line}");
    assert!(upstream.saw_nothing());
}

#[test]
fn bad_chunk_ends_the_request_and_nothing_else_is_read() {
    let upstream = Upstream::start(|mut socket| {
        use std::io::Read;
        let mut all = Vec::new();
        let _ = socket.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let line = elbows.access_log.wait_for("POST /");
    // The upstream may have heard of it, or of nothing yet.
    let seen = if line.contains("upstream=- ") { String::new() } else { upstream.seen() };
    let body = seen.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert!(!body.contains("0\r\n\r\n") && !body.contains("smuggled"), "{seen}");
    assert!(line.contains("status=400") && line.contains("by=client"), "{line}");
}

#[test]
fn answer_reaches_a_client_that_still_sends() {
    let elbows = Elbows::start(Upstream::nobody(), &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("POST /x HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n");
    // Read by nobody, and no reason for a reset before the answer is there.
    for _ in 0..20 {
        client.send(vec![b'x'; 100_000]);
    }
    assert_eq!(client.read_response().status, 400);
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b"");
}

byte_by_byte!({
    host_is_demanded_once_and_well_formed,
    connect_is_not_implemented,
    other_transfer_codings_are_not_implemented,
    framing_that_can_be_read_two_ways_is_refused,
    garbage_is_refused,
    target_that_names_no_resource_is_refused,
    head_over_64_kib_is_too_large,
    long_target_is_too_long,
    versions_other_than_1_are_refused,
    http_2_preface_is_not_supported,
    bad_chunk_ends_the_request_and_nothing_else_is_read,
} not {
    answer_reaches_a_client_that_still_sends: "it sends two megabytes within the second that a refused one has",
});
