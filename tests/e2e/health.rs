//! The one path that elbows answers itself: exactly it, without upstream, address or log line.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

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
    assert_eq!(client.get("/ping").text(), "ok");
    client.send(request("HEAD", "/ping"));
    let head = client.read_head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("2")));
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
fn check_whose_client_sends_nothing_more_is_answered() {
    let (elbows, health) = with_health_port(Upstream::nobody());
    for (address, header) in
        [(elbows.address, b"".as_slice()), (elbows.address, PROXY_V1), (health, b"")]
    {
        for number in 0..100 {
            let mut client = Client::plain(address);
            // The end comes with the request, or while it is being answered, on a new connection or not.
            if number % 2 == 0 {
                client.send([header, request("GET", "/ping").as_bytes()].concat());
            } else {
                client.send(header);
                assert_eq!(client.get("/ping").status, 200);
                client.send(request("GET", "/ping"));
            }
            client.finish();
            let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
            assert!(answer.ends_with("\r\n\r\nok"), "{address} {number}: {answer:?}");
        }
    }
    elbows.wait_for_report("open=0");
}

#[test]
fn checks_need_no_header_and_are_kept_alive() {
    let elbows = Elbows::start(Upstream::nobody(), &[]);
    let mut client = Client::plain(elbows.address);
    for _ in 0..5 {
        let response = client.get("/ping");
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
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
fn health_port_takes_what_balancers_send() {
    let (elbows, health) = with_health_port(Upstream::nobody());
    let ask = |request: &str| {
        let mut client = Client::plain(health);
        client.send(request);
        (client.read_head(), client)
    };
    for (who, request) in [
        ("HAProxy", "GET /ping HTTP/1.0\r\n\r\n"),
        ("HAProxy with a host", "GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        (
            "AWS",
            "GET /ping HTTP/1.1\r\nHost: 10.0.0.1:45401\r\nConnection: close\r\n\
             User-Agent: ELB-HealthChecker/2.0\r\nAccept-Encoding: gzip, compressed\r\n\r\n",
        ),
    ] {
        let (head, mut client) = ask(request);
        assert_eq!((head.status, head.field("connection")), (200, Some("close")), "{who}");
        assert_eq!(client.read_to_end().unwrap(), b"ok", "{who}");
    }
    // Kept: Google's, nginx's, curl's.
    let (head, mut client) =
        ask("GET /ping?now HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: keep-alive\r\n\
         User-Agent: GoogleHC/1.0\r\n\r\n");
    assert_eq!((head.status, head.field("connection")), (200, None));
    assert_eq!(client.read_exact(2), b"ok");
    assert_eq!(client.get("/ping").status, 200);
    let url = format!("http://{health}/ping");
    let curl = Command::new("curl").args(["-fsS", "--max-time", "20", &url, &url]).output();
    assert_eq!(curl.unwrap().stdout, b"okok");
    // One packet a byte, two requests a packet, an offer of another protocol.
    let mut client = Client::plain(health);
    for byte in b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.read_response().status, 200);
    client.send(crate::client::handshake("/ping").repeat(2));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(client.read_response().status, 200);
    // TCP checks.
    drop(Client::plain(health));
    elbows.wait_for_report("probes=2");
}

#[test]
fn health_port_reads_nothing_behind_a_body() {
    let (_elbows, health) = with_health_port(Upstream::nobody());
    for body in ["Content-Length: 34", "Transfer-Encoding: chunked"] {
        let mut client = Client::plain(health);
        let check = "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(format!("GET /ping HTTP/1.1\r\nHost: a\r\n{body}\r\n\r\n{check}{check}"));
        let response = client.read_response();
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        assert_eq!(client.read_to_end().unwrap(), b"");
    }
}

#[test]
fn health_port_has_the_same_limits_of_a_head() {
    let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let settings = [
        ("HEALTH_LISTEN_ON", &*health.to_string()),
        ("MAX_HEADERS", "20"),
        ("MAX_HEADER_SIZE", "8KiB"),
        ("REQUEST_HEAD_TIMEOUT", "300ms"),
    ];
    let elbows = Elbows::start(Upstream::nobody(), &settings);
    for fields in ["A: b\r\n".repeat(20), format!("A: {}\r\n", "x".repeat(9_000))] {
        let mut client = Client::plain(health);
        client.send(format!("GET /ping HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(client.read_response().status, 431);
    }
    elbows.wait_for_report("large_heads=2");
    let mut slow = Client::plain(health);
    assert_eq!(slow.get("/ping").status, 200);
    slow.send("GET /pi");
    assert_eq!(slow.read_response().status, 408);
    elbows.wait_for_report("slow_heads=1");
    let mut idle = Client::plain(health);
    assert_eq!(idle.get("/ping").status, 200);
    assert_eq!(idle.read_to_end().unwrap(), b"");
}

#[test]
fn path_is_a_setting() {
    let upstream = Upstream::answering(TEAPOT);
    let elbows = Elbows::start(upstream.address, &[("HEALTH_PATH", "/alive")]);
    let mut client = Client::behind_balancer(elbows.address);
    assert_eq!(client.get("/alive").status, 200);
    assert_eq!(client.get("/ping").status, 418);
}

byte_by_byte!({
    get_and_head_of_exactly_the_path_are_checks_and_nothing_else_is,
    check_whose_client_sends_nothing_more_is_answered,
    checks_need_no_header_and_are_kept_alive,
    checks_are_not_logged,
    health_port_serves_the_path_alone_and_no_header,
    health_port_takes_what_balancers_send,
    health_port_reads_nothing_behind_a_body,
    health_port_has_the_same_limits_of_a_head,
    path_is_a_setting,
} not {});
