//! Requests that ask for another protocol (RFC 9110, section 7.8; RFC 6455, section 4).

use std::time::Duration;

use super::{OK, body, ends, shell};
use crate::connection::Lifecycle;
use crate::tunnel::Protocol;

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: x\r\n\r\n";

const SWITCHING: &str = "HTTP/1.1 101 S\r\nSec-WebSocket-Accept: y\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn tunnel_begins_with_what_both_sides_sent_early() {
    for piece in [1, usize::MAX] {
        let mut shell = shell();
        shell.client.piece = piece;
        shell.client_sends([HANDSHAKE, "client"].concat());
        assert!(body(&shell.upstream_got(0)).is_empty());
        shell.upstream_sends([SWITCHING, "upstream"].concat());
        assert_eq!(shell.client_got(), SWITCHING);
        let tunnel = shell.tunnel.as_ref().unwrap();
        assert_eq!(tunnel.client_early, b"client");
        assert_eq!(tunnel.upstream_early, b"upstream");
        assert_eq!(tunnel.protocol, Protocol::WebSocket);
        assert_eq!(tunnel.entry.status, Some(101));
        assert_eq!(tunnel.upstream, Some(shell.links[0].address));
        // Its end writes the line.
        assert_eq!(shell.log(), []);
    }
}

#[test]
fn tunnel_begins_when_the_client_has_taken_the_101() {
    let mut shell = shell();
    shell.client_sends(HANDSHAKE);
    shell.client.room = 10;
    shell.upstream_sends(SWITCHING);
    assert_eq!(shell.lifecycle(), Some(Lifecycle::Switching));
    shell.client_sends("early");
    shell.client_ends();
    assert_eq!(shell.lifecycle(), Some(Lifecycle::Switching), "the tunnel passes the end on");
    shell.client.room = usize::MAX;
    shell.run();
    assert_eq!(shell.tunnel.as_ref().unwrap().client_early, b"early");
}

#[test]
fn client_that_leaves_before_its_101_is_logged() {
    let mut shell = shell();
    shell.client_sends(HANDSHAKE);
    shell.client.room = 10;
    shell.upstream_sends(SWITCHING);
    shell.client.takes_nothing = true;
    shell.run();
    assert_eq!(shell.over, Some(false));
    assert_eq!(ends(&shell), ["101 client handshake closed"]);
    assert!(shell.links[0].is_closed);

    let mut shell = super::shell();
    shell.client_sends(HANDSHAKE);
    shell.client.room = 10;
    shell.upstream_sends(SWITCHING);
    shell.wait(Duration::from_secs(60));
    assert_eq!(ends(&shell), ["101 client handshake stalled"]);
    assert!(shell.over.is_some() && shell.links[0].is_closed);
}

#[test]
fn refused_handshake_is_an_answer_and_the_connection_goes_on() {
    let mut shell = shell();
    shell.client_sends(HANDSHAKE);
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    assert_eq!(ends(&shell), ["200 upstream response complete"]);
    shell.client_sends(HANDSHAKE);
    assert_eq!(shell.links.len(), 2, "a handshake takes no link that was used");
    shell.upstream_sends(SWITCHING);
    assert!(shell.tunnel.is_some());
}

#[test]
fn protocol_that_nobody_offered_is_a_fault() {
    let other = SWITCHING.replace("websocket", "other");
    for (request, response) in [
        (super::GET, SWITCHING),
        (HANDSHAKE, other.as_str()),
        (HANDSHAKE, "HTTP/1.1 101 S\r\n\r\n"),
        (&HANDSHAKE.replace("GET", "POST").replace("Sec", "Content-Length: 1\r\nSec"), SWITCHING),
    ] {
        let mut shell = shell();
        shell.client_sends(request);
        shell.upstream_sends(response);
        assert!(shell.client_got().starts_with("HTTP/1.1 502 "), "{request:?} {response:?}");
        assert!(shell.links[0].is_closed && shell.tunnel.is_none());
        assert_eq!(shell.proxy.counters.response_faults.unasked_upgrades.get(), 1);
    }
}

#[test]
fn upgrade_that_comes_with_a_body_is_a_request_without_the_offer() {
    let mut shell = shell();
    shell.client_sends(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    );
    let head = shell.upstream_got(0);
    assert!(!head.contains("pgrade") && !head.contains("HTTP2"), "{head}");
    shell.upstream_sends("HTTP/1.1 100 Continue\r\n\r\n");
    shell.client_sends("abc");
    assert_eq!(shell.upstream_got(0), "abc");
    let long = "x".repeat(100_000);
    shell.client_got();
    shell.client.room = 5_000;
    shell.upstream_sends(format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{long}"));
    shell.client.room = usize::MAX;
    shell.run();
    assert!(body(&shell.client_got()) == long);
}
