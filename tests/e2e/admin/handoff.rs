//! The admin port goes to the new process with the others.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{TOKEN, ask, json, number, talk, text};
use crate::client::Client;
use crate::programs::wait_until;
use crate::proxy::{Elbows, free_port};
use crate::web_socket::{CLOSE, CONTINUATION, TEXT, Tunnels};

/// Processes that hand over to each other, with an admin port at these places in turn.
struct Processes {
    application: Tunnels,
    directory: tempfile::TempDir,
    main: SocketAddr,
}

impl Processes {
    fn new() -> Self {
        let directory = crate::handoff::directory();
        let main = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        Self { application: Tunnels::start(), directory, main }
    }

    fn start(&self, admin: &str) -> Elbows {
        self.start_with(admin, &[])
    }

    fn start_with(&self, admin: &str, settings: &[(&str, &str)]) -> Elbows {
        Elbows::spawn(self.command(admin, settings), self.main)
    }

    /// One that may not come to serve.
    fn prepare(&self, admin: &str) -> Elbows {
        Elbows::spawn_unready(self.command(admin, &[]), self.main)
    }

    fn command(&self, admin: &str, settings: &[(&str, &str)]) -> Command {
        let (mut command, _) =
            Elbows::prepare(Elbows::command(), self.application.address, settings);
        command
            .env("LISTEN_ON", self.main.to_string())
            .env("ADMIN_LISTEN_ON", admin)
            .env("HANDOFF_SOCKET", self.directory.path().join("handoff.sock"));
        command
    }

    fn take_over(&self, old: &mut Elbows, admin: &str) -> Elbows {
        let new = self.start(admin);
        new.log.wait_for("handoff from=");
        assert_eq!(old.wait().code(), Some(0));
        new
    }
}

/// The process that answers at a UNIX socket.
fn pid_at(path: &Path) -> Option<u64> {
    let mut socket = UnixStream::connect(path).ok()?;
    let request = b"GET /api/summary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    socket.write_all(request).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str::<serde_json::Value>(body).ok()?["pid"].as_u64()
}

fn pid(elbows: &Elbows) -> Option<u64> {
    elbows.pid().as_raw_nonzero().get().try_into().ok()
}

#[test]
fn socket_at_a_path_moves_and_another_path_is_another_socket() {
    let processes = Processes::new();
    let path = |name: &str| processes.directory.path().join(name);
    let (one, other) = (path("one.sock"), path("other.sock"));
    let mut first = processes.start(one.to_str().unwrap());
    wait_until("the first answers", || pid_at(&one) == pid(&first));
    let mut second = processes.take_over(&mut first, one.to_str().unwrap());
    assert_eq!(pid_at(&one), pid(&second));
    // Another setting, none, and one again, inside of the sandbox each.
    let mut third = processes.take_over(&mut second, other.to_str().unwrap());
    assert_eq!((pid_at(&one), pid_at(&other)), (None, pid(&third)));
    let told = |path: &Path, what| {
        third.log.wait_for(&format!("ADMIN_LISTEN_ON={}: {what}", path.display()))
    };
    told(&other, "listening there, too, from the handoff on");
    told(&one, "no longer a setting, and closed");
    let mut fourth = processes.take_over(&mut third, "off");
    assert_eq!((pid_at(&one), pid_at(&other)), (None, None));
    let fifth = processes.take_over(&mut fourth, one.to_str().unwrap());
    assert_eq!(pid_at(&one), pid(&fifth));
}

/// It is bound before anything moves, so that one that cannot be bound ends the new process and nothing else.
#[test]
fn path_that_cannot_be_bound_is_no_handoff() {
    let processes = Processes::new();
    let path = |name: &str| processes.directory.path().join(name);
    let (one, other) = (path("one.sock"), path("other.sock"));
    let old = processes.start(one.to_str().unwrap());
    let mut pair = processes.application.open(&old);
    let _somebody = UnixListener::bind(&other).unwrap();
    let mut new = processes.prepare(other.to_str().unwrap());
    assert_eq!(new.wait().code(), Some(1));
    new.log.wait_for("ADMIN_LISTEN_ON");
    old.log.wait_for("aborted why=ended given=0 back=0");
    talk(&mut pair, b"as if nothing had been");
    assert_eq!(pid_at(&one), pid(&old));
}

#[test]
fn close_that_was_ordered_says_its_reason_in_the_new_process() {
    let settings = [("ADMIN_TOKEN", TOKEN)];
    let processes = Processes::new();
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut old = processes.start_with(&admin.to_string(), &settings);
    let (mut client, mut upstream) = processes.application.open(&old);
    upstream.send(upstream.frame(TEXT, "begins"));
    assert_eq!(client.read_frame().payload, b"begins");
    let tunnels = json(&ask(admin, "GET", "/api/tunnels", ""));
    let id = text(&tunnels["tunnels"][0], "id").to_owned();
    let order = format!("/api/tunnels/{id}/close?code=4000&reason=go+home");
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(ask(admin, "POST", &order, &token).status, 202);
    let new = processes.take_over(&mut old, &admin.to_string());
    upstream.send(upstream.frame(0x80 | CONTINUATION, "ends"));
    assert_eq!(client.read_frame().payload, b"ends");
    let close = client.read_frame();
    assert_eq!(close.opcode, CLOSE);
    assert_eq!(close.payload, [&4000_u16.to_be_bytes()[..], b"go home"].concat());
    client.send_frame(CLOSE, &close.payload);
    assert_eq!(upstream.read_frame().opcode, CLOSE);
    drop((client, upstream));
    let line = new.access_log.wait_for("why=ordered");
    assert!(line.contains("handoffs=1"), "{line}");
}

/// Tunnels have other places there: a list that went on would leave some out and repeat others.
#[test]
fn list_does_not_go_on_in_another_process() {
    let processes = Processes::new();
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut old = processes.start(&admin.to_string());
    let _tunnels: Vec<_> = (0..3).map(|_| processes.application.open(&old)).collect();
    let list =
        |query: &str| ask(admin, "GET", &format!("/api/tunnels?limit=2&sort=age{query}"), "");
    let behind = |first: &serde_json::Value| format!("&cursor={}", text(first, "next"));
    let first = json(&list(""));
    assert_eq!(json(&list(&behind(&first)))["tunnels"].as_array().unwrap().len(), 1);
    let _new = processes.take_over(&mut old, &admin.to_string());
    let refused = list(&behind(&first));
    assert_eq!(refused.status, 410);
    assert!(text(&json(&refused), "error").contains("begin anew"), "{}", refused.text());
    let first = json(&list(""));
    assert_eq!(json(&list(&behind(&first)))["tunnels"].as_array().unwrap().len(), 1);
}

#[test]
fn port_is_never_closed_and_the_new_process_tells_of_the_tunnels() {
    let processes = Processes::new();
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut old = processes.start(&admin.to_string());
    let mut pair = processes.application.open(&old);
    talk(&mut pair, b"before");
    let tunnels = |address| json(&ask(address, "GET", "/api/tunnels", ""));
    let before = tunnels(admin)["tunnels"][0].clone();
    let mut follower = Client::plain(admin);
    follower.send(format!("GET /api/events HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    assert_eq!(follower.read_head().status, 200);

    let (is_over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let knocking = thread::spawn({
        let (is_over, refused) = (Arc::clone(&is_over), Arc::clone(&refused));
        move || {
            while !is_over.load(Ordering::Relaxed) {
                if TcpStream::connect(admin).is_err() {
                    refused.store(true, Ordering::Relaxed);
                }
            }
        }
    });
    let _new = processes.take_over(&mut old, &admin.to_string());
    is_over.store(true, Ordering::Relaxed);
    knocking.join().unwrap();
    assert!(!refused.load(Ordering::Relaxed), "the port was closed");
    // Its stream ended with the old process's turn.
    drop(follower.read_to_end());

    wait_until("the new process has the tunnel", || number(&tunnels(admin), "open") == 1);
    let after = tunnels(admin)["tunnels"][0].clone();
    assert_eq!(text(&after, "request_id"), text(&before, "request_id"));
    assert_eq!(number(&after, "handoffs"), 1);
    assert_eq!(number(&after, "messages_from_client"), 1);
    // What was counted elsewhere is not counted again.
    let messages = || {
        let summary = json(&ask(admin, "GET", "/api/summary", ""));
        (number(&summary, "messages_from_client"), number(&summary, "payload_from_client"))
    };
    assert_eq!(messages(), (0, 0));
    talk(&mut pair, b"after");
    assert_eq!(messages(), (1, 5));
    let summary = json(&ask(admin, "GET", "/api/summary", ""));
    assert_eq!((number(&summary, "handed_in"), number(&summary, "connections")), (1, 0));
}

#[test]
fn who_keeps_a_connection_to_a_process_that_stays_is_sent_to_the_new_one() {
    let stays = [("HANDOFF_STAY", "on")];
    let processes = Processes::new();
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let old = processes.start_with(&admin.to_string(), &stays);
    wait_until("the admin port listens", || TcpStream::connect(admin).is_ok());
    let mut kept = Client::plain(admin);
    kept.send(format!("GET /live HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    assert_eq!(kept.read_response().status, 200);
    let new = processes.start_with(&admin.to_string(), &stays);
    new.log.wait_for("handoff from=");
    old.log.wait_for("stays idle until it is told to stop");
    assert_eq!(kept.read_to_end().unwrap(), b"");
    let summary = json(&ask(admin, "GET", "/api/summary", ""));
    assert_eq!(Some(number(&summary, "pid")), pid(&new));
}
