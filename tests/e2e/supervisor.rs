//! What starts elbows and watches it: the listeners that it is passed, what it tells its supervisor, and the files for
//! systemd and Kubernetes in `deploy`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;
use test_support::left_out::left_out;

use crate::client::Client;
use crate::programs::{peer, python};
use crate::proxy::{Elbows, PATIENCE, free_port};
use crate::upstream::Upstream;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// elbows, to be started with listeners at these addresses.
fn activated(listeners: &[SocketAddr]) -> Command {
    let listeners: Vec<_> = listeners.iter().map(ToString::to_string).collect();
    let mut command = python("socket_activation.py");
    command.env_clear().arg(listeners.join(",")).arg(env!("CARGO_BIN_EXE_elbows"));
    command
}

#[test]
fn listeners_that_are_passed_are_served_and_nothing_is_bound() {
    let upstream = Upstream::answering(OK);
    let (main, health) = (free_address(), free_address());
    let (mut command, _) = Elbows::prepare(activated(&[health, main]), upstream.address, &[]);
    command.env("LISTEN_ON", main.to_string()).env("HEALTH_LISTEN_ON", health.to_string());
    // Another one that listens there would not be let: both are taken.
    let mut elbows = Elbows::spawn(command, main);
    elbows.log.wait_for(&format!("HEALTH_LISTEN_ON: the listener at {health} was passed"));
    elbows.log.wait_for(&format!("listening on {main}"));
    assert_eq!(Client::behind_balancer(main).get("/").status, 200);
    assert!(upstream.seen().starts_with("GET / "));
    assert_eq!(Client::plain(health).get("/ping").status, 200);
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
}

#[test]
fn listener_that_no_setting_names_ends_it_with_its_address() {
    let (main, other) = (free_address(), free_address());
    let upstream = Upstream::nobody();
    let (mut command, _) = Elbows::prepare(activated(&[main, other]), upstream, &[]);
    let output = command.env("LISTEN_ON", main.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("a listener at {other} was passed")), "{said}");
}

#[test]
fn first_connection_starts_it_by_systemd() {
    let upstream = Upstream::answering(OK);
    let address = free_address();
    let mut command = Command::new("systemd-socket-activate");
    command.env_clear().arg(format!("--listen={address}"));
    for (variable, value) in [
        ("LISTEN_ON", address.to_string()),
        ("DESTINATION_HOSTNAME", upstream.address.ip().to_string()),
        ("DESTINATION_PORT", upstream.address.port().to_string()),
        ("DRAIN_DELAY", "0s".to_owned()),
    ] {
        command.arg(format!("--setenv={variable}={value}"));
    }
    command.arg(env!("CARGO_BIN_EXE_elbows"));
    let mut elbows = Elbows::spawn(command, address);
    assert_eq!(Client::behind_balancer(address).get("/").status, 200);
    elbows.log.wait_for("was passed (LISTEN_FDS)");
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
}

/// Where a supervisor listens, for `NOTIFY_SOCKET`.
struct Supervisor {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Supervisor {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// The next thing that it is told.
    fn told(&self) -> String {
        let mut room = [0; 500];
        let length = self.socket.recv(&mut room).expect("it is told something");
        String::from_utf8(room[..length].to_vec()).unwrap()
    }
}

#[test]
fn supervisor_is_told_when_it_serves_and_when_it_drains() {
    let upstream = Upstream::answering(OK);
    let supervisor = Supervisor::new();
    let path = supervisor.path();
    let settings = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut elbows = Elbows::start(upstream.address, &settings);
    assert_eq!(supervisor.told(), "READY=1\nSTATUS=serving");
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    elbows.signal(Signal::TERM);
    assert_eq!(supervisor.told(), "STOPPING=1\nSTATUS=draining");
    assert_eq!(elbows.wait().code(), Some(0));
}

/// Each instance has a supervisor of its own, as two units have.
#[test]
fn supervisors_are_told_when_one_process_takes_over_from_another() {
    let upstream = Upstream::answering(OK);
    let (before, after) = (Supervisor::new(), Supervisor::new());
    let socket = before.directory.path().join("handoff.sock");
    let start = |supervisor: &Supervisor, address: SocketAddr| {
        let (mut command, _) = Elbows::prepare(Elbows::command(), upstream.address, &[]);
        command
            .env("LISTEN_ON", address.to_string())
            .env("HANDOFF_SOCKET", &socket)
            .env("NOTIFY_SOCKET", supervisor.path());
        Elbows::spawn(command, address)
    };
    let address = free_address();
    let mut old = start(&before, address);
    assert_eq!(before.told(), "READY=1\nSTATUS=serving");
    let mut new = start(&after, address);
    assert_eq!(after.told(), "READY=1\nSTATUS=serving");
    assert_eq!(before.told(), "STOPPING=1\nSTATUS=handed over");
    assert_eq!(old.wait().code(), Some(0));
    assert_eq!(Client::behind_balancer(address).get("/").status, 200);
    new.signal(Signal::TERM);
    assert_eq!(after.told(), "STOPPING=1\nSTATUS=draining");
    assert_eq!(new.wait().code(), Some(0));
}

#[test]
fn supervisor_that_does_not_listen_is_told_of_at_the_start() {
    // It would serve for ever where it did not look.
    let mut timeout = Command::new("timeout");
    timeout.env_clear().arg("60").arg(env!("CARGO_BIN_EXE_elbows"));
    let (mut command, _) = Elbows::prepare(timeout, Upstream::nobody(), &[]);
    let output = command.env("NOTIFY_SOCKET", "/nowhere/notify").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("NOTIFY_SOCKET"), "{output:?}");
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// The units as they are, but for the path of the binary.
fn units(directory: &Path) {
    let read = |name: &str| fs::read_to_string(deploy("systemd").join(name)).unwrap();
    let service = read("elbows@.service");
    let start = "ExecStart=/usr/local/bin/elbows\n";
    assert!(service.contains(start));
    let ours = format!("ExecStart={}\n", env!("CARGO_BIN_EXE_elbows"));
    fs::write(directory.join("elbows@.service"), service.replace(start, &ours)).unwrap();
    fs::write(directory.join("elbows.socket"), read("elbows.socket")).unwrap();
    let more = "elbows@.service.d/socket.conf";
    fs::create_dir(directory.join("elbows@.service.d")).unwrap();
    fs::write(directory.join(more), read(more)).unwrap();
}

#[test]
fn units_are_ones_that_systemd_takes() {
    let directory = tempfile::tempdir().unwrap();
    units(directory.path());
    for unit in ["elbows@.service", "elbows@b.service", "elbows.socket"] {
        let mut verify = Command::new("systemd-analyze");
        let output = verify.args(["verify", "--man=no"]).arg(directory.path().join(unit)).output();
        let output = output.expect("there is systemd-analyze; `cargo xtask test` installs it");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("elbows"), "{unit}: {said}");
    }
}

/// What the process needs of the units for a handoff, and what it needs of the times.
#[test]
fn units_fit_to_a_handoff_and_a_drain() {
    let unit = fs::read_to_string(deploy("systemd/elbows@.service")).unwrap();
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    let seconds = |key: &str| value(key).parse::<u32>().unwrap();
    assert_eq!((value("Type"), value("NotifyAccess")), ("notify", "main"));
    assert_eq!((value("RuntimeDirectoryMode"), value("RuntimeDirectoryPreserve")), ("0700", "yes"));
    let socket = format!("HANDOFF_SOCKET=/run/{}/", value("RuntimeDirectory"));
    assert!(value("Environment").starts_with(&socket));
    // What has handed over, or has drained, stays down.
    assert_eq!(value("Restart"), "on-failure");
    // OFFER 1 s, PREPARED 30 s, and what then moves.
    assert!(seconds("TimeoutStartSec") >= 60);
    // The defaults of a drain: 2 s, 5 s, 2 s and 0.3 s.
    assert!(seconds("TimeoutStopSec") >= 10);
}

#[test]
fn files_for_kubernetes_are_what_the_process_needs() {
    let python = Command::new("/usr/bin/python3")
        .arg(peer("kubernetes.py"))
        .args([deploy("kubernetes/pod.yaml"), deploy("kubernetes/daemonset.yaml")])
        .output()
        .expect("there is python3; `cargo xtask test` installs it");
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let not_tried = String::from_utf8_lossy(&python.stdout);
    if !not_tried.is_empty() {
        left_out(not_tried.trim());
    }
}
