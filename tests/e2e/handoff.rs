//! Handoff: a new process takes over from the one that serves, and no tunnel notices.

mod chain;
mod faults;
mod panics;
mod real_peers;
mod refusals;
mod relay;
mod scarcity;
mod settings;
mod silence;
mod skew;
mod states;
mod stays;
mod three;
mod times;
mod under_load;
mod under_way;
mod verdicts;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::client::{Client, handshake};
use crate::proxy::{Elbows, free_port};
use crate::upstream::{SWITCHING, Upstream};
use crate::web_socket::{Tunnels, talk, value};

/// Processes that hand over to each other: one directory, one address.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) address: SocketAddr,
    upstream: SocketAddr,
}

impl Place {
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        let directory = directory();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        Self { directory, address, upstream }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("handoff.sock")
    }

    pub(crate) fn command(&self, settings: &[(&str, &str)]) -> Command {
        self.command_of(Elbows::command(), settings)
    }

    /// The same of another binary.
    pub(crate) fn command_of(&self, binary: Command, settings: &[(&str, &str)]) -> Command {
        let (mut command, _) = Elbows::prepare(binary, self.upstream, &[]);
        command
            .env("LISTEN_ON", self.address.to_string())
            .env("HANDOFF_SOCKET", self.socket())
            .envs(settings.iter().copied());
        command
    }

    /// The first process.
    fn start(&self, settings: &[(&str, &str)]) -> Elbows {
        Elbows::spawn(self.command(settings), self.address)
    }

    /// A process that takes over, once it serves.
    pub(crate) fn take_over(&self, settings: &[(&str, &str)]) -> Elbows {
        let new = Elbows::spawn(self.command(settings), self.address);
        new.log.wait_for("listening on");
        new
    }

    /// The same, and the process before has moved all that it had and ended.
    fn hand_over(&self, old: &mut Elbows, settings: &[(&str, &str)]) -> Elbows {
        let new = self.take_over(settings);
        assert_eq!(old.wait().code(), Some(0));
        new.log.wait_for("handoff from=");
        new
    }
}

/// A directory that is nobody else's.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    directory
}

/// Whether a process is gone, but for its exit code.
fn has_ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // Behind the name, which may hold anything (proc_pid_stat(5)).
    stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// A number of the line that tells of a handoff.
fn number(line: &str, name: &str) -> u64 {
    value(line, name).parse().unwrap_or_else(|_| panic!("{name} in {line}"))
}

#[test]
fn tunnels_go_on_in_the_new_process_and_the_old_one_ends() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&[]);
    let mut tunnels: Vec<_> = (0..100).map(|_| application.open(&old)).collect();
    for (number, tunnel) in tunnels.iter_mut().enumerate() {
        talk(tunnel, format!("before {number}"));
    }
    let mut new = place.take_over(&[]);
    let line = new.log.wait_for("handoff from=");
    assert_eq!((number(&line, "moved"), number(&line, "refused")), (100, 0));
    assert_eq!(old.wait().code(), Some(0));
    let line = old.log.wait_for("handoff to=");
    assert_eq!((number(&line, "moved"), number(&line, "refused")), (100, 0));
    for (number, tunnel) in tunnels.iter_mut().enumerate() {
        talk(tunnel, format!("after {number}"));
    }
    tunnels.push(application.open(&new));
    for (mut client, mut application) in tunnels {
        client.send_close(4001);
        application.expect_close(4001);
        application.send_close(4001);
        client.expect_close(4001);
        application.finish();
        client.finish();
    }
    let lines = new
        .access_log
        .wait_until("101 lines", |lines| (lines.len() == 101).then(|| lines.to_vec()));
    let handed: Vec<_> = lines.iter().map(|line| value(line, "handoffs")).collect();
    assert_eq!(handed.iter().filter(|number| **number == "1").count(), 100);
    assert!(lines.iter().all(|line| value(line, "close_code") == "4001"), "{}", lines[0]);
    assert!(old.access_log.all().is_empty(), "no tunnel ended there");
    new.signal(Signal::TERM);
    assert_eq!(new.wait().code(), Some(0));
}

/// It has a line where it opened, and one where it ended.
#[test]
fn what_a_handshake_said_is_told_where_its_tunnel_ends() {
    let chosen = "101 Switching Protocols\r\nSec-WebSocket-Protocol: chat";
    let answer = String::from_utf8_lossy(SWITCHING).replace("101 Switching Protocols", chosen);
    let upstream = Upstream::answering(answer);
    let place = Place::new(upstream.address);
    let settings = [("ACCESS_LOG_OPEN", "on"), ("TRACE_CONTEXT", "make")];
    let mut old = place.start(&settings);
    let mut client = Client::behind_balancer(old.address);
    client.send(handshake("/ws").replace("\r\nConn", "\r\nUser-Agent: a \"b\"\r\nConn"));
    assert_eq!(client.read_head().status, 101);
    let opened = old.access_log.wait_for("event=open");
    let new = place.hand_over(&mut old, &settings);
    drop(client);
    let ended = new.access_log.wait_for("GET /ws");
    assert_eq!((value(&ended, "handoffs"), new.access_log.all().len()), ("1", 1), "{ended}");
    for key in ["request_id", "host", "subprotocol", "trace_id"] {
        assert_eq!(value(&opened, key), value(&ended, key), "{key}");
    }
    let told = r#" host="shop.example" user_agent="a \"b\"" subprotocol="chat" trace_id="#;
    assert!(opened.contains(told) && ended.contains(told), "{opened}\n{ended}");
}
