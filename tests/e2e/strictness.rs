//! HTTP/1.1 strictness: a message that two readers could read differently is refused or given one
//! meaning, never passed on. The application behind the proxy reads by RFC 9112 and nothing else.
//!
//! nginx and `HAProxy` get the same table, for the comparison in `docs/security.md`. With
//! `ELBOWS_WRITE_DOCS=1` the tables there are written anew.

mod cases;
mod reader;

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use elbows::http::head::Fault;
use tempfile::TempDir;
use test_support::left_out::left_out;

use self::reader::{Message, Read};
use crate::client::{Client, PROXY_V1, handshake};
use crate::programs::Program;
use crate::proxy::{Elbows, PATIENCE, free_port};

/// Bytes, and what must come of them.
pub struct Case {
    name: &'static str,
    section: &'static str,
    bytes: Vec<u8>,
    expected: Expected,
}

/// What must come of a message.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// A request: this status, and the upstream hears nothing of it.
    Refused(u16),
    /// A request: the proxy itself is asked, and answers with this status.
    Answered(u16),
    /// A request: this status, and the upstream never gets all of it.
    Cut(u16),
    /// It arrives with one meaning. Its head has these parts, and not those, its body is this.
    Passes { shows: &'static [&'static str], hides: &'static [&'static str], body: &'static str },
    /// A response: 502.
    Bad,
    /// A response: what the client gets does not look complete.
    CutBody,
    /// A response: a tunnel.
    Opens,
}

/// What an upstream answers.
pub struct Reply {
    case: Case,
    asked: Asked,
}

/// By what kind of request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    Plain,
    Upgrade,
}

/// What an application saw.
#[derive(Debug)]
#[allow(dead_code)] // Shown where a test fails.
enum Seen {
    Request(Message),
    Unclear(String),
    /// What it ended with.
    Part(Vec<u8>),
}

/// The application: reads strictly, answers each request, keeps its connections.
pub struct Application {
    pub address: SocketAddr,
    seen: Receiver<Seen>,
}

impl Application {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = channel();
        thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let mut buffer = vec![0; 65_536];
                    while let Ok(read @ 1..) = socket.read(&mut buffer) {
                        bytes.extend_from_slice(&buffer[..read]);
                        while !bytes.is_empty() {
                            let answer = match reader::request(&bytes) {
                                Read::Part => break,
                                Read::Whole(message, used) => {
                                    bytes.drain(..used);
                                    let _ = sender.send(Seen::Request(message));
                                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                                }
                                Read::Unclear(why) => {
                                    let _ = sender.send(Seen::Unclear(why));
                                    bytes.clear();
                                    "HTTP/1.1 599 Unclear\r\nConnection: close\r\n\
                                     Content-Length: 0\r\n\r\n"
                                }
                            };
                            if socket.write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                        }
                    }
                    if !bytes.is_empty() {
                        let _ = sender.send(Seen::Part(bytes));
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// What was seen since the last look.
    fn seen(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

/// Sends `bytes` behind a PROXY header and reads the answer as far as it goes: until a whole response,
/// the end of the connection, or `patience` is over.
fn exchange(proxy: SocketAddr, bytes: &[u8], patience: Duration) -> (Vec<u8>, Ended) {
    exchange_in(Pieces::Whole, proxy, &[PROXY_V1, bytes].concat(), patience)
}

/// How bytes are sent.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    Whole,
    /// Each byte by itself; of very many bytes, more at a time.
    Single,
}

/// The same without the header.
fn exchange_in(
    pieces: Pieces,
    proxy: SocketAddr,
    bytes: &[u8],
    patience: Duration,
) -> (Vec<u8>, Ended) {
    let mut socket = TcpStream::connect(proxy).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.set_write_timeout(Some(patience)).unwrap();
    let length = match pieces {
        Pieces::Whole => bytes.len().max(1),
        Pieces::Single => 1 + bytes.len() / 2_000,
    };
    // Who refuses early may have closed by now.
    let _ = bytes.chunks(length).try_for_each(|piece| socket.write_all(piece));
    let mut answer = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return (answer, Ended::Closed),
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return (answer, Ended::Waits);
            }
            Err(_) => return (answer, Ended::Reset),
        }
        let mut rest = &answer[..];
        while let Read::Whole(message, used) = reader::response(rest, false) {
            if !message.head.starts_with("HTTP/1.1 1") || message.head.contains(" 101 ") {
                return (answer, Ended::Whole);
            }
            rest = &rest[used..];
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Whole,
    Closed,
    Reset,
    Waits,
}

fn status(answer: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(answer);
    text.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

/// What a proxy makes of a request, in a word or two.
fn of_request(proxy: SocketAddr, app: &Application, case: &Case, patience: Duration) -> String {
    of_request_in(Pieces::Whole, proxy, app, case, patience)
}

/// The same of one that is sent in such pieces.
fn of_request_in(
    pieces: Pieces,
    proxy: SocketAddr,
    app: &Application,
    case: &Case,
    patience: Duration,
) -> String {
    app.seen();
    let (answer, ended) = exchange_in(pieces, proxy, &[PROXY_V1, &case.bytes].concat(), patience);
    let seen = app.seen();
    let whole: Vec<_> = seen
        .iter()
        .filter_map(|seen| if let Seen::Request(message) = seen { Some(message) } else { None })
        .collect();
    if seen.iter().any(|seen| matches!(seen, Seen::Unclear(_))) {
        return String::from("unclear");
    }
    match (&whole[..], status(&answer)) {
        ([], Some(status)) => status.to_string(),
        ([], None) if ended == Ended::Waits => String::from("waits"),
        ([], None) => String::from("closes"),
        ([message], Some(200)) => match passed(message, case.expected) {
            Some(Err(why)) => format!("passes, {why}"),
            Some(Ok(())) | None => String::from("passes"),
        },
        ([_], _) => String::from("passes, and fails"),
        (several, _) => format!("passes as {}", several.len()),
    }
}

/// Whether a message arrived as it must, where it must.
fn passed(message: &Message, expected: Expected) -> Option<Result<(), &'static str>> {
    let Expected::Passes { shows, hides, body } = expected else { return None };
    let head = message.head.to_lowercase();
    let has = |part: &&str| head.contains(&part.to_lowercase());
    let everything = String::from_utf8_lossy(&message.body);
    Some(if !shows.iter().all(has) {
        Err("changed")
    } else if hides.iter().any(has) || hides.iter().any(|part| everything.contains(part)) {
        Err("with it")
    } else if message.body != body.as_bytes() {
        Err("another body")
    } else {
        Ok(())
    })
}

fn required(expected: Expected) -> String {
    match expected {
        Expected::Refused(status) | Expected::Answered(status) | Expected::Cut(status) => {
            status.to_string()
        }
        Expected::Passes { .. } => String::from("passes"),
        Expected::Bad => String::from("502"),
        Expected::CutBody => String::from("cut"),
        Expected::Opens => String::from("opens"),
    }
}

/// Asks a proxy in front of `app` for each case. Where it does something else than it must, there is a line.
pub fn wrong_requests(proxy: SocketAddr, app: &Application) -> String {
    let mut wrong = String::new();
    let mut number = 0;
    for (topic, cases) in cases::requests() {
        for case in cases {
            number += 1;
            for pieces in [Pieces::Whole, Pieces::Single] {
                let did = of_request_in(pieces, proxy, app, &case, PATIENCE);
                if did != required(case.expected) {
                    let Case { name, expected, .. } = &case;
                    writeln!(wrong, "{topic}: {name}, {pieces:?}: {did}, not {expected:?}")
                        .unwrap();
                }
            }
        }
    }
    assert!(number >= 150, "{number} cases");
    wrong
}

#[test]
fn requests_have_one_meaning_or_are_refused() {
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    let wrong = wrong_requests(elbows.address, &app);
    assert!(wrong.is_empty(), "{wrong}");
    // No rule is without a case, a counter and a line with its name.
    let report = elbows.report();
    let counted: Vec<_> = http_faults(&report).collect();
    let rules = Fault::ALL.into_iter().filter(|fault| *fault != Fault::StatusLine);
    let names: Vec<_> = counted.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(names, rules.map(Fault::as_str).collect::<Vec<_>>());
    let log = elbows.log.all();
    for (rule, times) in counted {
        let name = format!("rule=\"{rule}\"");
        let lines = log.iter().filter(|line| line.contains(" DEBUG ") && line.contains(&name));
        assert_eq!(lines.count(), times, "{rule}");
    }
}

/// The rules of HTTP that were broken, and how often.
fn http_faults(report: &str) -> impl Iterator<Item = (&str, usize)> {
    let (_, faults) = report.split_once(" http_faults=").unwrap();
    let faults = faults.split(' ').next().unwrap().split(',');
    faults.map(|fault| {
        let (rule, times) = fault.split_once(':').unwrap();
        (rule, times.parse().unwrap())
    })
}

#[test]
fn nothing_of_a_refused_head_reaches_the_upstream() {
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    let mut refused = 0;
    for case in cases::requests().into_iter().flat_map(|(_, cases)| cases) {
        if matches!(case.expected, Expected::Refused(_)) {
            let (answer, _) = exchange(elbows.address, &case.bytes, PATIENCE);
            let answer = String::from_utf8_lossy(&answer).to_lowercase();
            assert!(answer.contains("connection: close"), "{}: {answer}", case.name);
            refused += 1;
        }
    }
    // All of it has been read and answered: whatever came of it is there before this.
    let mut client = Client::behind_balancer(elbows.address);
    assert_eq!(client.get("/last").status, 200);
    let seen = app.seen();
    assert!(
        matches!(&seen[..], [Seen::Request(last)] if last.head.starts_with("GET /last ")),
        "{seen:?}"
    );
    elbows.wait_for_report(&format!("refused_heads={refused}"));
}

#[test]
fn each_broken_rule_is_counted_and_logged_by_name() {
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    for (number, (bytes, rule)) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "no_host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "folding"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "several_lengths",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk_size"),
        (b"GET / HTTP/3.0\r\n", "version"),
    ]
    .into_iter()
    .enumerate()
    {
        exchange(elbows.address, bytes, PATIENCE);
        elbows.log.wait_for(&format!("rule=\"{rule}\""));
        let report = elbows.report();
        let (_, faults) = report.split_once(" http_faults=").unwrap();
        let faults: Vec<_> = faults.split(' ').next().unwrap().split(',').collect();
        assert!(faults.contains(&format!("{rule}:1").as_str()), "{report}");
        assert_eq!(faults.len(), number + 1, "{report}");
    }
}

/// A head that is wrong already, before its line ends, is not waited for.
#[test]
fn wrong_head_is_refused_at_once_however_it_comes() {
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    for (bytes, refused) in [
        (&b"GET / HTTP/5.6"[..], 505),
        (b"GET / HTTP/1.10", 400),
        (b"GET /#", 400),
        (b"GET /\x01", 400),
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\r\n Host: a", 400),
        (b"GET / HTTP/1.1\r\nX: b\x01", 400),
        (b"GET / HTTP/1.1\r\nX ", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy", 400),
    ] {
        for pieces in [Pieces::Whole, Pieces::Single] {
            // One that was waited for would be answered with 408.
            let sent = [PROXY_V1, bytes].concat();
            let (answer, _) = exchange_in(pieces, elbows.address, &sent, PATIENCE);
            let name = bytes.escape_ascii();
            assert_eq!(status(&answer), Some(refused), "{name}, {pieces:?}");
        }
    }
}

#[test]
fn health_port_refuses_by_the_same_rules_and_counts_them() {
    let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let settings = [("HEALTH_LISTEN_ON", &*health.to_string())];
    let reports = [false, true].map(|on_health_port| {
        let app = Application::start();
        let elbows = Elbows::start(app.address, &settings);
        let mut refused = 0;
        for case in cases::requests().into_iter().flat_map(|(_, cases)| cases) {
            let Expected::Refused(status) = case.expected else { continue };
            let (answer, _) = if on_health_port {
                exchange_in(Pieces::Whole, health, &case.bytes, PATIENCE)
            } else {
                exchange(elbows.address, &case.bytes, PATIENCE)
            };
            assert_eq!(self::status(&answer), Some(status), "{}", case.name);
            let answer = String::from_utf8_lossy(&answer).to_lowercase();
            assert!(answer.contains("connection: close"), "{}: {answer}", case.name);
            refused += 1;
        }
        let report = elbows.wait_for_report(&format!("refused_heads={refused}"));
        if on_health_port {
            elbows.log.wait_for("rule=\"several_lengths\"");
            assert!(elbows.access_log.all().is_empty(), "checks have no lines");
        }
        http_faults(&report).map(|(rule, times)| (rule.to_owned(), times)).collect::<Vec<_>>()
    });
    assert_eq!(reports[0], reports[1]);
}

#[test]
fn answers_come_before_the_refusal_of_what_follows() {
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    let ok = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n";
    for bad in ["GET /two HTTP/1.1\r\n\r\n", "\n", "GET /two HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"]
    {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(format!("{ok}{ok}{bad}{ok}"));
        assert_eq!(client.read_response().status, 200, "{bad}");
        assert_eq!(client.read_response().status, 200, "{bad}");
        let last = client.read_response();
        assert_eq!((last.status, last.field("connection")), (400, Some("close")), "{bad}");
        assert_eq!(client.read_to_end().unwrap(), b"");
        assert_eq!(app.seen().len(), 2, "{bad}");
    }
}

#[test]
fn upgrade_behind_a_request_waits_for_its_turn() {
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(format!(
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\n{}GET /three HTTP/1.1\r\nHost: a\r\n\r\n",
        handshake("/two")
    ));
    // The strict application opens no WebSocket, so that the connection lives on.
    for _ in 0..3 {
        assert_eq!(client.read_response().status, 200);
    }
    let seen = app.seen();
    let [Seen::Request(one), Seen::Request(two), Seen::Request(three)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert!(one.head.starts_with("GET /one "), "{seen:?}");
    assert!(
        two.head.starts_with("GET /two ") && two.head.contains("Upgrade: websocket"),
        "{seen:?}"
    );
    assert!(three.head.starts_with("GET /three "), "{seen:?}");
}

#[test]
fn head_in_single_bytes_is_the_same_head() {
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX: 1\r\n\r\n";
    for _ in 0..2 {
        for byte in request.as_bytes() {
            client.send([*byte]);
        }
        assert_eq!(client.read_response().status, 200);
        let seen = app.seen();
        assert!(matches!(&seen[..], [Seen::Request(one)] if one.body == b"hello"), "{seen:?}");
    }
}

/// An application that answers every request head with `bytes` and closes.
fn answering(bytes: &[u8]) -> SocketAddr {
    answering_with(&Arc::new(Mutex::new(bytes.to_vec())))
}

/// The same; what it answers can change from one request to the next.
pub fn answering_with(bytes: &Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = Arc::clone(bytes);
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            if crate::upstream::try_read_head(&mut socket).is_some() {
                let bytes = bytes.lock().unwrap().clone();
                let _ = socket.write_all(&bytes);
                let _ = socket.shutdown(Shutdown::Write);
                // Until the proxy closes as well, so that nothing is reset.
                let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
                let _ = socket.read(&mut [0; 1024]);
            }
        }
    });
    address
}

/// What a proxy makes of a response, in a word.
fn of_response(proxy: SocketAddr, reply: &Reply, patience: Duration) -> String {
    let request = match reply.asked {
        Asked::Plain => String::from("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        Asked::Upgrade => handshake("/x"),
    };
    let (answer, ended) = exchange(proxy, request.as_bytes(), patience);
    if answer.is_empty() {
        return String::from(if ended == Ended::Waits { "waits" } else { "closes" });
    }
    let mut rest = &answer[..];
    loop {
        let closed = matches!(ended, Ended::Closed | Ended::Whole);
        return match reader::response(rest, closed) {
            Read::Unclear(_) => String::from("unclear"),
            Read::Part => String::from("cut"),
            Read::Whole(message, used) => match status(rest) {
                Some(101) => {
                    let head = message.head.to_lowercase();
                    let framed = head.contains("content-length") || head.contains("transfer-enc");
                    String::from(if framed { "opens, with it" } else { "opens" })
                }
                Some(100..200) => {
                    rest = &rest[used..];
                    continue;
                }
                Some(status @ (400.. | 502)) if status != 426 => status.to_string(),
                _ => match passed(&message, reply.case.expected) {
                    Some(Err(why)) => format!("passes, {why}"),
                    _ => String::from("passes"),
                },
            },
        };
    }
}

/// Lets an application answer with each case behind the proxy that `start` makes for it, and that lives as long as its
/// second value. Where the proxy does something else than it must, there is a line.
pub fn wrong_responses<T>(mut start: impl FnMut(&[u8]) -> (SocketAddr, T)) -> String {
    let mut wrong = String::new();
    for reply in cases::responses() {
        let (proxy, _lives) = start(&reply.case.bytes);
        let did = of_response(proxy, &reply, PATIENCE);
        // Where all of it came at once, the connection may end before the head goes out.
        let cut = matches!(reply.case.expected, Expected::CutBody) && did == "closes";
        if did != required(reply.case.expected) && !cut {
            let Case { name, expected, .. } = reply.case;
            writeln!(wrong, "{:?}: {name}: {did}, not {expected:?}", reply.asked).unwrap();
        }
    }
    wrong
}

#[test]
fn responses_have_one_meaning_or_are_502() {
    let wrong = wrong_responses(|bytes| {
        let elbows = Elbows::start(answering(bytes), &[]);
        (elbows.address, elbows)
    });
    assert!(wrong.is_empty(), "{wrong}");
}

/// nginx for the same job.
fn nginx(upstream: SocketAddr) -> (Program, SocketAddr, TempDir) {
    let dir = TempDir::new().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let files = dir.path().display();
    let config = format!(
        "daemon off; master_process off; pid {files}/pid; error_log stderr crit;\n\
         events {{ worker_connections 500; }}\n\
         http {{\n\
         access_log off; client_body_temp_path {files}/a; proxy_temp_path {files}/b;\n\
         fastcgi_temp_path {files}/c; uwsgi_temp_path {files}/d; scgi_temp_path {files}/e;\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         server {{\n\
         listen {address} proxy_protocol;\n\
         location / {{\n\
         proxy_pass http://{upstream}; proxy_http_version 1.1;\n\
         proxy_set_header Host $http_host;\n\
         proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection $connection_upgrade;\n\
         proxy_set_header X-Forwarded-For $proxy_protocol_addr;\n\
         proxy_set_header X-Real-IP $proxy_protocol_addr;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $http_host;\n\
         proxy_set_header X-Forwarded-Port $proxy_protocol_server_port;\n\
         proxy_set_header X-Request-Id $request_id;\n\
         }}\n}}\n}}\n"
    );
    fs::write(dir.path().join("config"), config).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command.args(["-e", "stderr", "-p"]).arg(dir.path()).arg("-c").arg(dir.path().join("config"));
    (Program::start(command).listening(address), address, dir)
}

/// `HAProxy` for the same job.
fn haproxy(upstream: SocketAddr) -> (Program, SocketAddr, TempDir) {
    let dir = TempDir::new().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let config = format!(
        "global\n maxconn 1000\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         listen clients\n bind {address} accept-proxy\n\
         \x20http-request set-header X-Forwarded-For %[src]\n\
         \x20http-request set-header X-Real-IP %[src]\n\
         \x20http-request set-header X-Forwarded-Proto http\n\
         \x20http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20http-request set-header X-Forwarded-Port %[dst_port]\n\
         \x20http-request set-header X-Request-Id %[uuid]\n\
         \x20server app {upstream}\n"
    );
    fs::write(dir.path().join("config"), config).unwrap();
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(dir.path().join("config"));
    (Program::start(command).listening(address), address, dir)
}

/// The version that a program says it has.
fn version(program: &str, start: &str) -> String {
    let output = Command::new(program).arg("-v").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("{program} says {text}"));
    rest.split([' ', '-', '\n']).next().unwrap().to_owned()
}

/// How long a peer may be silent before it is said to wait.
const SILENCE: Duration = Duration::from_secs(3);

/// How often another proxy is asked when the tables are written: where it breaks off, what it has sent on by then
/// is a matter of moments, and its cell has every word that came. When the tables are checked it is asked once.
const TRIES: usize = 5;

/// The tables of `docs/security.md`, as they come out now. What another proxy does is one of the words
/// that `documented` has for it, or else all that was seen.
fn tables(documented: &[&str]) -> String {
    let versions = [version("/usr/sbin/nginx", "nginx/"), version("/usr/sbin/haproxy", "version ")];
    let head = format!("elbows | nginx {} | HAProxy {}", versions[0], versions[1]);
    let mut text = format!("| request | section | {head} |\n|---|---|---|---|---|\n");
    let app = Application::start();
    let elbows = Elbows::start(app.address, &[]);
    let (nginx_app, haproxy_app) = (Application::start(), Application::start());
    let nginx_runs = nginx(nginx_app.address);
    let haproxy_runs = haproxy(haproxy_app.address);
    for (topic, cases) in cases::requests() {
        writeln!(text, "| **{topic}** | | | | |").unwrap();
        for case in cases {
            let known = row_of(&case, text.lines().count(), documented);
            let row = [
                of_request(elbows.address, &app, &case, PATIENCE),
                seen(cell(known, NGINX), || of_request(nginx_runs.1, &nginx_app, &case, SILENCE)),
                seen(cell(known, HAPROXY), || {
                    of_request(haproxy_runs.1, &haproxy_app, &case, SILENCE)
                }),
            ];
            writeln!(text, "{}", line_of(&case, &row)).unwrap();
        }
    }
    writeln!(text, "\n| response | section | {head} |\n|---|---|---|---|---|").unwrap();
    for (asked, topic) in [(Asked::Plain, "to a request"), (Asked::Upgrade, "to an upgrade")] {
        writeln!(text, "| **{topic}** | | | | |").unwrap();
        for reply in cases::responses().iter().filter(|reply| reply.asked == asked) {
            let known = row_of(&reply.case, text.lines().count(), documented);
            let upstream = answering(&reply.case.bytes);
            let elbows = Elbows::start(upstream, &[]);
            let (nginx_runs, haproxy_runs) = (nginx(upstream), haproxy(upstream));
            let did = |proxy, patience| {
                let did = of_response(proxy, reply, patience);
                // Which of them it is depends on how its bytes came.
                match reply.case.expected {
                    Expected::CutBody if did == "closes" || did == "502" => String::from("cut"),
                    _ => did,
                }
            };
            let row = [
                did(elbows.address, PATIENCE),
                seen(cell(known, NGINX), || did(nginx_runs.1, SILENCE)),
                seen(cell(known, HAPROXY), || did(haproxy_runs.1, SILENCE)),
            ];
            writeln!(text, "{}", line_of(&reply.case, &row)).unwrap();
        }
    }
    text
}

/// Where the cells of a row are.
const NGINX: usize = 4;
const HAPROXY: usize = 5;

/// The documented row of a case, which is this line. Empty if the tables are written anew.
fn row_of<'d>(case: &Case, line: usize, documented: &[&'d str]) -> &'d str {
    if documented.is_empty() {
        return "";
    }
    let row = documented.get(line).copied().unwrap_or_default();
    let begin = format!("| {} |", escaped(case));
    assert!(row.starts_with(&begin), "the document has {row:?} where the row {begin} belongs");
    row
}

fn escaped(case: &Case) -> String {
    case.name.replace('|', "\\|")
}

/// A cell of a documented row.
fn cell(row: &str, column: usize) -> &str {
    // A name may have the sign in it, escaped: counted from the other end.
    row.rsplit('|').nth(6 - column).unwrap_or_default().trim()
}

/// What another proxy does: `documented`, if that has the word for what comes out, or else every word that came.
fn seen(documented: &str, mut ask: impl FnMut() -> String) -> String {
    let mut words: Vec<String> = Vec::new();
    for _ in 0..if documented.is_empty() { TRIES } else { 1 } {
        let did = ask();
        if documented.split(" or ").any(|word| word == did) {
            return documented.to_owned();
        }
        if !words.contains(&did) {
            words.push(did);
        }
    }
    words.sort();
    words.join(" or ")
}

fn line_of(case: &Case, row: &[String; 3]) -> String {
    let name = escaped(case);
    format!("| {name} | {} | {} | {} | {} |", case.section, row[0], row[1], row[2])
}

#[test]
fn documented_tables_are_what_comes_out() {
    const BEGIN: &str = "<!-- cases: written by `tests/e2e/strictness.rs` -->\n";
    const END: &str = "<!-- end of cases -->";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let document = fs::read_to_string(&file).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the document has a place for them");
    let (documented, after) = rest.split_once(END).expect("which ends");
    if std::env::var_os("ELBOWS_WRITE_DOCS").is_some() {
        fs::write(&file, [before, BEGIN, &tables(&[]), END, after].concat()).unwrap();
        return;
    }
    let documented: Vec<_> = documented.lines().collect();
    let now = tables(&documented);
    let now: Vec<_> = now.lines().collect();
    assert_eq!(documented.len(), now.len(), "each case has its row");
    // Other versions of the others do other things; ours are held in any case.
    let same = documented[0] == now[0];
    if !same {
        left_out(
            "nginx and HAProxy are not of the versions that docs/security.md has: only our column is held",
        );
    }
    let held = |row: &str| -> String {
        let mut cells: Vec<_> = row.rsplit('|').collect();
        cells.drain(..if same { 0 } else { 3.min(cells.len()) });
        cells.join("|")
    };
    let headings = |row: &str| row.contains("| nginx ");
    let differ = documented
        .iter()
        .zip(&now)
        .filter(|(old, new)| (same || !headings(old)) && held(old) != held(new));
    let differ: Vec<_> = differ.collect();
    assert!(differ.is_empty(), "documented, and what comes out: {differ:#?}");
}
