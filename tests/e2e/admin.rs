//! The port for operators: what it tells, what it does, and what comes to it.

mod crowd;
mod guard;
mod handoff;
pub(crate) mod metrics;
mod page;
mod tunnels;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::client::{Client, Response};
use crate::programs::{Program, python, wait_until};
use crate::proxy::{Elbows, free_port};
use crate::upstream::Upstream;
use crate::web_socket::{Tunnels, talk};

pub(crate) const TOKEN: &str = "s3cret-token-0123456789";

/// elbows with an admin port.
pub(crate) struct Admin {
    pub(crate) elbows: Elbows,
    pub(crate) address: SocketAddr,
}

impl Admin {
    pub(crate) fn start(upstream: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let port = address.port().to_string();
        let own = [("ADMIN_LISTEN_ON", &*port), ("ADMIN_TOKEN", TOKEN), ("THREADS", "2")];
        let elbows = Elbows::start(upstream, &[&own, settings].concat());
        // The others are bound first.
        wait_until("the admin port listens", || TcpStream::connect(address).is_ok());
        Self { elbows, address }
    }

    /// What a request with these further fields is answered.
    pub(crate) fn ask(&self, method: &str, target: &str, fields: &str) -> Response {
        ask(self.address, method, target, fields)
    }

    pub(crate) fn get(&self, target: &str) -> Value {
        let response = self.ask("GET", target, "");
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        json(&response)
    }

    fn change(&self, target: &str) -> Response {
        self.ask("POST", target, &format!("Authorization: Bearer {TOKEN}\r\n"))
    }

    fn tunnels(&self, query: &str) -> Vec<Value> {
        self.get(&format!("/api/tunnels{query}"))["tunnels"].as_array().unwrap().clone()
    }

    /// The one tunnel that there is.
    pub(crate) fn only_tunnel(&self) -> Value {
        let tunnels = self.tunnels("");
        assert_eq!(tunnels.len(), 1, "{tunnels:?}");
        tunnels[0].clone()
    }
}

pub(crate) fn ask(address: SocketAddr, method: &str, target: &str, fields: &str) -> Response {
    let mut client = Client::plain(address);
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n"
    ));
    if method == "HEAD" { client.read_head() } else { client.read_response() }
}

pub(crate) fn json(response: &Response) -> Value {
    assert_eq!(response.field("content-type"), Some("application/json"), "{}", response.head);
    serde_json::from_slice(&response.body).unwrap()
}

pub(crate) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn port_alone_is_open_to_this_machine_only_and_off_is_off() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[]);
    let listening = |pid| {
        let pid: rustix::process::Pid = pid;
        let table = format!("/proc/{}/net/tcp", pid.as_raw_nonzero());
        let port = format!(":{:04X} ", admin.address.port());
        let lines = fs::read_to_string(table).unwrap();
        let lines: Vec<_> =
            lines.lines().filter(|line| line.contains(" 0A ")).map(str::to_owned).collect();
        lines.into_iter().filter(|line| line.contains(&port)).collect::<Vec<_>>()
    };
    let lines = listening(admin.elbows.pid());
    assert!(lines.len() == 1 && lines[0].contains("0100007F:"), "{lines:?}");
    let effective = Elbows::command()
        .args(["check", "--admin-listen-on=9145", "--listen-on=1", "--destination-port=2"])
        .args(["--destination-hostname=127.0.0.1", &format!("--admin-token={TOKEN}")])
        .output()
        .unwrap();
    let printed = String::from_utf8(effective.stdout).unwrap();
    assert!(printed.contains("ADMIN_LISTEN_ON=127.0.0.1:9145\n"), "{printed}");
    assert!(printed.contains("ADMIN_TOKEN=(not shown)\n"), "{printed}");
}

#[test]
fn unix_socket_works_inside_of_the_sandbox_and_is_its_users_alone() {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    let directory = crate::handoff::directory();
    let path = directory.path().join("admin.sock");
    let place = path.to_str().unwrap();
    let _elbows = Elbows::start(Upstream::nobody(), &[("ADMIN_LISTEN_ON", place)]);
    wait_until("it listens", || UnixStream::connect(&path).is_ok());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut socket = UnixStream::connect(&path).unwrap();
    socket
        .write_all(b"GET /live HTTP/1.1\r\nHost: any.name.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"live\":true}"),
        "{answer}"
    );
}

/// Every answer, of real tunnels, against the schemas of the documents.
#[test]
fn each_answer_has_the_form_that_is_documented() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[("PING_INTERVAL", "100ms")]);
    let mut pair = application.open(&admin.elbows);
    talk(&mut pair, b"hello");
    // A Ping and its Pong.
    let ping = pair.0.read_frame();
    pair.0.send_frame(0xa, &ping.payload);
    wait_until("a round trip is known", || !admin.only_tunnel()["ping_rtt"].is_null());

    let mut events = Client::plain(admin.address);
    events.send(format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address));
    assert_eq!(events.read_head().field("content-type"), Some("text/event-stream"));
    let mut lines = Vec::new();
    let mut answer = |schema: &str, response: &Response| {
        lines.push(format!("{schema}\t{}", response.text()));
        response.status
    };
    let id = text(&admin.only_tunnel(), "id").to_owned();
    for (schema, target, status) in [
        ("live", "/live", 200),
        ("ready", "/ready", 200),
        ("summary", "/api/summary", 200),
        ("tunnels", "/api/tunnels", 200),
        ("tunnels", "/api/tunnels?sort=-age&limit=1", 200),
        ("tunnel", &format!("/api/tunnels/{id}"), 200),
        ("endpoints", "/api/endpoints", 200),
        ("fault", "/api/tunnels?limit=0", 400),
        ("fault", "/nothing", 404),
        ("fault", "/api/tunnels/0-0-0000000000000000", 404),
        ("fault", "/api/log?level=info", 405),
    ] {
        assert_eq!(answer(schema, &admin.ask("GET", target, "")), status, "{target}");
    }
    // One opens while somebody follows.
    let other = application.open(&admin.elbows);
    let all = admin.tunnels("");
    let opened = text(all.iter().find(|tunnel| text(tunnel, "id") != id).unwrap(), "id").to_owned();
    assert_eq!(answer("log", &admin.change("/api/log?level=debug")), 200);
    let closing = format!("/api/tunnels/{id}/close?code=4000&reason=go+home");
    assert_eq!(answer("closed", &admin.change(&closing)), 202);
    assert_eq!(answer("fault", &admin.change(&closing)), 409);
    let (mut client, mut upstream) = pair;
    let close = loop {
        let frame = client.read_frame();
        if frame.opcode == 8 {
            break frame;
        }
    };
    client.send_frame(8, &close.payload);
    drop(client);
    wait_until("the upstream hears of it", || upstream.read_frame().opcode == 8);
    drop((upstream, other));
    for wanted in ["summary", "opened", "ended", "summary"] {
        let seen = events.read_until(format!("event: {wanted}\n").as_bytes());
        assert!(!seen.is_empty());
        let data = String::from_utf8(events.read_until(b"\n\n")).unwrap();
        let data = data.trim().trim_start_matches("data: ");
        let its = serde_json::from_str::<Value>(data).unwrap()["id"].clone();
        match wanted {
            "opened" => assert_eq!(its, opened),
            // Which of the two is the first is nobody's promise.
            "ended" => assert!(its == *id || its == *opened, "{its}"),
            _ => {}
        }
        lines.push(format!("{wanted}\t{data}"));
    }

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), lines.join("\n")).unwrap();
    let mut command = python("schema_check.py");
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas");
    command.arg(schemas).arg(file.path());
    assert_eq!(Program::start(command).succeed("valid"), lines.len().to_string());
}

#[test]
fn ready_is_503_from_the_order_to_stop_on_and_live_goes_on() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[("DRAIN_DELAY", "20s")]);
    let _tunnel = application.open(&admin.elbows);
    assert_eq!(admin.ask("GET", "/ready", "").status, 200);
    admin.elbows.drain();
    let response = admin.ask("GET", "/ready", "");
    assert_eq!((response.status, text(&json(&response), "why")), (503, "draining"));
    assert_eq!(admin.ask("GET", "/live", "").status, 200);
    let metrics = admin.ask("GET", "/metrics", "").text();
    assert!(metrics.contains("\nelbows_draining 1\n"), "{metrics}");
}

#[test]
fn level_of_the_log_changes_while_it_runs() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[("LOG", "info")]);
    let refused = || {
        Client::behind_balancer(admin.elbows.address).get("/\u{1}");
        admin.elbows.log.all().iter().filter(|line| line.contains("refused:")).count()
    };
    assert_eq!(refused(), 0);
    assert_eq!(admin.change("/api/log?level=info,elbows%3Ddebug").status, 200);
    wait_until("a fault of a client is logged", || refused() > 0);
    for level in ["", "?level=loud", "?level=info&other=1", "?filter=info"] {
        let response = admin.change(&format!("/api/log{level}"));
        assert_eq!(response.status, 400, "{level}");
    }
}
