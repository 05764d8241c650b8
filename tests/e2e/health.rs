//! The one path that elbows answers itself: exactly it, without upstream, address or log line.

use std::net::{Ipv4Addr, SocketAddr};

use crate::client::{Client, PROXY_V1};
use crate::proxy::{Elbows, free_port};
use crate::upstream::Upstream;

const TEAPOT: &[u8] = b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n";

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
}

/// elbows with a further port for health checks, and its address.
fn with_health_port(upstream: SocketAddr) -> (Elbows, SocketAddr) {
    let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let elbows = Elbows::start(upstream, &[("HEALTH_LISTEN_ON", &health.to_string())]);
    (elbows, health)
}

#[test]
fn get_and_head_of_exactly_the_path_are_checks_and_nothing_else_is() {
    let upstream = Upstream::answering(TEAPOT);
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    assert_eq!(client.get("/ping").text(), "ok\n");
    client.send(request("HEAD", "/ping"));
    let head = client.read_head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("3")));
    assert!(upstream.saw_nothing());
    for (method, target) in [
        ("POST", "/ping"),
        ("PUT", "/ping"),
        ("OPTIONS", "/ping"),
        ("GET", "/ping/"),
        ("GET", "/pingpong"),
        ("GET", "/PING"),
        ("GET", "//ping"),
        ("GET", "/%70ing"),
        ("GET", "/a/../ping"),
        ("GET", "/"),
    ] {
        client.send(request(method, target));
        assert_eq!(client.read_response().status, 418, "{method} {target}");
        assert!(upstream.seen().starts_with(&format!("{method} {target} ")), "{method} {target}");
    }
}

#[test]
fn checks_need_no_header_and_are_kept_alive() {
    let elbows = Elbows::start(Upstream::nobody(), &[]);
    let mut client = Client::plain(elbows.address);
    for _ in 0..5 {
        let response = client.get("/ping");
        assert_eq!((response.status, response.text().as_str()), (200, "ok\n"));
        assert_eq!(response.field("connection"), None);
    }
    // The same connection is still one without identity.
    assert_eq!(client.get("/").status, 400);
}

#[test]
fn checks_are_not_logged() {
    let (elbows, health) = with_health_port(Upstream::nobody());
    for _ in 0..3 {
        assert_eq!(Client::plain(elbows.address).get("/ping").status, 200);
        assert_eq!(Client::behind_balancer(elbows.address).get("/ping").status, 200);
        assert_eq!(Client::plain(health).get("/ping").status, 200);
        assert_eq!(Client::plain(health).get("/other").status, 404);
    }
    assert_eq!(Client::behind_balancer(elbows.address).get("/logged").status, 502);
    elbows.access_log.wait_for("/logged");
    assert_eq!(elbows.access_log.all().len(), 1, "{:?}", elbows.access_log.all());
    assert!(elbows.report().contains(" requests=1 "), "checks are no requests");
}

#[test]
fn health_port_serves_the_path_alone_and_no_header() {
    let upstream = Upstream::answering(TEAPOT);
    let (elbows, health) = with_health_port(upstream.address);
    let mut client = Client::plain(health);
    for _ in 0..3 {
        assert_eq!(client.get("/ping").status, 200);
        assert_eq!(client.get("/").status, 404);
        assert_eq!(client.get("/ping/").status, 404);
        client.send(request("POST", "/ping"));
        assert_eq!(client.read_response().status, 404);
        client.send(request("HEAD", "/ping"));
        assert_eq!(client.read_head().status, 200);
    }
    let mut with_header = Client::plain(health);
    with_header.send(PROXY_V1);
    with_header.send(request("GET", "/ping"));
    assert_eq!(with_header.read_head().status, 400);
    assert!(upstream.saw_nothing());
    drop(elbows);
}

#[test]
fn path_is_a_setting() {
    let upstream = Upstream::answering(TEAPOT);
    let elbows = Elbows::start(upstream.address, &[("HEALTH_PATH", "/alive")]);
    let mut client = Client::behind_balancer(elbows.address);
    assert_eq!(client.get("/alive").status, 200);
    assert_eq!(client.get("/ping").status, 418);
}
