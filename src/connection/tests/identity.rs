//! Who the client is, and whether there is room for it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::{GET, OK, ends};
use crate::config::{Config, ProxyProtocol};
use crate::connection::times::REFUSED_PATIENCE;
use crate::fuzzing::decode;
use crate::fuzzing::shell::{Shell, config};

const HEADER: &str = "PROXY TCP4 203.0.113.7 192.0.2.1 5555 443\r\n";

fn behind_proxy() -> Config {
    Config { proxy_protocol: ProxyProtocol::Required, ..config() }
}

fn crowded(proxy_protocol: ProxyProtocol) -> Config {
    Config { max_connections: NonZeroUsize::new(1), proxy_protocol, ..config() }
}

#[test]
fn header_says_who_the_client_is_in_one_piece_and_byte_by_byte() {
    for piece in [1, usize::MAX] {
        let mut shell = Shell::new(behind_proxy());
        shell.client.piece = piece;
        shell.client_sends([HEADER, GET].concat());
        let requests = decode::requests(&shell.links[0].peer.received);
        assert_eq!(requests[0].values("x-forwarded-for"), ["203.0.113.7"]);
        assert_eq!(requests[0].values("x-forwarded-proto"), ["https"]);
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
    }
}

#[test]
fn second_header_is_content_and_not_identity() {
    let mut shell = Shell::new(behind_proxy());
    shell.client_sends([HEADER, HEADER, GET].concat());
    assert!(shell.client_got().starts_with("HTTP/1.1 400 "));
    assert!(shell.links.is_empty());
}

#[test]
fn request_without_required_header_gets_400_and_no_upstream() {
    let mut shell = Shell::new(behind_proxy());
    shell.client_sends(GET);
    assert!(shell.client_got().starts_with("HTTP/1.1 400 "));
    assert!(shell.links.is_empty() && shell.client.is_told_end);
    assert_eq!(ends(&shell), ["400 client request no_proxy_header"]);
}

#[test]
fn health_check_needs_no_header() {
    let mut shell = Shell::new(behind_proxy());
    shell.client_sends("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(shell.client_got().ends_with("\r\n\r\nok"));
    assert_eq!(shell.log(), []);
}

#[test]
fn bad_header_ends_the_connection_without_a_word() {
    for piece in [1, usize::MAX] {
        let mut shell = Shell::new(behind_proxy());
        shell.client.piece = piece;
        shell.client_sends(["PROXY TCP4 nobody\r\n", GET].concat());
        assert_eq!((shell.over, shell.client_got().as_str()), (Some(false), ""));
        assert_eq!(shell.proxy.counters.proxy_faults.broken().count(), 1);
        assert_eq!(shell.log(), []);
    }
}

#[test]
fn header_has_its_time_and_the_head_its_own() {
    let mut shell = Shell::new(behind_proxy());
    shell.client_sends("PROXY ");
    shell.wait(Duration::from_millis(9_999));
    assert_eq!(shell.over, None);
    shell.wait(Duration::from_millis(1));
    assert_eq!((shell.over, shell.client_got().as_str()), (Some(false), ""));
    assert_eq!(shell.proxy.counters.proxy_header_timeouts.get(), 1);

    let mut shell = Shell::new(behind_proxy());
    shell.wait(Duration::from_millis(9_999));
    shell.client_sends(HEADER);
    shell.wait(Duration::from_millis(59_999));
    shell.client_sends(GET);
    assert_eq!(shell.links.len(), 1);
}

#[test]
fn connection_that_closes_before_its_request_is_a_check_and_not_logged() {
    for (sent, probes, cut) in [("", 1, 0), (HEADER, 1, 0), ("PROXY TCP4", 0, 1)] {
        let mut shell = Shell::new(behind_proxy());
        shell.client_sends(sent);
        shell.client_ends();
        assert_eq!((shell.over, shell.client_got().as_str()), (Some(false), ""));
        let counters = &shell.proxy.counters;
        assert_eq!((counters.probes.get(), counters.proxy_headers_cut.get()), (probes, cut));
        assert_eq!(shell.log(), []);
    }
}

#[test]
fn connection_that_breaks_ends_at_once() {
    let mut shell = Shell::new(behind_proxy());
    shell.client_sends([HEADER, "GET /"].concat());
    shell.client.breaks();
    shell.run();
    assert_eq!(shell.over, Some(false));
    assert_eq!(shell.log(), []);
}

#[test]
fn over_the_limit_silence_has_a_second() {
    let mut shell = Shell::new(crowded(ProxyProtocol::Required));
    let _seat = shell.accept_beside_another();
    shell.wait(Duration::from_millis(999));
    assert_eq!(shell.over, None);
    shell.wait(Duration::from_millis(1));
    assert_eq!((shell.over, shell.client_got().as_str()), (Some(false), ""));

    // With a header it is told.
    let mut shell = Shell::new(crowded(ProxyProtocol::Required));
    let _seat = shell.accept_beside_another();
    shell.client_sends(HEADER);
    shell.wait(REFUSED_PATIENCE);
    assert!(shell.client_got().starts_with("HTTP/1.1 503 "));
    assert_eq!(ends(&shell), ["503 elbows request over_limit"]);
}

#[test]
fn over_the_limit_a_request_line_is_refused() {
    for piece in [1, usize::MAX] {
        let mut shell = Shell::new(crowded(ProxyProtocol::Required));
        let _seat = shell.accept_beside_another();
        shell.client.piece = piece;
        shell.client_sends([HEADER, "GET / HTTP/1.1\r\n"].concat());
        let answer = shell.client_got();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 5\r\n"));
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(ends(&shell), ["503 elbows request over_limit"]);
        assert!(shell.client.is_told_end && shell.links.is_empty());
    }
}

#[test]
fn over_the_limit_health_checks_are_answered() {
    for (line, end) in [("GET /ping HTTP/1.1\r\n", "ok"), ("HEAD /ping HTTP/1.0\r\n", "\r\n\r\n")] {
        let mut shell = Shell::new(crowded(ProxyProtocol::Off));
        let _seat = shell.accept_beside_another();
        shell.client_sends(line);
        let answer = shell.client_got();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(end), "{answer}");
        assert_eq!(shell.log(), []);
    }
}

#[test]
fn connections_of_one_client_are_counted_from_its_header_on() {
    let one = NonZeroU32::new(1);
    let mut shell = Shell::new(Config { max_connections_per_client: one, ..behind_proxy() });
    let mut other = shell.accept_beside_another();
    let balancer = crate::fuzzing::shell::BALANCER.into();
    other.of_client("203.0.113.7:9".parse().unwrap(), balancer).unwrap();
    shell.client_sends([HEADER, GET].concat());
    assert!(shell.client_got().starts_with("HTTP/1.1 429 "));
    assert_eq!(ends(&shell), ["429 client request over_limit"]);
    drop(other);
    shell.accept();
    shell.client_sends([HEADER, GET].concat());
    assert_eq!(shell.links.len(), 1);
}

#[test]
fn seat_is_given_up_with_the_connection() {
    let mut shell = Shell::new(crowded(ProxyProtocol::Off));
    shell.client_ends();
    assert_eq!(shell.over, Some(false));
    shell.accept();
    shell.client_sends(GET);
    assert_eq!(shell.links.len(), 1);
}
