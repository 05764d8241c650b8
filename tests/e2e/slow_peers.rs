//! Slow and greedy: clients and upstreams that take their time, take nothing, or come only to leave.
//!
//! Each has its limit, and its end is in the log. Tunnels have theirs in [`crate::limits`].

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use test_support::log_line::number;
use test_support::process::{cpu_ticks, proportional_memory, raise_descriptor_limit};

use crate::client::{Client, PROXY_V1, field, handshake};
use crate::programs::{Program, python, wait_until};
use crate::proxy::{Elbows, PATIENCE, free_port};
use crate::upstream::{SWITCHING, Upstream, read_body, read_head, try_read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Settings under which the tests wait for no other limit than the one that they are about.
const STALL: [(&str, &str); 1] = [("STALL_TIMEOUT", "400ms")];

/// Writes until nobody takes anything any more, and then until the connection is gone.
fn pour(socket: &mut TcpStream) -> ErrorKind {
    let block = vec![7; 64 * 1024];
    loop {
        if let Err(error) = socket.write_all(&block) {
            return error.kind();
        }
    }
}

/// An upstream whose response never ends, as far as it is taken; what is seen is how it ended.
fn endless() -> Upstream {
    Upstream::start(|mut socket| {
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        read_head(&mut socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").unwrap();
        format!("{:?}", pour(&mut socket))
    })
}

#[test]
fn client_that_takes_nothing_of_its_response_is_given_up() {
    let upstream = endless();
    let elbows = Elbows::start(upstream.address, &STALL);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("by=client during=response why=stalled"), "{line}");
    assert_ne!(upstream.seen(), "WouldBlock");
    elbows.wait_for_report("open=0");
    assert!(client.read_to_end().is_err(), "it must not look complete");
}

#[test]
fn client_that_takes_its_time_gets_its_whole_response() {
    const PART: usize = 2 << 20;
    const PARTS: usize = 12;
    let upstream = Upstream::start(|mut socket| {
        read_head(&mut socket);
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PART * PARTS).unwrap();
        format!("{:?}", socket.write_all(&vec![7; PART * PARTS]).is_ok())
    });
    let elbows = Elbows::start(upstream.address, &STALL);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head();
    for _ in 0..PARTS {
        // In all several times the limit.
        thread::sleep(Duration::from_millis(200));
        assert_eq!(client.read_exact(PART), vec![7; PART]);
    }
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("why=complete"), "{line}");
}

#[test]
fn client_that_has_asked_for_much_more_and_takes_its_time_gets_its_whole_response() {
    const PART: usize = 2 << 20;
    const PARTS: usize = 12;
    let upstream = Upstream::start(|mut socket| {
        while let Some(head) = try_read_head(&mut socket) {
            if head.contains("/x") {
                write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PART * PARTS)
                    .unwrap();
                socket.write_all(&vec![7; PART * PARTS]).unwrap();
            } else if socket.write_all(OK).is_err() {
                break;
            }
        }
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &STALL);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head();
    // More than elbows keeps of it.
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3_000));
    for part in 0..PARTS {
        // In all several times the limit.
        thread::sleep(Duration::from_millis(200));
        assert!(client.read_exact(PART) == vec![7; PART], "part {part}");
    }
    assert_eq!(client.read_response().text(), "ok");
}

#[test]
fn client_that_reads_so_little_that_the_kernel_tells_nobody_is_not_given_up() {
    // The kernel wakes a writer when a third of its buffer is free. Some bytes at a time are less than
    // that for long, and yet they were taken.
    let upstream = endless();
    let elbows = Elbows::start(upstream.address, &STALL);
    let mut client = Client::behind_balancer(elbows.address);
    SockRef::from(&client.socket).set_recv_buffer_size(64 * 1024).unwrap();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        // A slow reader: time is what it takes.
        thread::sleep(Duration::from_millis(100));
        client.read_exact(64 * 1024);
    }
    assert!(elbows.access_log.all().is_empty(), "{:?}", elbows.access_log.all());
}

#[test]
fn upstream_that_never_reads_a_body_is_504() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        // Silent for longer than the limit, and it reads nothing.
        thread::sleep(Duration::from_secs(5));
        head
    });
    let elbows = Elbows::start(upstream.address, &STALL);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n");
    let mut socket = client.socket.try_clone().unwrap();
    let pouring = thread::spawn(move || pour(&mut socket));
    assert_eq!(client.read_response().status, 504);
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("status=504 "), "{line}");
    assert!(line.contains("by=upstream during=request why=timeout"), "{line}");
    pouring.join().unwrap();
    elbows.wait_for_report("open=0");
}

#[test]
fn upstream_that_answers_and_reads_no_further_is_given_up() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").unwrap();
        // Silent for longer than the limit, and it reads nothing.
        thread::sleep(Duration::from_secs(5));
        head
    });
    let elbows = Elbows::start(upstream.address, &STALL);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n");
    let mut socket = client.socket.try_clone().unwrap();
    let pouring = thread::spawn(move || pour(&mut socket));
    client.read_until(b"hello");
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("by=upstream during=response why=stalled"), "{line}");
    pouring.join().unwrap();
    elbows.wait_for_report("open=0");
}

#[test]
fn client_that_stops_in_its_body_does_not_hold_an_upstream_that_has_answered() {
    let upstream = Upstream::start(|mut socket| {
        read_head(&mut socket);
        socket.write_all(OK).unwrap();
        format!("{:?}", socket.read_to_end(&mut Vec::new()))
    });
    let settings = [("RESPONSE_HEAD_TIMEOUT", "400ms")];
    let elbows = Elbows::start(upstream.address, &settings);
    for body in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello"]
    {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{body}"));
        assert_eq!(client.read_response().status, 200);
        // Its connection ends, and so does the upstream's.
        let _ = client.read_to_end();
        assert!(!upstream.seen().contains("WouldBlock"));
        elbows.wait_for_report("open=0");
    }
}

#[test]
fn client_that_stops_in_its_body_is_told_of_in_the_line_of_a_response_under_way() {
    let upstream = Upstream::start(|mut socket| {
        read_head(&mut socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").unwrap();
        format!("{:?}", socket.read_to_end(&mut Vec::new()))
    });
    let settings = [("RESPONSE_HEAD_TIMEOUT", "400ms")];
    let elbows = Elbows::start(upstream.address, &settings);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    client.read_until(b"hello");
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("by=client during=response why=timeout"), "{line}");
    assert!(!upstream.seen().contains("WouldBlock"));
}

#[test]
fn response_that_is_silent_is_left_alone() {
    // Server-sent events may have nothing to say for hours.
    let upstream = Upstream::start(|mut socket| {
        read_head(&mut socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
        // Silent for longer than the limit.
        thread::sleep(Duration::from_secs(2));
        format!("{:?}", socket.write_all(b"world").is_ok())
    });
    let settings = [
        ("STALL_TIMEOUT", "300ms"),
        ("RESPONSE_HEAD_TIMEOUT", "300ms"),
        ("REQUEST_HEAD_TIMEOUT", "300ms"),
    ];
    let elbows = Elbows::start(upstream.address, &settings);
    let mut client = Client::behind_balancer(elbows.address);
    assert_eq!(client.get("/x").text(), "helloworld");
}

#[test]
fn client_that_asks_and_asks_and_reads_no_answer_is_given_up() {
    let upstream = Upstream::answering(OK);
    let health = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let on = health.to_string();
    let settings = [STALL[0], ("HEALTH_LISTEN_ON", on.as_str()), ("LOG", "info")];
    let elbows = Elbows::start(upstream.address, &settings);
    for address in [elbows.address, health] {
        let mut client = Client::plain(address);
        let many = "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000);
        let start = Instant::now();
        while client.socket.write_all(many.as_bytes()).is_ok() {
            assert!(start.elapsed() < PATIENCE, "it goes on for ever");
        }
        let error = client.socket.write_all(many.as_bytes()).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "{address}: nobody gave it up");
    }
    elbows.wait_for_report("open=0");
}

#[test]
fn request_head_has_its_time_and_no_byte_extends_it() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("REQUEST_HEAD_TIMEOUT", "500ms")]);
    let mut slow = Client::behind_balancer(elbows.address);
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\nX: ");
    let start = Instant::now();
    while slow.socket.write_all(b"x").is_ok() {
        // A slow sender: time is what it takes.
        thread::sleep(Duration::from_millis(50));
        assert!(start.elapsed() < PATIENCE, "it goes on for ever");
    }
    elbows.wait_for_report("open=0");
    elbows.wait_for_report("slow_heads=1");
    let line = elbows.access_log.wait_for("why=timeout");
    assert!(line.contains("\"GET /slow HTTP/1.1\" status=408"), "{line}");
    assert!(line.contains("by=client during=request"), "{line}");
    assert!(upstream.saw_nothing());
}

/// CPU time that elbows takes for this, in ticks of 10 ms.
fn ticks(elbows: &Elbows, run: impl FnOnce()) -> u64 {
    let before = cpu_ticks(elbows.pid());
    run();
    cpu_ticks(elbows.pid()) - before
}

#[test]
fn upload_of_many_small_chunks_costs_little_more_than_one_of_few_large_ones() {
    const BYTES: usize = 120_000;
    const TIMES: u32 = 4;
    let upstream = Upstream::start(|mut socket| {
        while let Some(head) = try_read_head(&mut socket) {
            let (body, _) = read_body(&mut socket, &head);
            assert_eq!(body.len(), BYTES);
            socket.write_all(OK).unwrap();
        }
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &[("LOG", "info"), ("THREADS", "1")]);
    let small = "1\r\nx\r\n".repeat(BYTES);
    let mut client = Client::behind_balancer(elbows.address);
    let spent = ticks(&elbows, || {
        for _ in 0..TIMES {
            client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(&small);
            client.send("0\r\n\r\n");
            assert_eq!(client.read_response().status, 200);
        }
    });
    eprintln!("{spent} ticks for {TIMES} times {BYTES} chunks");
    assert!(spent < 30, "{spent} ticks of 10 ms for {TIMES} times {BYTES} chunks");
}

#[test]
fn connection_field_of_many_names_costs_little_more_than_any_field_of_its_length() {
    const TIMES: u32 = 300;
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("LOG", "info"), ("THREADS", "1")]);
    let mut client = Client::behind_balancer(elbows.address);
    let mut spent = |name: &str, value: &str| {
        let request = format!("GET /x HTTP/1.1\r\nHost: a\r\nAccept: b\r\n{name}: {value}\r\n\r\n");
        ticks(&elbows, || {
            for _ in 0..TIMES {
                client.send(&request);
                assert_eq!(client.read_response().status, 200);
            }
        })
    };
    let names = "a,".repeat(30_000) + "a";
    let plain = spent("X", &names);
    let many = spent("Connection", &names);
    eprintln!("{many} ticks for {TIMES} heads with 30,000 names, {plain} for as many bytes");
    assert!(many < plain + 25, "{many} ticks of 10 ms, {plain} without names");
}

#[test]
fn body_below_the_least_rate_is_408_and_one_that_waits_for_its_upstream_is_not() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        if head.contains("/waits") {
            // It reads nothing for longer than a body has before its rate counts.
            thread::sleep(Duration::from_secs(12));
        }
        let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        if socket.read_exact(&mut body).is_ok() {
            socket.write_all(OK).unwrap();
        }
        head
    });
    let settings = [("MIN_BODY_RATE", "1MiB"), ("RESPONSE_HEAD_TIMEOUT", "30s")];
    let elbows = Elbows::start(upstream.address, &settings);
    thread::scope(|scope| {
        scope.spawn(|| {
            // More than all buffers on the way hold, so that it is the upstream that is waited for. Behind that the
            // time that the body has had is short, and it comes quickly.
            const MUCH: usize = 32 << 20;
            let mut client = Client::behind_balancer(elbows.address);
            client
                .send(format!("POST /waits HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n"));
            client.socket.write_all(&vec![b'x'; MUCH]).unwrap();
            assert_eq!(client.read_response().status, 200);
        });
        let mut client = Client::behind_balancer(elbows.address);
        let start = Instant::now();
        client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        client.socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        // A slow sender: time is what it takes, and no pause of its is long.
        while client.socket.peek(&mut [0]).is_err() {
            assert!(start.elapsed() < Duration::from_secs(25), "it goes on for ever");
            client.send(b"x");
        }
        assert!(start.elapsed() > Duration::from_secs(8), "{:?}", start.elapsed());
        let response = client.read_response();
        assert_eq!(response.status, 408, "{}", response.head);
        assert_eq!(response.field("connection"), Some("close"));
        let line = elbows.access_log.wait_for("/slow");
        assert!(line.contains("by=client during=request why=timeout"), "{line}");
    });
    assert!(elbows.access_log.wait_for("/waits").contains("why=complete"));
}

#[test]
fn slow_head_is_408_and_an_idle_connection_just_closes() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("REQUEST_HEAD_TIMEOUT", "300ms")]);
    // The first request of a connection, and one behind another.
    for before in [0, 1] {
        let mut slow = Client::behind_balancer(elbows.address);
        for _ in 0..before {
            assert_eq!(slow.get("/").status, 200);
        }
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n");
        let response = slow.read_response();
        assert_eq!(response.status, 408, "{}", response.head);
        assert_eq!(response.field("connection"), Some("close"));
        assert!(slow.read_to_end().unwrap().is_empty());
    }
    let mut idle = Client::behind_balancer(elbows.address);
    assert_eq!(idle.get("/").status, 200);
    assert!(idle.read_to_end().unwrap().is_empty(), "nothing was asked, and nothing is answered");
    elbows.wait_for_report("slow_heads=2");
}

/// So many clients, each with an address of its own, that have sent `bytes` behind their PROXY header.
fn crowd(elbows: &Elbows, number: u64, bytes: &str) -> Vec<TcpStream> {
    let before = accepted(elbows);
    let crowd = (0..number)
        .map(|client| {
            let [.., a, b] = client.to_be_bytes();
            let mut socket = TcpStream::connect(elbows.address).unwrap();
            write!(socket, "PROXY TCP4 198.18.{a}.{b} 192.0.2.1 51234 80\r\n{bytes}").unwrap();
            socket
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while accepted(elbows) < before + number {
        assert!(Instant::now() < deadline, "it does not take them");
        thread::sleep(Duration::from_millis(50));
    }
    crowd
}

fn accepted(elbows: &Elbows) -> u64 {
    number(&elbows.report(), "connections")
}

/// Two crowds at once would need more descriptors than this process may have.
static ONE_CROWD: Mutex<()> = Mutex::new(());

#[test]
fn nine_thousand_half_open_handshakes_hold_little_and_nobody_up() {
    const NUMBER: u64 = 9_000;
    let _alone = ONE_CROWD.lock();
    raise_descriptor_limit();
    // A process of its own, for the same reason.
    let application = Program::start(python("silent_app.py"));
    let upstream = application.address_after("listens on");
    // That each has its end is shown elsewhere.
    let settings = [("LOG", "info"), ("RESPONSE_HEAD_TIMEOUT", "10min")];
    let elbows = Elbows::start(upstream, &settings);
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    let before = proportional_memory(elbows.pid());
    let crowd = crowd(&elbows, NUMBER, &handshake("/ws"));
    elbows.wait_for_report(&format!("requests={}", NUMBER + 1));
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    let each = (proportional_memory(elbows.pid()) - before) / NUMBER;
    eprintln!("{each} bytes for a handshake that is not answered");
    assert!(each < 16 * 1024, "{each} bytes each");
    drop(crowd);
    elbows.wait_for_report("open=0");
    let lines = elbows.access_log.wait_until("a line each", |lines| {
        let number = lines.iter().filter(|line| line.contains("GET /ws ")).count() as u64;
        (number == NUMBER).then(|| lines.to_vec())
    });
    let ended = "by=client during=handshake why=closed";
    assert!(lines.iter().all(|line| !line.contains("GET /ws ") || line.contains(ended)));
}

#[test]
fn nine_thousand_slow_heads_hold_little_and_nobody_up() {
    const NUMBER: u64 = 9_000;
    let _alone = ONE_CROWD.lock();
    raise_descriptor_limit();
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("LOG", "info")]);
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    let before = proportional_memory(elbows.pid());
    let half = format!("GET /ws HTTP/1.1\r\nHost: shop.example\r\nCookie: {}", "x".repeat(300));
    let crowd = crowd(&elbows, NUMBER, &half);
    // Another client's request passes by all of them.
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    let each = (proportional_memory(elbows.pid()) - before) / NUMBER;
    eprintln!("{each} bytes for a slow head");
    assert!(each < 16 * 1024, "{each} bytes each");
    drop(crowd);
    elbows.wait_for_report("open=0");
}

/// So many clients that were each served `target`, with these fields, and have sent `then` behind it.
fn served_crowd(
    elbows: &Elbows,
    number: u64,
    target: &str,
    fields: &str,
    then: &str,
) -> Vec<TcpStream> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n");
    (0..number)
        .map(|_| {
            let mut client = Client::behind_balancer(elbows.address);
            client.send(&request);
            assert_eq!(client.read_response().status, 200);
            client.send(then);
            client.socket
        })
        .collect()
}

#[test]
fn connection_that_was_served_and_is_idle_holds_little() {
    const WAVE: u64 = 500;
    const WAVES: u64 = 4;
    let _alone = ONE_CROWD.lock();
    raise_descriptor_limit();
    let upstream = Upstream::answering(OK);
    let half = format!("GET /ws HTTP/1.1\r\nHost: shop.example\r\nCookie: {}", "x".repeat(300));
    let large = format!("X-Large: {}\r\n", "x".repeat(60_000));
    for (target, fields, then) in [
        ("/", "", ""),
        ("/", "", half.as_str()),
        // No upstream has to read it.
        ("/ping", large.as_str(), half.as_str()),
    ] {
        let elbows = Elbows::start(upstream.address, &[("LOG", "info")]);
        assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
        // What the first hold for their second is used again for the next.
        let mut crowd = Vec::new();
        let mut before = 0;
        for wave in 0..=WAVES {
            crowd.extend(served_crowd(&elbows, WAVE, target, fields, then));
            // A connection gives its memory back after a second of silence.
            thread::sleep(Duration::from_millis(1_300));
            if wave == 0 {
                before = proportional_memory(elbows.pid());
            }
        }
        let each = proportional_memory(elbows.pid()).saturating_sub(before) / (WAVE * WAVES);
        eprintln!("{each} bytes behind a request of {} and {} more", fields.len(), then.len());
        assert!(each < 16 * 1024, "{each} bytes each");
        // They go on where they stopped.
        for socket in crowd.iter_mut().step_by(100) {
            let rest =
                if then.is_empty() { "GET / HTTP/1.1\r\nHost: a\r\n\r\n" } else { "\r\n\r\n" };
            socket.write_all(rest.as_bytes()).unwrap();
            assert!(read_head(socket).starts_with("HTTP/1.1 200 "));
        }
        drop(crowd);
        elbows.wait_for_report("open=0");
    }
}

#[test]
fn time_of_a_head_counts_from_the_response_before_however_long_that_is_past() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("REQUEST_HEAD_TIMEOUT", "2s")]);
    let mut client = Client::behind_balancer(elbows.address);
    assert_eq!(client.get("/").status, 200);
    let start = Instant::now();
    // Its memory has been given back by then.
    thread::sleep(Duration::from_millis(1_500));
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(client.read_response().status, 408);
    let took = start.elapsed();
    assert!((1_900..2_700).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn connection_that_was_idle_for_long_is_what_it_was() {
    let upstream = Upstream::start(|mut socket| {
        while let Some(head) = try_read_head(&mut socket) {
            let is_handshake = head.contains("Upgrade: websocket");
            let answer = if is_handshake { SWITCHING } else { OK };
            if socket.write_all(answer).is_err() || is_handshake {
                break;
            }
        }
        let mut sink = socket.try_clone().unwrap();
        let _ = std::io::copy(&mut socket, &mut sink);
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &[]);
    // The connection that asked whether elbows listens.
    elbows.wait_for_report("probes=1");
    let mut clients: Vec<_> = (0..4).map(|_| Client::behind_balancer(elbows.address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..2 {
        // A connection gives its memory back after a second of silence.
        thread::sleep(Duration::from_millis(1_300));
        assert_eq!(clients[0].get("/").status, 200);
    }
    clients[1].send(handshake("/ws"));
    assert_eq!(clients[1].read_response().status, 101);
    clients[1].echoes();
    clients[2].send("GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    assert_eq!(clients[2].read_response().status, 400);
    // It was served, so it was no health check.
    drop(clients.pop());
    elbows.wait_for_report("open=2");
    assert_eq!(number(&elbows.report(), "probes"), 1);
}

#[test]
fn flood_of_connections_that_leave_at_once_disturbs_nobody() {
    const EACH: usize = 2_000;
    let upstream = Upstream::echo();
    let elbows = Elbows::start(upstream.address, &[("LOG", "info")]);
    let mut tunnel = Client::behind_balancer(elbows.address);
    tunnel.send(handshake("/ws"));
    assert_eq!(tunnel.read_response().status, 101);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..EACH {
                for bytes in
                    [b"".as_slice(), &PROXY_V1[..9], PROXY_V1, &[PROXY_V1, b"GET / HT"].concat()]
                {
                    let mut socket = TcpStream::connect(elbows.address).unwrap();
                    let _ = socket.write_all(bytes);
                    if number % 2 == 0 {
                        SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                }
            }
            is_over.store(true, Ordering::SeqCst);
        });
        // It would panic where an echo took longer than its patience.
        while !is_over.load(Ordering::SeqCst) {
            tunnel.send(b"hello");
            assert_eq!(tunnel.read_exact(5), b"hello");
        }
    });
    elbows.wait_for_report("open=1");
    let lines = elbows.access_log.all();
    // A connection that never became a request is no line, or one that says so.
    assert!(lines.iter().all(|line| line.contains("request=\"\"")), "{:?}", lines.first());
    let held = elbows.memory("VmHWM");
    assert!(held < 60_000, "{held} kB at the peak");
}

#[test]
fn upstream_that_dies_behind_its_101_ends_its_tunnel_and_nothing_else() {
    for is_reset in [false, true] {
        let upstream = Upstream::start(move |mut socket| {
            let head = read_head(&mut socket);
            socket.write_all(SWITCHING).unwrap();
            if head.contains("/dies") && is_reset {
                SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            } else if !head.contains("/dies") {
                let mut sink = socket.try_clone().unwrap();
                let _ = std::io::copy(&mut socket, &mut sink);
            }
            head
        });
        let elbows = Elbows::start(upstream.address, &[]);
        let mut other = Client::behind_balancer(elbows.address);
        other.send(handshake("/lives"));
        assert_eq!(other.read_response().status, 101);
        for _ in 0..20 {
            let mut client = Client::behind_balancer(elbows.address);
            client.send(handshake("/dies"));
            // A reset may overtake the answer on its way to us: then it is a 502.
            let answer = client.read_head();
            assert!(matches!(answer.status, 101 | 502), "{}", answer.head);
            let _ = client.socket.shutdown(Shutdown::Write);
            let _ = client.read_to_end();
        }
        other.send(b"hello");
        assert_eq!(other.read_exact(5), b"hello");
        elbows.wait_for_report("open=1");
        let lines = elbows.access_log.all();
        wait_until("a line each", || elbows.access_log.all().len() == 20);
        for line in lines {
            assert!(
                line.contains("by=upstream during=") || line.contains("by=client during=relay"),
                "{line}"
            );
        }
    }
}

#[test]
fn client_that_leaves_behind_much_that_nobody_reads_is_noticed() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        let begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        socket.write_all(begun).unwrap();
        // It has no more to say, and waits for the end.
        let _ = socket.read(&mut [0; 1]);
        head
    });
    let elbows = Elbows::start(upstream.address, &[("STALL_TIMEOUT", "1s")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_until(b"hello");
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5_000));
    drop(client);
    elbows.wait_for_report("open=0");
}
