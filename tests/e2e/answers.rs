//! What an upstream answers: early, much, in pieces, unasked or only in part. What came is delivered, as far as it came,
//! to whoever asked for it, and to nobody else.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::client::{Client, handshake};
use crate::proxy::{Elbows, PATIENCE};
use crate::upstream::{Upstream, handed_over, read_body, read_head, try_read_head};

/// More than all buffers of the kernel between an upstream and a client hold.
const MUCH: usize = 16 << 20;

/// How a response says where it ends.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunks,
    Close,
}

/// Bytes of which none is where another one was.
fn much() -> Vec<u8> {
    (0..MUCH / 4).flat_map(|number| u32::try_from(number).unwrap().to_be_bytes()).collect()
}

/// Answers with [`much`], to the end.
fn answer_much(socket: &mut TcpStream, status: u16, framing: Framing) {
    let body = much();
    match framing {
        Framing::Length => {
            write!(socket, "HTTP/1.1 {status} No\r\nContent-Length: {MUCH}\r\n\r\n").unwrap();
            socket.write_all(&body).unwrap();
        }
        Framing::Chunks => {
            write!(socket, "HTTP/1.1 {status} No\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for part in body.chunks(100_000) {
                write!(socket, "{:x}\r\n", part.len()).unwrap();
                socket.write_all(part).unwrap();
                socket.write_all(b"\r\n").unwrap();
            }
            socket.write_all(b"0\r\n\r\n").unwrap();
        }
        Framing::Close => {
            write!(socket, "HTTP/1.1 {status} No\r\n\r\n").unwrap();
            socket.write_all(&body).unwrap();
        }
    }
}

/// As curl asks for HTTP/2 with a body.
const CURL: &str = "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
    Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
    HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 5\r\n\r\n";

#[test]
fn large_answer_around_an_upgrade_reaches_a_slow_reader_whole() {
    for framing in [Framing::Length, Framing::Chunks, Framing::Close] {
        let upstream = Upstream::start(move |mut socket| {
            while let Some(head) = try_read_head(&mut socket) {
                if head.contains("/refused") {
                    socket.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
                    continue;
                }
                if head.contains("/x?wanted") {
                    socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                    read_body(&mut socket, &head);
                }
                answer_much(&mut socket, if head.contains("/x") { 200 } else { 403 }, framing);
                if matches!(framing, Framing::Close) {
                    break;
                }
            }
            String::new()
        });
        let elbows = Elbows::start(upstream.address, &[]);
        for asked in ["upgrade", "last upgrade", "body", "no body", "behind", "last behind"] {
            let mut client = Client::behind_balancer(elbows.address);
            SockRef::from(&client.socket).set_recv_buffer_size(64 * 1024).unwrap();
            let last =
                |request: String| request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            match asked {
                "upgrade" => client.send(handshake("/ws")),
                "last upgrade" => client.send(last(handshake("/ws"))),
                "body" => {
                    client.send(CURL.replace("/x", "/x?wanted"));
                    assert_eq!(client.read_head().status, 100);
                    client.send("hello");
                }
                // It is answered without its body, and its connection ends.
                "no body" => client.send(CURL),
                _ => {
                    client.send(handshake("/refused"));
                    assert_eq!(client.read_response().status, 403);
                    let plain = PLAIN.to_owned();
                    client.send(if asked == "behind" { plain } else { last(plain) });
                }
            }
            // A slow reader: time is what it takes, until all buffers on the way are full.
            thread::sleep(Duration::from_millis(300));
            eprintln!("{asked}, {framing:?}");
            let response = client.read_response();
            assert!(response.body == much(), "{} bytes\n{}", response.body.len(), response.head);
        }
    }
}

/// As large as what the kernel takes of it, and a little more, which elbows holds when the upstream has sent all of it.
#[test]
fn answer_to_a_refused_expectation_that_just_fits_reaches_a_slow_reader_whole() {
    let upstream = Upstream::start(|mut socket| {
        while let Some(head) = try_read_head(&mut socket) {
            let length = head.split(' ').nth(1).unwrap().trim_start_matches('/');
            let Ok(length) = length.parse() else {
                socket.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
                continue;
            };
            write!(socket, "HTTP/1.1 417 No\r\nContent-Length: {length}\r\n\r\n").unwrap();
            socket.write_all(&vec![b'x'; length]).unwrap();
        }
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &[("LOG", "info")]);
    let buffer = fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap();
    let buffer: usize = buffer.split_whitespace().last().unwrap().parse().unwrap();
    let ask = |length: usize, is_behind: bool| {
        let mut client = Client::behind_balancer(elbows.address);
        SockRef::from(&client.socket).set_recv_buffer_size(64 * 1024).unwrap();
        let request = CURL.replace("/x", &format!("/{length}"));
        if is_behind {
            client.send(handshake("/refused"));
            assert_eq!(client.read_response().status, 403);
            let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n";
            client.send(request.replace(fields, ""));
        } else {
            client.send(request);
        }
        // A slow reader: time is what it takes, until all of it has come to elbows.
        thread::sleep(Duration::from_secs(2));
        // On a machine that has no time, the body is asked for before the refusal comes.
        while client.read_head().status == 100 {}
        let (mut came, mut buffer) = (client.unread().len(), vec![0; 64 * 1024]);
        assert!(client.unread().iter().all(|byte| *byte == b'x'));
        while came < length {
            match client.socket.read(&mut buffer) {
                Ok(read @ 1..) => {
                    assert!(buffer[..read].iter().all(|byte| *byte == b'x'), "at {came}");
                    came += read;
                }
                end => panic!("{came} of {length}, {is_behind}: {end:?}"),
            }
        }
    };
    thread::scope(|scope| {
        let ask = &ask;
        for length in (buffer..buffer + 600_000).step_by(20_000) {
            scope.spawn(move || ask(length, false));
            scope.spawn(move || ask(length, true));
        }
    });
}

#[test]
fn refusal_beside_an_upload_is_read_by_a_client_that_sends_on() {
    const PART: usize = 256 * 1024;
    const PARTS: usize = 32;
    const H2C: &str = "Connection: Upgrade\r\nUpgrade: h2c\r\n";
    // The application refuses and goes, or leaves what comes unread; or elbows itself refuses.
    for (leaves, settings) in
        [(true, &[][..]), (true, &[("MAX_BODY_SIZE", "100KiB")]), (false, &[])]
    {
        let (gone, waits) = channel::<()>();
        let waits = Arc::new(Mutex::new(waits));
        let upstream = Upstream::start(move |mut socket| {
            let mut head = read_head(&mut socket);
            if head.contains("/refused") {
                socket.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
                head = try_read_head(&mut socket).unwrap_or_default();
            }
            let refusal = b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbig\n";
            let _ = socket.write_all(refusal);
            if !leaves {
                let _ = waits.lock().unwrap().recv();
            }
            head
        });
        let elbows = Elbows::start(upstream.address, settings);
        let length = format!("Content-Length: {}\r\n", PART * PARTS);
        let chunked = "Transfer-Encoding: chunked\r\n".to_owned();
        for (fields, is_behind) in [
            (format!("{length}{H2C}"), false),
            (length.clone(), true),
            (length, false),
            (chunked, false),
        ] {
            let mut client = Client::behind_balancer(elbows.address);
            if is_behind {
                client.send(handshake("/refused"));
                assert_eq!(client.read_response().status, 403);
            }
            client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            let mut part = format!("{PART:x}\r\n").into_bytes();
            part.resize(part.len() + PART, b'x');
            part.extend_from_slice(b"\r\n");
            let part = if fields.contains("chunked") { part } else { vec![b'x'; PART] };
            for number in 0..PARTS {
                let sent = client.socket.write_all(&part);
                assert!(sent.is_ok(), "{sent:?} at part {number} of {PARTS}: {fields:?}");
                // It sends on for some time after it was refused.
                thread::sleep(Duration::from_millis(10));
            }
            let response = client.read_response();
            assert_eq!(response.status, 413, "{}", response.head);
        }
        drop(gone);
    }
}

/// An application that sends more than it announced behind the first answer of each connection, and tells when it
/// has. To the next requests there it answers with their targets.
fn talkative(together: bool) -> (Upstream, std::sync::mpsc::Receiver<()>) {
    const WRONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
    let (sender, told) = channel();
    let pauses = [0, 0, 100, 500, 2_000].map(Duration::from_micros).into_iter().cycle();
    let pauses = Arc::new(Mutex::new(pauses));
    let upstream = Upstream::start(move |mut socket| {
        let mut is_first = true;
        while let Some(head) = try_read_head(&mut socket) {
            let target = head.split(' ').nth(1).unwrap();
            let length = target.len();
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
            if !head.starts_with("HEAD") {
                answer.extend_from_slice(target.as_bytes());
            }
            let more: &[u8] = match target {
                // It is as long as the target, and nobody asked for it.
                "/head" => b"/head",
                "/too-long" => b", and more",
                _ => WRONG,
            };
            if is_first && together {
                answer.extend_from_slice(more);
            }
            if socket.write_all(&answer).is_err() {
                break;
            }
            if is_first && !together {
                // The answer may be delivered, and the connection kept, before more comes.
                thread::sleep(pauses.lock().unwrap().next().unwrap());
                let _ = socket.write_all(more);
            }
            if is_first {
                let _ = sender.send(());
            }
            is_first = false;
        }
        String::new()
    });
    (upstream, told)
}

#[test]
fn what_comes_unasked_behind_an_answer_is_never_the_next_requests() {
    // Each worker has connections of its own.
    let one = [("THREADS", "1"), ("LOG", "info")];
    for (together, pipelined) in [(true, true), (true, false), (false, false)] {
        let (upstream, told) = talkative(together);
        let elbows = Elbows::start(upstream.address, &one);
        for run in 0..200 {
            let (method, target) =
                [("GET", "/answer"), ("HEAD", "/head"), ("GET", "/too-long")][run % 3];
            let mut client = Client::behind_balancer(elbows.address);
            let next = format!("/next-{run}");
            let first = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let second = format!("GET {next} HTTP/1.1\r\nHost: a\r\n\r\n");
            client.send(if pipelined { format!("{first}{second}") } else { first });
            assert_eq!(client.read_head().status, 200);
            if method == "GET" {
                client.read_exact(target.len());
            }
            if !together {
                told.recv_timeout(PATIENCE).unwrap();
            }
            if !pipelined {
                client.send(second);
            }
            assert_eq!(client.read_response().text(), next, "run {run}, behind {method} {target}");
            if !together {
                told.recv_timeout(PATIENCE).unwrap();
            }
        }
    }
}

#[test]
fn bytes_that_come_between_two_requests_are_no_answer() {
    let (address, sockets) = handed_over();
    // Each worker has connections of its own.
    let elbows = Elbows::start(address, &[("THREADS", "1"), ("LOG", "info")]);
    let answer =
        |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    for run in 0..200 {
        let mut client = Client::behind_balancer(elbows.address);
        client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
        upstream.write_all(answer("first").as_bytes()).unwrap();
        assert_eq!(client.read_response().text(), "first");
        upstream.write_all(answer("wrong").as_bytes()).unwrap();
        client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        let fresh = sockets.recv_timeout(Duration::from_secs(10));
        let Ok((mut fresh, head)) = fresh else {
            panic!("run {run}: on the old connection, {:?}", client.read_response().text());
        };
        assert!(head.starts_with("GET /second "), "{head}");
        let close = answer("right").replace("OK\r\n", "OK\r\nConnection: close\r\n");
        fresh.write_all(close.as_bytes()).unwrap();
        assert_eq!(client.read_response().text(), "right", "run {run}");
    }
}

/// Everything that a client gets, and how that ended.
fn read_all(client: &mut Client) -> (String, Result<(), ErrorKind>) {
    let (mut came, mut buffer) = (Vec::new(), vec![0; 4_096]);
    let end = loop {
        match client.socket.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => came.extend_from_slice(&buffer[..read]),
            Err(error) => break Err(error.kind()),
        }
    };
    (String::from_utf8(came).unwrap(), end)
}

/// A client that has sent `request`, whose upstream sends `bytes` at once and closes.
fn answered(bytes: &'static [u8], request: &str) -> (Client, Elbows) {
    let upstream = Upstream::start(move |mut socket| {
        read_head(&mut socket);
        socket.write_all(bytes).unwrap();
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &[("LOG", "info")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(request);
    (client, elbows)
}

const PLAIN: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn answer_that_is_cut_is_delivered_as_far_as_it_came_and_then_the_cut_shows() {
    for (answer, http, ends_with, end) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"[..],
            "1.1",
            "\r\n\r\nhello",
            Ok(()),
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "1.1",
            "\r\n\r\n5\r\nhello\r\n",
            Ok(()),
        ),
        (
            // The next chunk has begun.
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n9\r\nllo",
            "1.1",
            "\r\n\r\n5\r\nhello\r\n",
            Ok(()),
        ),
        (
            // There only a reset shows it.
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "1.0",
            "\r\n\r\nhello",
            Err(ErrorKind::ConnectionReset),
        ),
    ] {
        let upstream = Upstream::start(move |mut socket| {
            while let Some(head) = try_read_head(&mut socket) {
                if head.contains("/x") {
                    socket.write_all(answer).unwrap();
                    break;
                }
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
            String::new()
        });
        let elbows = Elbows::start(upstream.address, &[("LOG", "info")]);
        // Where a reset shows the cut, it comes a second later: so many wait at a time.
        let run = |run: usize| {
            let mut client = Client::behind_balancer(elbows.address);
            // On a new connection, and on one that was used.
            if run % 2 == 1 {
                assert_eq!(client.get("/ok").status, 200);
            }
            let requests = [
                format!("GET /x-{run} HTTP/{http}\r\nHost: a\r\n\r\n"),
                handshake(&format!("/x-{run}")),
            ];
            client.send(&requests[usize::from(run % 5 == 4 && http == "1.1")]);
            let (came, ended) = read_all(&mut client);
            assert!(came.starts_with("HTTP/1.1 200 "), "run {run}: {came:?}");
            assert!(came.ends_with(ends_with), "run {run}: {came:?}");
            assert_eq!(ended, end, "run {run}: {came:?}");
            let line = elbows.access_log.wait_for(&format!("/x-{run} "));
            assert!(line.contains("status=200 "), "{line}");
            assert!(line.contains("from_upstream=5 "), "{line}");
            assert!(line.contains("by=upstream during=response why=closed"), "{line}");
        };
        thread::scope(|scope| {
            for first in 0..10 {
                scope.spawn(move || (first..50).step_by(10).for_each(run));
            }
        });
    }
}

#[test]
fn answer_whose_chunks_break_a_rule_is_delivered_up_to_there() {
    const BROKEN: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxxx__";
    for _ in 0..10 {
        for request in [PLAIN.to_owned(), handshake("/x")] {
            let (mut client, elbows) = answered(BROKEN, &request);
            let (came, end) = read_all(&mut client);
            let line = elbows.access_log.wait_for("/x");
            assert!(came.starts_with("HTTP/1.1 200 OK\r\n"), "{came:?}");
            assert!(came.ends_with("\r\n\r\n3\r\nxxx\r\n"), "{came:?}");
            assert_eq!(end, Ok(()));
            assert!(line.contains("status=200 "), "{line}");
            assert!(line.contains("from_upstream=3 "), "{line}");
            assert!(line.contains("by=upstream during=response why=malformed"), "{line}");
        }
    }
}

#[test]
fn answers_to_requests_and_to_handshakes_are_read_by_the_same_rules() {
    for (answer, status) in [
        (&b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"[..], 200),
        (b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\nok", 200),
        (b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        (b"\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        (b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        (b"HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        (
            b"HTTP/1.1 100 Continue\r\n\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            502,
        ),
        (b"HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\n\r\nok", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", 502),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nok", 200),
    ] {
        for request in [PLAIN.to_owned(), handshake("/x")] {
            let (mut client, elbows) = answered(answer, &request);
            let shown = String::from_utf8_lossy(answer);
            let response = loop {
                let response = client.read_response();
                if response.status != 100 {
                    break response;
                }
            };
            assert_eq!(response.status, status, "{shown:?}");
            assert_eq!(response.text() == "ok", status == 200, "{shown:?}: {}", response.text());
            // What ended with LF alone is written on with CRLF.
            let lines = response.head.matches('\n').count();
            assert_eq!(response.head.matches("\r\n").count(), lines, "{}", response.head);
            let why = if status == 200 { "why=complete" } else { "why=malformed" };
            let line = elbows.access_log.wait_for("/x");
            assert!(line.contains(why), "{shown:?}\n{line}");
        }
    }
}

byte_by_byte!({
    large_answer_around_an_upgrade_reaches_a_slow_reader_whole,
    answer_to_a_refused_expectation_that_just_fits_reaches_a_slow_reader_whole,
    refusal_beside_an_upload_is_read_by_a_client_that_sends_on,
    answers_to_requests_and_to_handshakes_are_read_by_the_same_rules,
} not {
    what_comes_unasked_behind_an_answer_is_never_the_next_requests:
        "what comes once the next request is out cannot be told from its answer",
    bytes_that_come_between_two_requests_are_no_answer:
        "the connection ends with the first byte that nobody asked for",
    answer_that_is_cut_is_delivered_as_far_as_it_came_and_then_the_cut_shows:
        "it is about what comes together, and each byte would be a chunk",
    answer_whose_chunks_break_a_rule_is_delivered_up_to_there:
        "it is about what comes together, and each byte would be a chunk",
});
