//! Upstreams that refuse, hang, break off or answer nonsense; and clients that leave in the middle.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::client::{Client, Response, handshake};
use crate::proxy::Elbows;
use crate::upstream::{Upstream, read_body, read_head, try_read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Our own answer: the status, one line of text, nothing of what is behind elbows.
fn is_ours(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.field("content-type"), Some("text/plain"));
    let text = response.text();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    for secret in ["127.0.0.1", "localhost", "invalid", "os error", "::1"] {
        assert!(!text.contains(secret) && !response.head.contains(secret), "{response:?}");
    }
}

/// The answer to a request whose upstream sends `bytes` and closes.
fn answer_to(bytes: &'static [u8]) -> (Response, String) {
    let upstream = Upstream::start(move |mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(bytes).unwrap();
        head
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let response = Client::behind_balancer(elbows.address).get("/x");
    (response, elbows.access_log.wait_for("/x"))
}

#[test]
fn upstream_that_refuses_is_502_plain_and_handshake() {
    let elbows = Elbows::start(Upstream::nobody(), &[]);
    let mut client = Client::behind_balancer(elbows.address);
    is_ours(&client.get("/a"), 502);
    // The connection stays: nothing is wrong with the client.
    is_ours(&client.get("/b"), 502);
    client.send(handshake("/ws"));
    is_ours(&client.read_response(), 502);
    for path in ["/a", "/b"] {
        let line = elbows.access_log.wait_for(path);
        assert!(line.contains("by=upstream during=request why=unreachable"), "{line}");
        assert!(!line.contains("upstream=-"), "it says where nobody was: {line}");
    }
    let line = elbows.access_log.wait_for("/ws");
    assert!(line.contains("by=upstream during=handshake why=unreachable"), "{line}");
}

#[test]
fn upload_whose_upstream_goes_away_leaves_nothing_behind() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        // It closes with much unread: a reset.
        let _ = socket.read(&mut [0; 10_000]);
        head
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let body = vec![b'x'; 500_000];
    for _ in 0..40 {
        let mut client = Client::behind_balancer(elbows.address);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
        // It may be refused in the middle.
        let _ = client.socket.write_all(&body);
    }
    elbows.wait_for_report("open=0");
}

#[test]
fn name_that_does_not_resolve_is_a_warning_and_502() {
    let elbows =
        Elbows::start(Upstream::nobody(), &[("DESTINATION_HOSTNAME", "does-not-exist.invalid")]);
    elbows.log.wait_for("does-not-exist.invalid does not resolve");
    let mut client = Client::behind_balancer(elbows.address);
    is_ours(&client.get("/a"), 502);
    let line = elbows.access_log.wait_for("/a");
    assert!(line.contains("by=upstream during=request why=unresolved"), "{line}");
    assert_eq!(Client::plain(elbows.address).get("/ping").status, 200);
}

#[test]
fn silent_upstream_is_504() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        // Until elbows gives up; then the connection is of no use and closed.
        let end = socket.read(&mut [0; 1]);
        format!("{head}{end:?}")
    });
    let elbows = Elbows::start(upstream.address, &[("RESPONSE_HEAD_TIMEOUT", "200ms")]);
    for request in [String::from("GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), handshake("/x")] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(request);
        is_ours(&client.read_response(), 504);
        let seen = upstream.seen();
        assert!(seen.ends_with("Ok(0)"), "{seen}");
    }
    elbows.access_log.wait_for("by=upstream during=request why=timeout");
    elbows.access_log.wait_for("by=upstream during=handshake why=timeout");
}

#[test]
fn time_for_a_response_head_begins_with_the_last_byte_of_the_request() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        let (body, _) = read_body(&mut socket, &head);
        socket.write_all(OK).unwrap();
        String::from_utf8(body).unwrap()
    });
    let elbows = Elbows::start(upstream.address, &[("RESPONSE_HEAD_TIMEOUT", "3s")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    for byte in ["h", "e", "l", "l", "o"] {
        // The upload as a whole takes longer than the limit; no pause in it does.
        thread::sleep(Duration::from_secs(1));
        client.send(byte);
    }
    assert_eq!(client.read_response().status, 200);
    assert_eq!(upstream.seen(), "hello");
}

#[test]
fn upstream_whose_backlog_is_full_is_504() {
    // Nobody accepts, and the queue of one is full: further SYNs are dropped.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _first = std::net::TcpStream::connect(address).unwrap();
    let elbows = Elbows::start(address, &[("CONNECT_TIMEOUT", "300ms")]);
    let mut client = Client::behind_balancer(elbows.address);
    is_ours(&client.get("/x"), 504);
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("by=upstream during=request why=timeout"), "{line}");
}

#[test]
fn upstream_that_closes_without_answer_is_502_and_not_asked_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let upstream = Upstream::start(move |mut socket| {
        counted.fetch_add(1, Ordering::SeqCst);
        read_head(&mut socket)
    });
    let elbows = Elbows::start(upstream.address, &[]);
    is_ours(&Client::behind_balancer(elbows.address).get("/x"), 502);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("by=upstream during=request why=closed"), "{line}");
}

#[test]
fn malformed_response_is_502() {
    for bytes in [
        b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(),
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let (response, line) = answer_to(bytes);
        is_ours(&response, 502);
        assert!(line.contains("status=502 "), "{line}");
        assert!(line.contains("by=upstream during=request why=malformed"), "{line}");
    }
}

#[test]
fn broken_rule_of_a_response_is_counted_by_its_name() {
    let asked = ["GET /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), handshake("/x")];
    for (bytes, rule) in [
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n".as_slice(), "field_name:1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\na", "length:1"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
            "several_lengths:1",
        ),
        (b"HTTP/1.1 101 Hm\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n", "unasked_upgrade:1"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk_size:1"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", "chunk_end:1"),
        // One that is cut breaks no rule, and one that is good neither.
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", "0"),
        (OK, "0"),
    ] {
        for request in &asked {
            let upstream = Upstream::start(move |mut socket| {
                let head = read_head(&mut socket);
                socket.write_all(bytes).unwrap();
                head
            });
            let elbows = Elbows::start(upstream.address, &[]);
            let mut client = Client::behind_balancer(elbows.address);
            client.send(request);
            let line = elbows.access_log.wait_for("/x");
            elbows.wait_for_report(&format!("response_faults={rule}"));
            assert_eq!(line.contains("why=malformed"), rule != "0", "{line}");
        }
    }
}

#[test]
fn head_that_breaks_off_is_502() {
    let (response, line) = answer_to(b"HTTP/1.1 200 OK\r\nContent-Le");
    is_ours(&response, 502);
    assert!(line.contains("by=upstream during=request why=closed"), "{line}");
}

#[test]
fn response_head_without_end_is_502() {
    let upstream = Upstream::start(|mut socket| {
        read_head(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while socket.write_all(&[b'x'; 4096]).is_ok() {}
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &[]);
    is_ours(&Client::behind_balancer(elbows.address).get("/x"), 502);
    upstream.seen();
}

#[test]
fn upgrade_that_nobody_asked_for_is_502() {
    let (response, line) = answer_to(crate::upstream::SWITCHING);
    is_ours(&response, 502);
    assert!(line.contains("by=upstream during=request why=malformed"), "{line}");
}

#[test]
fn body_that_breaks_off_is_never_complete() {
    for bytes in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let upstream = Upstream::start(move |mut socket| {
            read_head(&mut socket);
            socket.write_all(bytes).unwrap();
            String::new()
        });
        let elbows = Elbows::start(upstream.address, &[]);
        let mut client = Client::behind_balancer(elbows.address);
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        // Where all of it came at once, the connection may end before the head goes out.
        let answer = client.read_to_end().expect("an end");
        let answer = String::from_utf8(answer).unwrap();
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer:?} for {bytes:?}");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!answer.to_lowercase().contains("content-length") || body.len() < 10, "{answer}");
        let line = elbows.access_log.wait_for("/x");
        let why = if bytes.ends_with(b"zz\r\n") { "malformed" } else { "closed" };
        assert!(line.contains(&format!("by=upstream during=response why={why}")), "{line}");
    }
}

#[test]
fn slow_client_body_is_408() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        format!("{head}{}", rest.len())
    });
    let elbows = Elbows::start(upstream.address, &[("RESPONSE_HEAD_TIMEOUT", "2s")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let response = client.read_response();
    assert_eq!(response.status, 408);
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(client.read_to_end().unwrap(), b"");
    assert!(upstream.seen().ends_with("\r\n\r\n5"));
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("from_client=5 "), "{line}");
    assert!(line.contains("by=client during=request why=timeout"), "{line}");
}

#[test]
fn client_that_leaves_takes_its_upstream_connection_along() {
    let (sender, arrived) = channel();
    let upstream = Upstream::start(move |mut socket| {
        let head = read_head(&mut socket);
        sender.send(()).unwrap();
        let mut rest = Vec::new();
        let end = socket.read_to_end(&mut rest).map_err(|error| error.kind());
        format!("{head}{end:?}")
    });
    let elbows = Elbows::start(upstream.address, &[]);
    for request in [
        "GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /sending HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(request);
        arrived.recv_timeout(crate::proxy::PATIENCE).unwrap();
        drop(client);
        let seen = upstream.seen();
        let path = request.split(' ').nth(1).unwrap();
        assert!(!seen.ends_with("WouldBlock)"), "{path} was not closed: {seen}");
        let line = elbows.access_log.wait_for(path);
        assert!(line.contains("by=client during=request why=closed"), "{line}");
    }
}

#[test]
fn client_that_leaves_in_a_response_takes_its_upstream_connection_along() {
    let upstream = Upstream::start(move |mut socket| {
        read_head(&mut socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").unwrap();
        format!("{:?}", socket.read(&mut [0; 1]).map_err(|error| error.kind()))
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_until(b"hello");
    drop(client);
    let seen = upstream.seen();
    assert!(seen == "Ok(0)" || seen.contains("Reset"), "{seen}");
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("from_upstream=5 "), "{line}");
    assert!(line.contains("by=client during=response why=closed"), "{line}");
}

#[test]
fn get_survives_an_upstream_that_closed_an_idle_connection() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(OK).unwrap();
        head
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    for _ in 0..50 {
        assert_eq!(client.get("/x").status, 200);
    }
}

/// An upstream that answers the first request of each connection and closes without a word when
/// the second arrives: what a request meets that crosses the upstream's close on its way.
fn upstream_that_lets_go() -> (Upstream, Arc<AtomicUsize>) {
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    let upstream = Upstream::start(move |mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(OK).unwrap();
        if try_read_head(&mut socket).is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        head
    });
    (upstream, lost)
}

/// The answer to a second request that meets the connection of the first, of which the upstream lets go.
///
/// That the first response is there and logged does not say that its connection is back in the pool:
/// where it is not, the second request gets a new one, and all begins again.
fn on_a_stale_connection(second: &str, read: fn(&mut Client) -> Response) -> (Response, Upstream) {
    for _ in 0..100 {
        let (upstream, lost) = upstream_that_lets_go();
        let elbows = Elbows::start(upstream.address, &[]);
        let mut client = Client::behind_balancer(elbows.address);
        assert_eq!(client.get("/first").status, 200);
        assert!(elbows.access_log.wait_for("/first").contains("why=complete"));
        client.send(second);
        let response = read(&mut client);
        match lost.load(Ordering::SeqCst) {
            0 => assert_eq!(response.status, 200),
            1 => return (response, upstream),
            lost => panic!("sent {lost} times on stale connections"),
        }
    }
    panic!("no connection was kept");
}

#[test]
fn safe_request_that_meets_a_stale_connection_is_sent_again() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let request =
            format!("{method} /second HTTP/1.1\r\nHost: a\r\nx-ODD: 1\r\nx-ODD: 2\r\n\r\n");
        let (response, upstream) = on_a_stale_connection(&request, Client::read_head);
        assert_eq!(response.status, 200, "{method}");
        // Each connection tells what it saw when it is over.
        let mut seen = [upstream.seen(), upstream.seen()];
        seen.sort_by_key(|head| !head.contains(" /first "));
        let [first, again] = seen;
        assert!(first.starts_with("GET /first "), "{first}");
        assert!(again.starts_with(&format!("{method} /second HTTP/1.1\r\n")), "{again}");
        assert!(again.contains("\r\nx-ODD: 1\r\nx-ODD: 2\r\n"), "{again}");
        assert!(again.contains("\r\nx-forwarded-for: "), "{again}");
        assert!(again.ends_with("\r\n\r\n"), "{again}");
    }
}

#[test]
fn request_is_sent_again_on_a_fresh_connection_though_others_wait_in_the_pool() {
    const PARALLEL: usize = 10;
    let all_there = Arc::new(Barrier::new(PARALLEL));
    let upstream = Upstream::start(move |mut socket| {
        let head = read_head(&mut socket);
        if head.contains("/together") {
            all_there.wait();
        }
        socket.write_all(OK).unwrap();
        // The second is read and gets no byte.
        try_read_head(&mut socket).unwrap_or_default()
    });
    let elbows = Elbows::start(upstream.address, &[]);
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                let mut client = Client::behind_balancer(elbows.address);
                assert_eq!(client.get("/together").status, 200);
            });
        }
    });
    let mut client = Client::behind_balancer(elbows.address);
    for number in 0..6 {
        assert_eq!(client.get("/alone").status, 200, "{number}");
        assert!(upstream.seen().starts_with("GET /alone "), "it came on a kept connection first");
    }
}

#[test]
fn post_that_meets_a_stale_connection_is_never_sent_twice() {
    for body in ["Content-Length: 0\r\n\r\n", "Content-Length: 5\r\n\r\nhello"] {
        let request = format!("POST /second HTTP/1.1\r\nHost: a\r\n{body}");
        let (response, upstream) = on_a_stale_connection(&request, Client::read_response);
        is_ours(&response, 502);
        assert!(upstream.seen().starts_with("GET /first "));
        assert!(upstream.saw_nothing(), "it was sent again");
    }
}

#[test]
fn one_failing_request_does_not_touch_another() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        if head.contains("/bad") {
            socket.write_all(b"nonsense\r\n\r\n").unwrap();
        } else {
            socket.write_all(OK).unwrap();
        }
        head
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let mut good = Client::behind_balancer(elbows.address);
    let mut bad = Client::behind_balancer(elbows.address);
    for _ in 0..20 {
        is_ours(&bad.get("/bad"), 502);
        assert_eq!(good.get("/good").status, 200);
    }
}

byte_by_byte!({
    upstream_that_refuses_is_502_plain_and_handshake,
    upload_whose_upstream_goes_away_leaves_nothing_behind,
    name_that_does_not_resolve_is_a_warning_and_502,
    silent_upstream_is_504,
    time_for_a_response_head_begins_with_the_last_byte_of_the_request,
    upstream_whose_backlog_is_full_is_504,
    upstream_that_closes_without_answer_is_502_and_not_asked_again,
    malformed_response_is_502,
    broken_rule_of_a_response_is_counted_by_its_name,
    head_that_breaks_off_is_502,
    response_head_without_end_is_502,
    upgrade_that_nobody_asked_for_is_502,
    body_that_breaks_off_is_never_complete,
    slow_client_body_is_408,
    client_that_leaves_takes_its_upstream_connection_along,
    client_that_leaves_in_a_response_takes_its_upstream_connection_along,
    get_survives_an_upstream_that_closed_an_idle_connection,
    request_is_sent_again_on_a_fresh_connection_though_others_wait_in_the_pool,
    post_that_meets_a_stale_connection_is_never_sent_twice,
    one_failing_request_does_not_touch_another,
} not {
    safe_request_that_meets_a_stale_connection_is_sent_again: "its upstream answers HEAD with a body as well, and is let go before it has sent that",
});
