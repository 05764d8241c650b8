//! What the access log says, and what its reader can do to elbows: nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use test_support::log_line::{number, value};

use crate::admin::ask;
use crate::client::{CLIENT, Client, PROXY_V1, handshake};
use crate::programs::wait_until;
use crate::proxy::{Elbows, Lines, free_port};
use crate::upstream::{SWITCHING, Upstream, read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An application that takes a body of 5 bytes and answers with 3.
fn taking_five() -> Upstream {
    Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        socket.read_exact(&mut [0; 5]).unwrap();
        socket.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nyes").unwrap();
        head
    })
}

/// What the line of a tunnel that opens and the line of its end say alike.
const OF_BOTH_LINES: [&str; 8] =
    ["client", "balancer", "request", "status", "upstream", "host", "user_agent", "subprotocol"];

const POST: &str = "POST /a/b?c=d HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-1\r\n\
                    Content-Length: 5\r\n\r\nhello";

#[test]
fn request_of_a_client_that_leaves_at_once_has_a_line() {
    // It never answers; only the client can end this.
    let upstream = Upstream::start(|mut socket| {
        let _ = socket.read_to_end(&mut Vec::new());
        String::new()
    });
    let elbows = Elbows::start(upstream.address, &[]);
    for number in 0..50 {
        let mut client = Client::plain(elbows.address);
        // In one piece, so that elbows finds request and end together.
        let request = format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send([PROXY_V1, request.as_bytes()].concat());
        drop(client);
        let line = elbows.access_log.wait_for(&format!(" /{number} "));
        assert_eq!((value(&line, "by"), value(&line, "why")), ("client", "closed"), "{line}");
    }
}

#[test]
fn long_request_line_is_cut_and_shows_it() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("ACCESS_LOG_QUERY", "on")]);
    // A request that passes, two whose target is too long, the second without an end, a query, and a handshake.
    let plain = |target: String| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let requests = [
        plain(format!("/a{}", "x".repeat(20_000))),
        plain(format!("/b{}", "x".repeat(40_000))),
        format!("GET /e{}", "x".repeat(40_000)),
        plain(format!("/c?{}", "x".repeat(20_000))),
        handshake(&format!("/d{}", "x".repeat(20_000))),
    ];
    for request in requests {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(&request);
        client.read_response();
        let line = elbows.access_log.wait_for(&request[..6]);
        let logged = value(&line, "request");
        assert_eq!(logged.len(), 1_024, "{line}");
        assert_eq!(logged, format!("{}...", &request[..1_021]));
    }
}

#[test]
fn text_line_of_a_request_has_every_field() {
    let upstream = taking_five();
    let elbows = Elbows::start(upstream.address, &[("ACCESS_LOG_QUERY", "on")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(POST);
    assert_eq!(client.read_response().status, 201);
    let line = elbows.access_log.wait_for("/a/b");
    let balancer = client.socket.local_addr().unwrap().to_string();
    let address = upstream.address.to_string();
    for (key, expected) in [
        ("client", "203.0.113.7:51234"),
        ("balancer", balancer.as_str()),
        ("request", "POST /a/b?c=d HTTP/1.1"),
        ("status", "201"),
        ("from_client", "5"),
        ("from_upstream", "3"),
        ("upstream", address.as_str()),
        ("by", "upstream"),
        ("during", "response"),
        ("why", "complete"),
        ("request_id", "id-1"),
    ] {
        assert_eq!(value(&line, key), expected, "{line}");
    }
    let duration: f64 = value(&line, "duration").parse().unwrap();
    assert!((0.0..20.0).contains(&duration), "{line}");
    assert!(upstream.seen().to_ascii_lowercase().contains("x-request-id: id-1\r\n"));
}

#[test]
fn json_line_of_a_request_has_every_field() {
    let upstream = taking_five();
    let elbows =
        Elbows::start(upstream.address, &[("ACCESS_LOG", "json"), ("ACCESS_LOG_QUERY", "on")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(POST);
    assert_eq!(client.read_response().status, 201);
    let line: Value = serde_json::from_str(&elbows.access_log.wait_for("/a/b")).unwrap();
    let keys: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 13, "{keys:?}");
    let balancer = client.socket.local_addr().unwrap().to_string();
    for (key, expected) in [
        ("client", Value::from("203.0.113.7:51234")),
        ("balancer", balancer.into()),
        ("request", "POST /a/b?c=d HTTP/1.1".into()),
        ("status", 201.into()),
        ("from_client", 5.into()),
        ("from_upstream", 3.into()),
        ("upstream", upstream.address.to_string().into()),
        ("by", "upstream".into()),
        ("during", "response".into()),
        ("why", "complete".into()),
        ("request_id", "id-1".into()),
    ] {
        assert_eq!(line[key], expected, "{line}");
    }
    assert!(line["duration"].as_f64().unwrap() >= 0.0);
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn tunnel_has_one_line_when_it_ends_with_bytes_of_both_ways() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(&[SWITCHING, b"early"].concat()).unwrap();
        socket.read_exact(&mut [0; 7]).unwrap();
        socket.write_all(&vec![b'x'; 100_000]).unwrap();
        head
    });
    for format in ["text", "json"] {
        let elbows = Elbows::start(upstream.address, &[("ACCESS_LOG", format)]);
        let mut client = Client::plain(elbows.address);
        client.send([PROXY_V1, handshake("/ws").as_bytes(), b"abc"].concat());
        assert_eq!(client.read_head().status, 101);
        client.read_exact(5);
        assert_eq!(elbows.access_log.all(), Vec::<String>::new(), "it has not ended");
        client.send(b"defg");
        client.read_exact(100_000);
        assert_eq!(client.read_to_end().unwrap(), b"");
        drop(client);
        let line = elbows.access_log.wait_for("GET /ws HTTP/1.1");
        let expected = if format == "text" {
            vec!["status=101 from_client=7 from_upstream=100005 ", " by=upstream during=relay "]
        } else {
            vec!["\"status\":101", "\"from_client\":7", "\"from_upstream\":100005"]
        };
        for part in expected {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(elbows.access_log.all().len(), 1);
    }
}

/// An application that opens a WebSocket with a subprotocol, and ends it when the client does.
fn choosing(subprotocol: &str) -> Upstream {
    let chosen = format!("101 Switching Protocols\r\nSec-WebSocket-Protocol: {subprotocol}");
    let answer = String::from_utf8_lossy(SWITCHING).replace("101 Switching Protocols", &chosen);
    Upstream::start(move |mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(answer.as_bytes()).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
        head
    })
}

/// A handshake with these field lines more, and the client once it was granted.
fn granted(elbows: &Elbows, target: &str, lines: &str) -> Client {
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake(target).replace("\r\nConnection", &format!("\r\n{lines}Connection")));
    assert_eq!(client.read_head().status, 101);
    client
}

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

#[test]
fn tunnel_says_who_asked_for_what_and_what_was_chosen() {
    let upstream = choosing("graphql-transport-ws");
    for format in ["text", "json"] {
        let elbows = Elbows::start(upstream.address, &[("ACCESS_LOG", format)]);
        let line = |target: &str, lines: &str| {
            drop(granted(&elbows, target, lines));
            elbows.access_log.wait_for(target)
        };
        let address = upstream.address.to_string();
        let agent = format!("User-Agent: {FIREFOX}\r\n");
        let hostile = "User-Agent: a\" host=\"evil\t\u{85}\u{202e}\r\n";
        let long = format!("user-agent: {}\r\n", "x".repeat(20_000));
        if format == "text" {
            let plain = line("/agent", &agent);
            for (key, expected) in [
                ("host", "shop.example"),
                ("user_agent", FIREFOX),
                ("subprotocol", "graphql-transport-ws"),
                ("upstream", &address),
            ] {
                assert_eq!(value(&plain, key), expected, "{plain}");
            }
            assert!(line("/none", "").contains(" user_agent=- subprotocol=\"graphql"));
            let escaped = " user_agent=\"a\\\" host=\\\"evil\\u0009\\u0085\\u202e\" subprotocol=";
            let line = line("/hostile", hostile);
            assert!(line.contains(escaped), "{line}");
            continue;
        }
        let parsed = |line: String| serde_json::from_str::<Value>(&line).unwrap();
        let plain = parsed(line("/agent", &agent));
        assert_eq!(plain["host"], "shop.example");
        assert_eq!(plain["user_agent"], FIREFOX);
        assert_eq!(plain["subprotocol"], "graphql-transport-ws");
        assert_eq!(plain["upstream"], *address);
        assert_eq!(parsed(line("/none", ""))["user_agent"], Value::Null);
        let hostile = parsed(line("/hostile", hostile));
        assert_eq!(hostile["user_agent"], "a\" host=\"evil\t\u{85}\u{202e}");
        let long = parsed(line("/long", &long));
        assert_eq!(long["user_agent"], format!("{}...", "x".repeat(509)));
    }
}

#[test]
fn tunnel_that_opens_has_a_line_that_joins_with_the_one_of_its_end() {
    let upstream = choosing("chat");
    for format in ["text", "json"] {
        let settings = [("ACCESS_LOG", format), ("ACCESS_LOG_OPEN", "on")];
        let elbows = Elbows::start(upstream.address, &settings);
        let agent = format!("User-Agent: {FIREFOX}\r\n");
        let clients = [granted(&elbows, "/a", &agent), granted(&elbows, "/b", &agent)];
        // They are open, and have a line.
        let opened = elbows
            .access_log
            .wait_until("two lines", |lines| (lines.len() == 2).then(|| lines.to_vec()));
        drop(clients);
        let all = elbows
            .access_log
            .wait_until("four lines", |lines| (lines.len() == 4).then(|| lines.to_vec()));
        for opened in opened {
            if format == "text" {
                let (_, rest) = opened.split_once(' ').unwrap();
                assert!(
                    rest.starts_with("event=open client=203.0.113.7:51234 balancer="),
                    "{opened}"
                );
                for key in ["from_client", "by", "why", "handoffs"] {
                    assert!(!opened.contains(&format!(" {key}=")), "{opened}");
                }
                let id = value(&opened, "request_id");
                let ended: Vec<_> =
                    all[2..].iter().filter(|line| value(line, "request_id") == id).collect();
                assert_eq!(ended.len(), 1, "{all:#?}");
                for key in OF_BOTH_LINES {
                    assert_eq!(value(&opened, key), value(ended[0], key), "{key}");
                }
            } else {
                let parsed = |line: &String| serde_json::from_str::<Value>(line).unwrap();
                let opened = parsed(&opened);
                assert_eq!(opened["event"], "open");
                let is_its_end = |line: &Value| line["request_id"] == opened["request_id"];
                let ended: Vec<_> = all[2..].iter().map(parsed).filter(is_its_end).collect();
                assert_eq!(ended.len(), 1, "{all:#?}");
                assert_eq!(ended[0]["event"], Value::Null);
                for key in OF_BOTH_LINES {
                    assert_eq!(opened[key], ended[0][key], "{key}");
                }
            }
        }
    }
}

#[test]
fn handshake_that_is_not_granted_opens_nothing() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("ACCESS_LOG_OPEN", "on")]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws"));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(client.get("/plain").status, 200);
    elbows.access_log.wait_for("/plain");
    let lines = elbows.access_log.all();
    assert!(lines.len() == 2 && !lines.concat().contains("event="), "{lines:#?}");
}

#[test]
fn off_writes_nothing() {
    let upstream = Upstream::answering(OK);
    let mut elbows = Elbows::start(upstream.address, &[("ACCESS_LOG", "off")]);
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
    assert_eq!(elbows.access_log.all(), Vec::<String>::new());
}

#[test]
fn client_cannot_forge_a_line_or_a_field() {
    let upstream = Upstream::answering(OK);
    for format in ["text", "json"] {
        let elbows = Elbows::start(upstream.address, &[("ACCESS_LOG", format)]);
        let targets: [&[u8]; 7] = [
            b"/a\" status=999 by=\"x",
            b"/\\\" client=1.2.3.4",
            b"/a\x0bb",
            b"/a\x00b",
            b"/\x1b[31mred",
            b"/\xc2\x85next\xe2\x80\xa8line\xe2\x80\xaemirrored",
            b"/quote\"inside",
        ];
        let ids: [&[u8]; 3] = [b"a b=c", b"a\tb", b"x\" by=\"y"];
        for target in targets {
            let mut client = Client::behind_balancer(elbows.address);
            client.send([b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
            client.read_head();
        }
        for id in ids {
            let mut client = Client::behind_balancer(elbows.address);
            client.send([b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: ", id, b"\r\n\r\n"].concat());
            client.read_head();
        }
        let all = targets.len() + ids.len();
        elbows.access_log.wait_until("a line each", |lines| (lines.len() >= all).then_some(()));
        let lines = elbows.access_log.all();
        assert_eq!(lines.len(), all, "{lines:#?}");
        for line in lines {
            let acts = |char: char| char.is_control() || "\u{2028}\u{202e}".contains(char);
            assert!(!line.chars().any(acts), "{line:?}");
            if format == "json" {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(line["client"], format!("{CLIENT}:51234"));
                continue;
            }
            // Fields outside of quotes are ours, each once.
            let unescaped = line.replace("\\\\", "").replace("\\\"", "");
            let outside: String = unescaped.split('"').step_by(2).collect();
            for key in ["client=", "status=", "by=", "why=", "request_id="] {
                let found = outside.split(' ').filter(|word| word.starts_with(key)).count();
                assert_eq!(found, 1, "{key} in {line}");
            }
        }
    }
}

#[test]
fn full_disk_costs_lines_and_ends_nothing() {
    let upstream = Upstream::answering(OK);
    let (command, address) = Elbows::prepare(Elbows::command(), upstream.address, &[]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let elbows = Elbows::spawn_to(command, address, full, Stdio::piped());
    let mut client = Client::behind_balancer(elbows.address);
    for _ in 0..100 {
        assert_eq!(client.get("/").status, 200);
    }
    elbows.wait_for_report("access_log_lines_dropped=100");
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn closed_standard_output_ends_nothing() {
    let upstream = Upstream::answering(OK);
    let (command, address) = Elbows::prepare(Elbows::command(), upstream.address, &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut elbows = Elbows::spawn_to(command, address, writer, Stdio::piped());
    let mut client = Client::behind_balancer(elbows.address);
    for _ in 0..100 {
        assert_eq!(client.get("/").status, 200);
    }
    elbows.wait_for_report("access_log_lines_dropped=100");
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
}

#[test]
fn blocked_standard_output_costs_lines_and_holds_up_nobody() {
    let upstream = Upstream::answering(OK);
    let (command, address) = Elbows::prepare(Elbows::command(), upstream.address, &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut elbows = Elbows::spawn_to(command, address, writer, Stdio::piped());
    let mut client = Client::behind_balancer(elbows.address);
    // 2 MiB wait, as much again may be on its way out, a pipe holds 64 KiB: 5,000 lines of 1.2 KB are more.
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1_000));
    for _ in 0..100 {
        client.send(long.repeat(50));
        for _ in 0..50 {
            assert_eq!(client.read_response().status, 200);
        }
    }
    let report = elbows.report();
    let dropped = number(&report, "access_log_lines_dropped");
    assert!((1_000..4_000).contains(&dropped), "{report}");
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
    elbows.log.wait_for("its last lines are lost");
    drop(reader);
}

#[test]
fn blocked_standard_error_holds_up_nobody() {
    let upstream = Upstream::answering(OK);
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let settings = [("ADMIN_LISTEN_ON", &*admin.port().to_string())];
    let (command, address) = Elbows::prepare(Elbows::command(), upstream.address, &settings);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut elbows = Elbows::spawn_to(command, address, Stdio::piped(), writer);
    // 2 MiB wait, as much again may be on its way out, a pipe holds 64 KiB. A summary is 1 KB and more; of
    // two signals at once one counts, so that it takes as long as it takes until lines are lost.
    let mut client = Client::behind_balancer(elbows.address);
    let is_lost = || {
        let metrics = ask(admin, "GET", "/metrics", "").text();
        let mut lines = metrics.lines();
        let number = lines.find_map(|line| line.strip_prefix("elbows_log_lines_dropped_total "));
        number.expect("how many lines were dropped").parse::<u64>().unwrap() > 0
    };
    for round in 0.. {
        assert!(round < 100, "no line is lost");
        for _ in 0..1_000 {
            elbows.signal(Signal::USR1);
            assert_eq!(client.get("/").status, 200);
        }
        if is_lost() {
            break;
        }
    }
    // Who reads on finds out that lines are missing.
    elbows.log = Lines::follow(reader);
    wait_until("a summary that tells of lost lines", || {
        // One that came too early was dropped as well.
        elbows.signal(Signal::USR1);
        elbows.log.all().iter().any(|line| {
            line.contains(" access_log_lines_dropped=0 log_lines_dropped=")
                && !line.contains(" log_lines_dropped=0 ")
        })
    });
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
}

byte_by_byte!({
    long_request_line_is_cut_and_shows_it,
    text_line_of_a_request_has_every_field,
    json_line_of_a_request_has_every_field,
    tunnel_has_one_line_when_it_ends_with_bytes_of_both_ways,
    tunnel_says_who_asked_for_what_and_what_was_chosen,
    tunnel_that_opens_has_a_line_that_joins_with_the_one_of_its_end,
    handshake_that_is_not_granted_opens_nothing,
    off_writes_nothing,
    client_cannot_forge_a_line_or_a_field,
} not {
    full_disk_costs_lines_and_ends_nothing: "it is about who reads the log, not about requests",
    closed_standard_output_ends_nothing: "it is about who reads the log, not about requests",
    blocked_standard_output_costs_lines_and_holds_up_nobody: "it is about who reads the log, not about requests",
    blocked_standard_error_holds_up_nobody: "it is about who reads the log, not about requests",
    request_of_a_client_that_leaves_at_once_has_a_line: "the request and the end have to come together",
});
