//! What one client, or all together, may have: connections, handshakes, heads, bodies, origins.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use elbows::proxy_protocol::encode;

use test_support::process::open_descriptors;

use crate::client::{Client, PROXY_V1, Response, handshake};
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::upstream::{SWITCHING, Upstream, read_body, try_read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An application that opens a WebSocket for each handshake and answers anything else.
fn application() -> Upstream {
    Upstream::start(|mut socket| {
        let mut seen = String::new();
        while let Some(head) = try_read_head(&mut socket) {
            seen.push_str(&head);
            if head.to_ascii_lowercase().contains("upgrade: websocket") {
                socket.write_all(SWITCHING).unwrap();
                let mut sink = socket.try_clone().unwrap();
                let _ = std::io::copy(&mut socket, &mut sink);
                let _ = sink.shutdown(Shutdown::Both);
                break;
            }
            socket.write_all(OK).unwrap();
        }
        seen
    })
}

/// A connection that the balancer says is from `client`.
fn from(client: &str, elbows: &Elbows) -> Client {
    let source = SocketAddr::new(client.parse().unwrap(), 51234);
    let at = if source.is_ipv6() { "[2001:db8::1]:80" } else { "192.0.2.1:80" };
    let mut connection = Client::plain(elbows.address);
    connection.send(encode::v2(source, at.parse().unwrap(), &[], true));
    connection
}

/// A tunnel from `client`, or the answer that refuses it.
fn tunnel(client: &str, elbows: &Elbows) -> Result<Client, Response> {
    let mut connection = from(client, elbows);
    connection.send(handshake("/ws"));
    let response = connection.read_response();
    if response.status != 101 {
        assert_eq!(response.field("connection"), Some("close"), "{}", response.head);
        assert_eq!(connection.read_to_end().unwrap(), b"");
        return Err(response);
    }
    echoes(&mut connection);
    Ok(connection)
}

fn echoes(client: &mut Client) {
    client.send(b"\x82\x85\0\0\0\0hello");
    assert_eq!(client.read_exact(11), b"\x82\x85\0\0\0\0hello");
}

/// A request on a connection of its own.
fn get(client: &str, target: &str, elbows: &Elbows) -> Response {
    from(client, elbows).get(target)
}

fn is_refused(response: &Response, status: u16, text: &str) {
    assert_eq!(response.status, status, "{}", response.head);
    assert_eq!(response.text(), text);
    let seconds: u64 = response.field("retry-after").expect("when to try again").parse().unwrap();
    assert!((1..=3_600).contains(&seconds), "{seconds}");
}

/// Waits until the connection that asked whether elbows listens has come, been counted and gone.
fn wait_until_empty(elbows: &Elbows) {
    elbows.wait_for_report("probes=1");
    wait_until_counted(elbows, 0);
}

/// Waits until so many connections are counted. The last words of one that ended are a moment late.
fn wait_until_counted(elbows: &Elbows, number: usize) {
    elbows.wait_for_report(&format!("counted={number}"));
}

#[test]
fn one_connection_more_than_allowed_gets_503_until_one_ends() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("MAX_CONNECTIONS", "3")]);
    wait_until_empty(&elbows);
    let mut idle = from("203.0.113.1", &elbows);
    assert_eq!(idle.get("/").status, 200);
    let mut first = tunnel("203.0.113.2", &elbows).unwrap();
    let second = tunnel("203.0.113.3", &elbows).unwrap();
    for client in ["203.0.113.4", "203.0.113.2", "2001:db8::1"] {
        let refused = tunnel(client, &elbows).unwrap_err();
        is_refused(&refused, 503, "no room for another connection\n");
        is_refused(&get(client, "/", &elbows), 503, "no room for another connection\n");
    }
    let line = elbows.access_log.wait_for("client=203.0.113.4:51234");
    assert!(line.contains("request=\"GET /ws HTTP/1.1\" status=503"), "{line}");
    assert!(line.contains("by=elbows during=request why=over_limit"), "{line}");
    elbows.wait_for_report("over_connections=6");
    elbows.wait_for_report("no_room=0");
    echoes(&mut first);
    assert_eq!(idle.get("/").status, 200, "who is in stays in");

    // A tunnel's end makes room, and so does a plain connection's.
    drop(second);
    wait_until_counted(&elbows, 2);
    let _third = tunnel("203.0.113.4", &elbows).unwrap();
    assert_eq!(tunnel("203.0.113.5", &elbows).unwrap_err().status, 503);
    drop(idle);
    wait_until_counted(&elbows, 2);
    let _fourth = tunnel("203.0.113.5", &elbows).unwrap();
}

#[test]
fn connection_counts_from_accept() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("MAX_CONNECTIONS", "1")]);
    wait_until_empty(&elbows);
    let silent = Client::plain(elbows.address);
    wait_until_counted(&elbows, 1);
    assert_eq!(get("203.0.113.1", "/", &elbows).status, 503);
    drop(silent);
    wait_until_counted(&elbows, 0);
    assert_eq!(get("203.0.113.1", "/", &elbows).status, 200);
}

#[test]
fn one_connection_more_of_a_client_gets_429_until_one_of_its_own_ends() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("MAX_CONNECTIONS_PER_CLIENT", "2")]);
    let mut mine = vec![tunnel("203.0.113.1", &elbows).unwrap(), from("203.0.113.1", &elbows)];
    assert_eq!(mine[1].get("/").status, 200);
    is_refused(&tunnel("203.0.113.1", &elbows).unwrap_err(), 429, "too many connections\n");
    is_refused(&get("203.0.113.1", "/", &elbows), 429, "too many connections\n");
    let line = elbows.access_log.wait_for("status=429");
    assert!(line.contains("by=client during=request why=over_limit"), "{line}");
    elbows.wait_for_report("over_connections_per_client=2");

    let another = tunnel("203.0.113.2", &elbows).unwrap();
    drop(another);
    wait_until_counted(&elbows, 2);
    assert_eq!(tunnel("203.0.113.1", &elbows).unwrap_err().status, 429, "not one of its own");
    for _ in 0..3 {
        drop(mine.remove(0));
        wait_until_counted(&elbows, 1);
        mine.push(tunnel("203.0.113.1", &elbows).unwrap());
        assert_eq!(tunnel("203.0.113.1", &elbows).unwrap_err().status, 429);
    }
    mine.clear();
    wait_until_counted(&elbows, 0);
    elbows.wait_for_report("clients_counted=0");
}

#[test]
fn handshake_that_opens_no_tunnel_holds_nothing_after_its_connection() {
    let refusing = Upstream::answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let limits = [("MAX_CONNECTIONS_PER_CLIENT", "1"), ("MAX_CONNECTIONS", "2")];
    let elbows = Elbows::start(refusing.address, &limits);
    for _ in 0..3 {
        let mut client = from("203.0.113.1", &elbows);
        client.send(handshake("/ws"));
        assert_eq!(client.read_response().status, 403);
        drop(client);
        wait_until_counted(&elbows, 0);
    }
    let elbows = Elbows::start(Upstream::nobody(), &limits);
    for _ in 0..3 {
        assert_eq!(tunnel_answer(&elbows), 502);
        wait_until_counted(&elbows, 0);
    }
}

fn tunnel_answer(elbows: &Elbows) -> u16 {
    let mut client = from("203.0.113.1", elbows);
    client.send(handshake("/ws"));
    client.read_response().status
}

#[test]
fn ipv6_is_counted_by_64_and_mapped_ipv4_as_ipv4() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("MAX_CONNECTIONS_PER_CLIENT", "1")]);
    let _one = tunnel("2001:db8:1:2::1", &elbows).unwrap();
    for same in ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff:ffff:ffff:ffff"] {
        assert_eq!(tunnel(same, &elbows).unwrap_err().status, 429, "{same}");
    }
    let _other = tunnel("2001:db8:1:3::1", &elbows).unwrap();
    let _four = tunnel("203.0.113.1", &elbows).unwrap();
    let _next = tunnel("203.0.113.2", &elbows).unwrap();
    assert_eq!(tunnel("::ffff:203.0.113.1", &elbows).unwrap_err().status, 429);
}

#[test]
fn socket_is_the_client_where_no_header_comes() {
    let upstream = application();
    let limit = ("MAX_CONNECTIONS_PER_CLIENT", "1");
    let elbows = Elbows::start(upstream.address, &[limit, ("PROXY_PROTOCOL", "off")]);
    wait_until_counted(&elbows, 0);
    let mut client = Client::plain(elbows.address);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(Client::plain(elbows.address).get("/").status, 429);
    drop(client);
    wait_until_counted(&elbows, 0);
    assert_eq!(Client::plain(elbows.address).get("/").status, 200);
}

#[test]
fn balancer_that_speaks_for_itself_is_no_client() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("MAX_CONNECTIONS_PER_CLIENT", "1")]);
    let mut open = Vec::new();
    for header in [encode::v2_local(), b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
        for _ in 0..2 {
            let mut client = Client::plain(elbows.address);
            client.send(&header);
            assert_eq!(client.get("/ping").status, 200);
            open.push(client);
        }
    }
    elbows.wait_for_report("clients_counted=0");
}

#[test]
fn health_check_is_answered_however_full_it_is() {
    let upstream = application();
    let limits = [("MAX_CONNECTIONS", "1"), ("MAX_CONNECTIONS_PER_CLIENT", "1")];
    let elbows = Elbows::start(upstream.address, &limits);
    wait_until_empty(&elbows);
    let _full = tunnel("203.0.113.1", &elbows).unwrap();
    for target in ["/ping", "/ping?from=balancer"] {
        let mut check = Client::plain(elbows.address);
        let response = check.get(target);
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_eq!(response.field("content-type"), Some("text/plain"));
        assert_eq!(response.field("connection"), Some("close"));
        assert_eq!(check.read_to_end().unwrap(), b"");
    }
    let mut local = Client::plain(elbows.address);
    local.send(encode::v2_local());
    local.send("HEAD /ping HTTP/1.0\r\n\r\n");
    assert_eq!(local.read_head().status, 200);
    assert_eq!(local.read_to_end().unwrap(), b"");
    assert_eq!(get("203.0.113.1", "/ping", &elbows).status, 200);
    for target in ["/pingx", "/ping/", "/PING"] {
        assert_eq!(get("203.0.113.1", target, &elbows).status, 503, "{target}");
    }
    // A connection without a word is a health check too, as was the one that asked whether elbows listens.
    drop(TcpStream::connect(elbows.address).unwrap());
    let mut with_header = TcpStream::connect(elbows.address).unwrap();
    with_header.write_all(&encode::v2_local()).unwrap();
    drop(with_header);
    elbows.wait_for_report("probes=3");
    assert!(elbows.access_log.all().iter().all(|line| !line.contains("/ping ")));
}

#[test]
fn refusal_reaches_whoever_sends_late_much_or_nothing() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("MAX_CONNECTIONS_PER_CLIENT", "1")]);
    let _full = tunnel("203.0.113.1", &elbows).unwrap();
    // In pieces: it is not answered before there is a line.
    let mut late = from("203.0.113.1", &elbows);
    for piece in ["GE", "T /pi", "ng HTTP/1.1", "\r\n\r\n"] {
        late.send(piece);
    }
    assert_eq!(late.read_response().status, 200);
    let mut posted = from("203.0.113.1", &elbows);
    posted.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    let _ = posted.socket.write_all(&vec![b'x'; 300_000]);
    assert_eq!(posted.read_head().status, 429);
    let mut endless = from("203.0.113.1", &elbows);
    endless.send("x".repeat(20_000));
    assert_eq!(endless.read_head().status, 429);
    let mut silent = from("203.0.113.1", &elbows);
    assert_eq!(silent.read_response().status, 429);
    assert_eq!(silent.read_to_end().unwrap(), b"");
    let mut head = from("203.0.113.1", &elbows);
    head.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.read_head().status, 429);
    assert_eq!(head.read_to_end().unwrap(), b"", "a HEAD has no body in its answer");
}

#[test]
fn silent_connection_over_the_limit_is_held_for_two_seconds_at_most() {
    let upstream = application();
    // It has these times only while there is room.
    let times = [("PROXY_HEADER_TIMEOUT", "10s"), ("REQUEST_HEAD_TIMEOUT", "20s")];
    let limit = ("MAX_CONNECTIONS", "1");
    let elbows = Elbows::start(upstream.address, &[times[0], times[1], limit]);
    wait_until_empty(&elbows);
    let _full = tunnel("203.0.113.1", &elbows).unwrap();
    let before = open_descriptors(elbows.pid()).len();
    for (sent, is_answered) in [
        (&b""[..], false),
        (&PROXY_V1[..9], false),
        (PROXY_V1, true),
        (&[PROXY_V1, b"GET /slow HT"].concat()[..], true),
    ] {
        let start = Instant::now();
        let mut silent = Client::plain(elbows.address);
        silent.send(sent);
        let answer = String::from_utf8(silent.read_to_end().unwrap()).unwrap();
        let told = start.elapsed();
        assert!((800..1_700).contains(&told.as_millis()), "{told:?} behind {} bytes", sent.len());
        assert_eq!(answer.starts_with("HTTP/1.1 503 "), is_answered, "{answer:?}");
        assert_eq!(answer.is_empty(), !is_answered, "{answer:?}");
        // It does not close, and yet nothing is held for it.
        wait_until("its descriptor is free", || open_descriptors(elbows.pid()).len() <= before);
        let held = start.elapsed();
        assert!(held < Duration::from_millis(2_700), "{held:?} behind {} bytes", sent.len());
    }
}

#[test]
fn handshakes_over_the_rate_get_429_and_others_go_on() {
    let upstream = application();
    // One an hour: nothing comes back within a test.
    let elbows = Elbows::start(upstream.address, &[("HANDSHAKE_RATE_PER_CLIENT", "1/h burst=3")]);
    let mut open: Vec<_> = (0..3).map(|_| tunnel("203.0.113.1", &elbows).unwrap()).collect();
    for _ in 0..3 {
        let refused = tunnel("203.0.113.1", &elbows).unwrap_err();
        is_refused(&refused, 429, "too many handshakes\n");
        let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    }
    elbows.wait_for_report("over_handshake_rate=3");
    let line = elbows.access_log.wait_for("status=429");
    assert!(line.contains("by=client") && line.contains("why=over_limit"), "{line}");
    open.iter_mut().for_each(echoes);
    assert_eq!(get("203.0.113.1", "/", &elbows).status, 200, "no handshake, no limit");
    assert_eq!(get("203.0.113.1", "/ping", &elbows).status, 200);
    let _other = tunnel("203.0.113.2", &elbows).unwrap();
}

#[test]
fn handshake_whose_head_comes_late_or_second_is_over_the_rate_too() {
    let upstream = application();
    let settings = [("HANDSHAKE_RATE_PER_CLIENT", "1/h"), ("MAX_CONNECTIONS_PER_CLIENT", "10")];
    let elbows = Elbows::start(upstream.address, &settings);
    drop(tunnel("203.0.113.1", &elbows).unwrap());
    elbows.wait_for_report("clients_counted=0");
    // Only the beginning of it is there when its connection is judged.
    let mut late = from("203.0.113.1", &elbows);
    let head = handshake("/ws");
    let (begin, rest) = head.split_at(20);
    late.send(begin);
    elbows.wait_for_report("clients_counted=1");
    late.send(rest);
    let refused = late.read_response();
    is_refused(&refused, 429, "too many handshakes\n");
    elbows.access_log.wait_for("during=handshake why=over_limit");
    let mut second = from("203.0.113.1", &elbows);
    assert_eq!(second.get("/").status, 200);
    second.send(handshake("/ws"));
    assert_eq!(second.read_response().status, 429);
    elbows.wait_for_report("over_handshake_rate=2");
}

#[test]
fn whoever_goes_on_sending_after_a_refusal_is_cut() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("HANDSHAKE_RATE_PER_CLIENT", "1/h")]);
    drop(tunnel("203.0.113.1", &elbows).unwrap());
    let mut refused = from("203.0.113.1", &elbows);
    refused.send(handshake("/ws"));
    assert_eq!(refused.read_response().status, 429);
    let start = Instant::now();
    for sent in 0..100 {
        if refused.try_send(b"x").is_err() {
            assert!(sent >= 4, "it is read on: {sent}");
            // Who is silent is cut after a second.
            assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
            return;
        }
        // Each byte is to be an event of its own.
        thread::sleep(Duration::from_millis(5));
    }
    panic!("it is read on and on");
}

#[test]
fn rate_refills() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("HANDSHAKE_RATE_PER_CLIENT", "1/s")]);
    let _first = tunnel("203.0.113.1", &elbows).unwrap();
    let refused = tunnel("203.0.113.1", &elbows).unwrap_err();
    assert_eq!(refused.field("retry-after"), Some("1"));
    let deadline = Instant::now() + crate::proxy::PATIENCE;
    while tunnel("203.0.113.1", &elbows).is_err() {
        assert!(Instant::now() < deadline, "it does not refill");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn flood_from_many_addresses_takes_bounded_memory_and_leaves_nothing_counted() {
    let upstream = application();
    let limits = [
        ("MAX_CONNECTIONS_PER_CLIENT", "1"),
        ("HANDSHAKE_RATE_PER_CLIENT", "1/h"),
        ("ACCESS_LOG", "off"),
        ("LOG", "info"),
    ];
    let elbows = Elbows::start(upstream.address, &limits);
    let _mine = tunnel("203.0.113.1", &elbows).unwrap();
    let flood = |from_number: u32, to_number: u32| {
        for number in from_number..to_number {
            let [a, b, c, d] = number.to_be_bytes();
            let source = SocketAddr::from(([10 + a, b, c, d], 1));
            let mut socket = TcpStream::connect(elbows.address).unwrap();
            let header = encode::v2(source, "192.0.2.1:80".parse().unwrap(), &[], false);
            // A handshake without a `Host`, so that nothing is asked of the application.
            let request = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            socket.write_all(&[&header, request.as_slice()].concat()).unwrap();
            let _ = socket.read(&mut [0; 500]);
        }
    };
    flood(0, 2_000);
    let before = elbows.memory("VmRSS");
    flood(2_000, 8_000);
    let after = elbows.memory("VmRSS");
    assert!(after < before + 2_048, "{before} kB before, {after} kB after");
    wait_until_counted(&elbows, 1);
    elbows.wait_for_report("clients_counted=1");
    assert_eq!(tunnel("203.0.113.1", &elbows).unwrap_err().status, 429, "still known");
}

#[test]
fn drain_ends_with_refused_connections_about() {
    let upstream = application();
    let mut elbows = Elbows::start(upstream.address, &[("MAX_CONNECTIONS", "1")]);
    wait_until_empty(&elbows);
    let full = from("203.0.113.1", &elbows);
    wait_until_counted(&elbows, 1);
    let _waits = from("203.0.113.1", &elbows);
    elbows.signal(rustix::process::Signal::TERM);
    drop(full);
    assert_eq!(elbows.wait().code(), Some(0));
}

#[test]
fn head_over_its_limits_gets_431() {
    let upstream = application();
    let limits = [("MAX_HEADER_SIZE", "8KiB"), ("MAX_HEADERS", "20")];
    let elbows = Elbows::start(upstream.address, &limits);
    let head = |fields: usize, length: usize| {
        let mut head = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
        head.extend((1..fields).map(|number| format!("X-{number:02}: y\r\n")));
        let padding = length.saturating_sub(head.len() + "Y: \r\n\r\n".len());
        if padding > 0 {
            head.extend(["Y: ", &"z".repeat(padding), "\r\n"]);
        }
        head + "\r\n"
    };
    for (number, (fields, length, status)) in
        [(20, 0, 200), (21, 0, 431), (2, 8_000, 200), (2, 9_000, 431), (2, 100_000, 431)]
            .into_iter()
            .enumerate()
    {
        let mut client = from("203.0.113.1", &elbows);
        let _ = client.socket.write_all(head(fields, length).as_bytes());
        assert_eq!(client.read_head().status, status, "{number}: {fields} fields, {length} bytes");
    }
    elbows.wait_for_report("large_heads=3");
    let line = elbows.access_log.wait_for("status=431");
    assert!(line.contains("by=client during=request why=too_big"), "{line}");

    let limits = [("MAX_HEADER_SIZE", "256KiB"), ("MAX_HEADERS", "300")];
    let elbows = Elbows::start(upstream.address, &limits);
    for (fields, length, status) in [(300, 0, 200), (301, 0, 431), (2, 200_000, 200)] {
        let mut client = from("203.0.113.1", &elbows);
        let _ = client.socket.write_all(head(fields, length).as_bytes());
        assert_eq!(client.read_head().status, status, "{fields} fields, {length} bytes");
    }
}

/// An application that reads a whole body before it answers.
fn taking() -> Upstream {
    Upstream::start(|mut socket| {
        // Of a body that is too long at once, not even the head may have gone out.
        let Some(head) = try_read_head(&mut socket) else { return String::from("cut") };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (body, _) = read_body(&mut socket, &head);
            socket.write_all(OK).unwrap();
            body.len()
        }));
        caught.map_or_else(|_| String::from("cut"), |length| length.to_string())
    })
}

#[test]
fn body_that_says_it_is_too_long_gets_413_at_once() {
    let upstream = taking();
    let elbows = Elbows::start(upstream.address, &[("MAX_BODY_SIZE", "1000")]);
    for extra in ["", "Expect: 100-continue\r\n"] {
        let mut client = from("203.0.113.1", &elbows);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: 1001\r\n\r\n"));
        let response = client.read_response();
        assert_eq!((response.status, response.text().as_str()), (413, "request body too long\n"));
        assert_eq!(response.field("connection"), Some("close"));
    }
    let line = elbows.access_log.wait_for("status=413");
    assert!(
        line.contains("from_client=0 ") && line.contains("by=client during=request why=too_big")
    );
    elbows.wait_for_report("large_bodies=2");
    assert!(upstream.saw_nothing());
    let mut client = from("203.0.113.1", &elbows);
    let whole = "x".repeat(1000);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{whole}"));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.seen(), "1000");
}

#[test]
fn chunked_body_gets_413_when_it_has_come_too_far() {
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    for (chunks, more, status) in [(2, "0\r\n\r\n", 200), (2, "1\r\nx\r\n", 413), (9, "", 413)] {
        // Of its own, so that no request is sent on a connection that has just been closed.
        let upstream = taking();
        let elbows = Elbows::start(upstream.address, &[("MAX_BODY_SIZE", "1000")]);
        let mut client = from("203.0.113.1", &elbows);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..chunks {
            let _ = client.socket.write_all(chunk.as_bytes());
        }
        let _ = client.socket.write_all(more.as_bytes());
        let response = client.read_response();
        assert_eq!(response.status, status, "{chunks} {}", response.head);
        elbows.wait_for_report(if status == 200 { "large_bodies=0" } else { "large_bodies=1" });
        let line = elbows.access_log.wait_for(&format!("status={status}"));
        let end = "by=client during=request why=too_big";
        assert_eq!(line.contains(end), status == 413, "{line}");
        // Of a body that is too long at once the upstream hears nothing.
        if !line.contains("upstream=- ") {
            assert_eq!(upstream.seen(), if status == 200 { "1000" } else { "cut" });
        }
    }
}

#[test]
fn tunnel_is_no_body() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[("MAX_BODY_SIZE", "10")]);
    let mut open = tunnel("203.0.113.1", &elbows).unwrap();
    (0..10).for_each(|_| echoes(&mut open));
}

/// A handshake with these fields; its status.
fn handshake_with(fields: &str, elbows: &Elbows) -> u16 {
    let mut client = from("203.0.113.1", elbows);
    client.send(handshake("/ws").replace("Host:", &format!("{fields}Host:")));
    client.read_response().status
}

#[test]
fn page_that_is_not_listed_opens_no_websocket() {
    let upstream = application();
    let listed = "https://app.example.com,https://*.shop.example,http://localhost:3000";
    let elbows = Elbows::start(upstream.address, &[("ALLOWED_ORIGINS", listed)]);
    for origin in [
        "https://app.example.com",
        "HTTPS://APP.example.COM:443",
        "https://eu.shop.example",
        "https://a.b.shop.example",
        "http://localhost:3000",
    ] {
        assert_eq!(handshake_with(&format!("Origin: {origin}\r\n"), &elbows), 101, "{origin}");
        upstream.seen();
    }
    assert_eq!(handshake_with("", &elbows), 101, "no browser");
    upstream.seen();
    let mut refused = 0;
    for fields in [
        "Origin: https://evil.example\r\n",
        "Origin: http://app.example.com\r\n",
        "Origin: https://app.example.com:8443\r\n",
        "Origin: https://shop.example\r\n",
        "Origin: https://app.example.com.evil.example\r\n",
        "Origin: null\r\n",
        "Origin:\r\n",
        "Origin: https://app.example.com https://evil.example\r\n",
        "Origin: https://app.example.com\r\nOrigin: https://app.example.com\r\n",
        "origin: https://evil.example\r\n",
        "Connection: Origin\r\nOrigin: https://evil.example\r\n",
    ] {
        assert_eq!(handshake_with(fields, &elbows), 403, "{fields}");
        refused += 1;
    }
    elbows.wait_for_report(&format!("refused_origins={refused}"));
    let line = elbows.access_log.wait_for("status=403");
    assert!(line.contains("by=client during=handshake why=refused"), "{line}");
    assert!(upstream.saw_nothing());
    // Other requests are the application's to judge.
    let mut client = from("203.0.113.1", &elbows);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
}

#[test]
fn refused_handshakes_do_not_wake_control() {
    const MANY: u64 = 100;
    const EVIL: &str = "Origin: https://evil.example\r\n";
    let upstream = application();
    let origins = ("ALLOWED_ORIGINS", "https://app.example");
    // No address of it is ever at hand.
    let nowhere = ("DESTINATION_HOSTNAME", "nowhere.invalid");
    for (settings, fields, status) in [
        (&[("MAX_CONNECTIONS", "1")][..], "", 503),
        (&[("MAX_CONNECTIONS_PER_CLIENT", "1")], "", 429),
        (&[("HANDSHAKE_RATE_PER_CLIENT", "1/h burst=1")], "", 429),
        (&[origins], EVIL, 403),
        (&[origins, nowhere], EVIL, 403),
    ] {
        let elbows = Elbows::start(upstream.address, settings);
        elbows.wait_for_report("probes=1");
        let is_somewhere = !settings.contains(&nowhere);
        let _open = is_somewhere.then(|| tunnel("203.0.113.1", &elbows).unwrap());
        let before = wakes_of_control(&elbows);
        for _ in 0..MANY {
            assert_eq!(handshake_with(fields, &elbows), status, "{settings:?}");
        }
        let wakes = wakes_of_control(&elbows) - before;
        assert!(wakes < MANY / 4, "{settings:?}: {wakes}");
    }
}

/// How often the thread that the process began with, which is control's, has waited for something (proc(5)).
fn wakes_of_control(elbows: &Elbows) -> u64 {
    let pid = elbows.pid().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status")).unwrap();
    let (_, number) = status.split_once("\nvoluntary_ctxt_switches:").unwrap();
    number.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn missing_origin_is_refused_on_request() {
    let upstream = application();
    let settings = [("ALLOWED_ORIGINS", "*.example.com"), ("MISSING_ORIGIN", "refuse")];
    let elbows = Elbows::start(upstream.address, &settings);
    assert_eq!(handshake_with("", &elbows), 403);
    assert_eq!(handshake_with("Origin: https://a.example.com\r\n", &elbows), 101);
    elbows.wait_for_report("refused_origins=1");
}

#[test]
fn every_origin_passes_by_itself() {
    let upstream = application();
    let elbows = Elbows::start(upstream.address, &[]);
    for fields in ["", "Origin: https://evil.example\r\n", "Origin: null\r\n", "Origin: x y\r\n"] {
        assert_eq!(handshake_with(fields, &elbows), 101, "{fields}");
    }
}

byte_by_byte!({
    one_connection_more_than_allowed_gets_503_until_one_ends,
    connection_counts_from_accept,
    one_connection_more_of_a_client_gets_429_until_one_of_its_own_ends,
    handshake_that_opens_no_tunnel_holds_nothing_after_its_connection,
    ipv6_is_counted_by_64_and_mapped_ipv4_as_ipv4,
    socket_is_the_client_where_no_header_comes,
    balancer_that_speaks_for_itself_is_no_client,
    health_check_is_answered_however_full_it_is,
    refusal_reaches_whoever_sends_late_much_or_nothing,
    silent_connection_over_the_limit_is_held_for_two_seconds_at_most,
    handshakes_over_the_rate_get_429_and_others_go_on,
    handshake_whose_head_comes_late_or_second_is_over_the_rate_too,
    rate_refills,
    drain_ends_with_refused_connections_about,
    head_over_its_limits_gets_431,
    body_that_says_it_is_too_long_gets_413_at_once,
    chunked_body_gets_413_when_it_has_come_too_far,
    tunnel_is_no_body,
    page_that_is_not_listed_opens_no_websocket,
    missing_origin_is_refused_on_request,
    every_origin_passes_by_itself,
} not {
    flood_from_many_addresses_takes_bounded_memory_and_leaves_nothing_counted: "it is about a flood",
    whoever_goes_on_sending_after_a_refusal_is_cut: "it sends byte by byte itself, at its own pace",
    refused_handshakes_do_not_wake_control: "it counts what handshakes in one piece cost",
});
