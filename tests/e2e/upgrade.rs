//! Upgrades and the tunnels that they open: any protocol, no byte lost, each side's end reaching the
//! other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use socket2::SockRef;
use test_support::process::memory;

use crate::client::{Client, PROXY_V1, field, handshake};
use crate::pieces::Socket;
use crate::proxy::{Elbows, PATIENCE};
use crate::upstream::{SWITCHING, Upstream, handed_over, read_head};

/// How many bytes come early: none, few, around the buffers' sizes, many.
const SIZES: [usize; 8] = [0, 1, 125, 4_096, 8_192, 16_384, 65_536, 100_000];

/// Bytes that no other place of the stream has in this order.
fn bytes(length: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes())
        .take(length)
        .collect()
}

/// An open tunnel: the client's end and the application's.
fn tunnel(elbows: &Elbows, sockets: &Receiver<(Socket, String)>) -> (Client, Socket) {
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws"));
    let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
    upstream.write_all(SWITCHING).unwrap();
    assert_eq!(client.read_head().status, 101);
    (client, upstream)
}

fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

fn read_to_end(mut socket: &TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).map(|_| all)
}

/// Half of the resident memory is pages of the binary; what grows is what counts.
fn resident(elbows: &Elbows) -> u64 {
    memory(elbows.pid(), "VmRSS")
}

#[test]
fn any_protocol_is_carried() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    for (offer, chosen) in [
        ("foo", "foo"),
        ("foo/2.1", "foo/2.1"),
        ("WebSocket", "websocket"),
        ("foo, bar", "bar"),
        ("SPDY/3.1", "SPDY/3.1"),
    ] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(format!(
            "GET /up HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, upgrade\r\nUpgrade: {offer}\r\n\r\n"
        ));
        let (mut upstream, head) = sockets.recv_timeout(PATIENCE).unwrap();
        assert_eq!(field(&head, "upgrade"), Some(offer), "{head}");
        assert!(field(&head, "connection").unwrap().eq_ignore_ascii_case("upgrade"), "{head}");
        write!(
            upstream,
            "HTTP/1.1 101 Over\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\nX-More: 1\r\n\r\n"
        )
        .unwrap();
        let response = client.read_head();
        assert_eq!(response.status, 101);
        assert_eq!(response.field("upgrade"), Some(chosen));
        assert_eq!(response.field("x-more"), Some("1"));
        assert!(response.field("connection").unwrap().eq_ignore_ascii_case("upgrade"));
        assert_eq!(response.field("transfer-encoding"), None);
        assert_eq!(response.field("content-length"), None);
        // A frame, where it is a WebSocket; bytes everywhere else.
        let sent = b"\x82\x80\0\xff\r\n";
        client.send(sent);
        let mut came = [0; 6];
        upstream.read_exact(&mut came).unwrap();
        assert_eq!(&came, sent);
        upstream.write_all(b"back").unwrap();
        assert_eq!(client.read_exact(4), b"back");
    }
}

#[test]
fn bytes_behind_the_request_head_arrive_first() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    for size in SIZES {
        let early = bytes(size);
        let glued = [PROXY_V1, handshake("/ws").as_bytes(), &early].concat();
        let mut client = Client::plain(elbows.address);
        client.send(glued);
        let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
        upstream.write_all(SWITCHING).unwrap();
        assert_eq!(client.read_head().status, 101);
        client.send(b"late");
        client.finish();
        let arrived = read_to_end(&upstream).unwrap();
        assert!(arrived == [&early, b"late".as_slice()].concat(), "{size}: {}", arrived.len());
    }
}

#[test]
fn bytes_behind_the_101_arrive_first() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    for size in SIZES {
        let early = bytes(size);
        let mut client = Client::behind_balancer(elbows.address);
        client.send(handshake("/ws"));
        let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
        upstream.write_all(&[SWITCHING, &early].concat()).unwrap();
        assert_eq!(client.read_head().status, 101);
        upstream.write_all(b"late").unwrap();
        upstream.shutdown(Shutdown::Write).unwrap();
        let arrived = client.read_to_end().unwrap();
        assert!(arrived == [&early, b"late".as_slice()].concat(), "{size}: {}", arrived.len());
    }
}

#[test]
fn early_bytes_of_both_sides_arrive_complete() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    let early = bytes(100_000);
    let mut client = Client::plain(elbows.address);
    client.send([PROXY_V1, handshake("/ws").as_bytes(), &early].concat());
    let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
    upstream.write_all(&[SWITCHING, &early].concat()).unwrap();
    assert_eq!(client.read_head().status, 101);
    assert!(client.read_exact(early.len()) == early);
    let mut arrived = vec![0; early.len()];
    upstream.read_exact(&mut arrived).unwrap();
    assert!(arrived == early);
    client.finish();
    upstream.shutdown(Shutdown::Write).unwrap();
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("from_client=100000 from_upstream=100000"), "{line}");
}

#[test]
fn upstream_that_leaves_right_behind_the_101_is_heard_out() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(&[SWITCHING, b"goodbye"].concat()).unwrap();
        head
    });
    let elbows = Elbows::start(upstream.address, &[]);
    for _ in 0..20 {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(handshake("/ws"));
        assert_eq!(client.read_head().status, 101);
        assert_eq!(client.read_to_end().unwrap(), b"goodbye");
    }
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("from_upstream=7"), "{line}");
    assert!(line.contains("by=upstream during=relay why=closed"), "{line}");
}

#[test]
fn answer_other_than_101_goes_back_as_it_is_and_the_connection_lives_on() {
    let answers = [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nX-Why: no\r\n\r\nno!\n",
        "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: foo/2\r\n\
         Content-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
    ];
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    for answer in answers {
        client.send(handshake("/ws"));
        let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
        upstream.write_all(answer.as_bytes()).unwrap();
        let response = client.read_response();
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", response.status)), "{answer}");
        match response.status {
            403 => {
                assert_eq!(response.text(), "no!\n");
                assert_eq!(response.field("x-why"), Some("no"));
            }
            426 => {
                assert_eq!(response.field("upgrade"), Some("foo/2"));
                let connection = response.field("connection").unwrap();
                assert!(connection.eq_ignore_ascii_case("upgrade"), "{connection}");
            }
            200 => assert_eq!(response.text(), "abcdef"),
            _ => assert_eq!(response.field("location"), Some("/login")),
        }
    }
    // The same connection still opens a tunnel.
    client.send(handshake("/ws"));
    let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
    upstream.write_all(SWITCHING).unwrap();
    assert_eq!(client.read_head().status, 101);
    elbows.access_log.wait_until("4 lines", |lines| (lines.len() == 4).then_some(()));
}

#[test]
fn protocol_that_was_not_offered_is_502() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    for fields in ["Upgrade: bar\r\nConnection: Upgrade\r\n", "Connection: Upgrade\r\n", ""] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(handshake("/ws"));
        let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
        write!(upstream, "HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").unwrap();
        let response = client.read_response();
        assert_eq!(response.status, 502, "{fields}");
        // And the connection that speaks it is closed.
        assert_eq!(read_to_end(&upstream).unwrap(), b"");
    }
    elbows.access_log.wait_for("status=502");
    elbows.wait_for_report("tunnels=0");
}

#[test]
fn h2c_is_never_offered_to_the_upstream() {
    let upstream = Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let elbows = Elbows::start(upstream.address, &[]);
    for offer in ["h2c", "H2C", "websocket, h2c", "h2c, websocket", "foo,h2c ,bar"] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: {offer}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        ));
        assert_eq!(client.read_response().status, 200, "{offer}");
        let head = upstream.seen().to_ascii_lowercase();
        assert!(!head.contains("h2c") && !head.contains("http2-settings"), "{offer}: {head}");
        let rest = match offer {
            "websocket, h2c" | "h2c, websocket" => Some("websocket"),
            "foo,h2c ,bar" => Some("foo, bar"),
            _ => None,
        };
        assert_eq!(field(&head, "upgrade"), rest, "{offer}: {head}");
    }
}

#[test]
fn upgrade_of_http_1_0_is_ignored() {
    let upstream = Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws").replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(field(&upstream.seen(), "upgrade"), None);
}

#[test]
fn upgrade_that_connection_does_not_list_is_ignored() {
    let upstream = Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    assert_eq!(field(&upstream.seen(), "upgrade"), None);
}

#[test]
fn each_side_may_finish_first_and_still_hear_the_other() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);

    let (mut client, mut upstream) = tunnel(&elbows, &sockets);
    client.send(b"last of client");
    client.finish();
    assert_eq!(read_to_end(&upstream).unwrap(), b"last of client");
    upstream.write_all(b"and the answer").unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"and the answer");
    let line = elbows.access_log.wait_for("from_client=14 from_upstream=14");
    assert!(line.contains("by=client during=relay why=closed"), "{line}");

    let (mut client, mut upstream) = tunnel(&elbows, &sockets);
    upstream.write_all(b"last of upstream").unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"last of upstream");
    client.send(b"and the answer..");
    client.finish();
    assert_eq!(read_to_end(&upstream).unwrap(), b"and the answer..");
    let line = elbows.access_log.wait_for("from_client=16 from_upstream=16");
    assert!(line.contains("by=upstream during=relay why=closed"), "{line}");
}

#[test]
fn reset_reaches_the_other_side() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    let is_reset = |ended: io::Result<Vec<u8>>| {
        ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    };

    let (client, upstream) = tunnel(&elbows, &sockets);
    reset(client.socket);
    assert!(is_reset(read_to_end(&upstream)));
    elbows.access_log.wait_for("by=client during=relay why=reset");

    let (mut client, upstream) = tunnel(&elbows, &sockets);
    reset(upstream.into_stream());
    assert!(is_reset(client.read_to_end()));
    elbows.access_log.wait_for("by=upstream during=relay why=reset");
}

#[test]
fn slow_reader_slows_the_sender_and_costs_no_memory() {
    /// What the kernel's buffers of four sockets may take, generously; more was swallowed by elbows.
    const MOST: usize = 64 * 1024 * 1024;
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    for from_client in [true, false] {
        let (client, upstream) = tunnel(&elbows, &sockets);
        let before = resident(&elbows);
        let (source, sink) =
            if from_client { (&client.socket, &*upstream) } else { (&*upstream, &client.socket) };
        source.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let block = bytes(64 * 1024);
        let mut sent = 0;
        let mut out = source;
        loop {
            match out.write(&block[sent % block.len()..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
            assert!(sent < MOST, "nothing slows the sender");
        }
        let grown = resident(&elbows).saturating_sub(before);
        assert!(grown < 1024 * 1024, "{grown} bytes for {sent}");
        source.shutdown(Shutdown::Write).unwrap();
        let arrived = read_to_end(sink).unwrap();
        assert_eq!(arrived.len(), sent);
        assert!(arrived.chunks(block.len()).all(|chunk| chunk == &block[..chunk.len()]));
    }
}

#[test]
fn client_that_leaves_during_the_handshake_is_logged_and_the_upstream_let_go() {
    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[]);
    for leaves_with_reset in [false, true] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(handshake(if leaves_with_reset { "/reset" } else { "/fin" }));
        let (upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
        if leaves_with_reset {
            reset(client.socket);
        } else {
            drop(client);
        }
        assert_eq!(read_to_end(&upstream).unwrap_or_default(), b"");
        let line = elbows.access_log.wait_for(if leaves_with_reset { "/reset" } else { "/fin" });
        assert!(line.contains("status=- "), "{line}");
        assert!(line.contains("by=client during=handshake why=closed"), "{line}");
    }
    elbows.wait_for_report("open=0");
}

#[test]
fn upstream_that_fails_the_handshake_is_502_or_504() {
    let elbows = Elbows::start(Upstream::nobody(), &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/refused"));
    assert_eq!(client.read_response().status, 502);
    elbows.access_log.wait_for("by=upstream during=handshake why=unreachable");

    let (address, sockets) = handed_over();
    let elbows = Elbows::start(address, &[("RESPONSE_HEAD_TIMEOUT", "200ms")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/silent"));
    let (upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.read_response().status, 504);
    assert_eq!(read_to_end(&upstream).unwrap(), b"");
    elbows.access_log.wait_for("by=upstream during=handshake why=timeout");

    client.send(handshake("/gone"));
    drop(sockets.recv_timeout(PATIENCE).unwrap());
    assert_eq!(client.read_response().status, 502);
    elbows.access_log.wait_for("by=upstream during=handshake why=closed");
}

#[test]
fn hundreds_of_tunnels_are_open_at_once_and_do_not_mix() {
    const TUNNELS: usize = 300;
    let upstream = Upstream::echo();
    let elbows = Elbows::start(upstream.address, &[]);
    let mut clients: Vec<_> = (0..TUNNELS)
        .map(|_| {
            let mut client = Client::behind_balancer(elbows.address);
            client.send(handshake("/ws"));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.read_head().status, 101);
    }
    elbows.wait_for_report(&format!("tunnels_open={TUNNELS}"));
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("{round:02} {number:05}"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read_exact(8), format!("{round:02} {number:05}").as_bytes());
        }
    }
    let start = Instant::now();
    clients.clear();
    elbows.wait_for_report("open=0");
    assert!(start.elapsed() < PATIENCE);
    elbows.access_log.wait_until("300 lines", |lines| (lines.len() == TUNNELS).then_some(()));
}

#[test]
fn switching_is_told_in_http_1_1() {
    let upstream = Upstream::start(|mut socket| {
        read_head(&mut socket);
        socket.write_all(&[b"HTTP/1.0", &SWITCHING[8..]].concat()).unwrap();
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/"));
    let head = client.read_head().head;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

byte_by_byte!({
    any_protocol_is_carried,
    bytes_behind_the_request_head_arrive_first,
    bytes_behind_the_101_arrive_first,
    early_bytes_of_both_sides_arrive_complete,
    upstream_that_leaves_right_behind_the_101_is_heard_out,
    answer_other_than_101_goes_back_as_it_is_and_the_connection_lives_on,
    protocol_that_was_not_offered_is_502,
    h2c_is_never_offered_to_the_upstream,
    upgrade_of_http_1_0_is_ignored,
    upgrade_that_connection_does_not_list_is_ignored,
    each_side_may_finish_first_and_still_hear_the_other,
    reset_reaches_the_other_side,
    client_that_leaves_during_the_handshake_is_logged_and_the_upstream_let_go,
    upstream_that_fails_the_handshake_is_502_or_504,
    switching_is_told_in_http_1_1,
} not {
    slow_reader_slows_the_sender_and_costs_no_memory: "it is about what comes behind the heads, in bulk",
    hundreds_of_tunnels_are_open_at_once_and_do_not_mix: "it is about many tunnels, and its handshakes are those of the others",
});
