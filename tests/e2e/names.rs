//! The upstream's name: a resolver that fails, a name with a dead address, an application that is dead, and what the log
//! says of each.
//!
//! elbows runs in a mount namespace of its own, where `/etc/hosts` and `/etc/resolv.conf` are the test's. That needs
//! root and `unshare` (util-linux); without them the tests that need names are left out, and the run says so.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use test_support::left_out::left_out;

use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::proxy::{Elbows, PATIENCE, free_port};
use crate::upstream::{Upstream, try_read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The name of the application. Nobody else has one like it (RFC 6761, section 6.2).
const NAME: &str = "app.elbows.test";

/// What elbows' resolver knows.
struct Names(TempDir);

impl Names {
    /// `NAME` has these addresses. Says that the test is left out where that cannot be.
    fn of(addresses: &[&str]) -> Option<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "true"]).stderr(Stdio::null());
        if !unshare.status().is_ok_and(|status| status.success()) {
            left_out("this machine allows no mount namespaces (root and `unshare` are needed)");
            return None;
        }
        let names = Self(tempfile::tempdir().unwrap());
        // Nobody is there, and the kernel says so at once.
        fs::write(names.0.path().join("resolv.conf"), "nameserver 127.181.53.53\n").unwrap();
        names.set(addresses);
        Some(names)
    }

    /// From now on it has these; without any the resolver asks a name server, which does not answer.
    fn set(&self, addresses: &[&str]) {
        let lines = addresses.iter().map(|address| format!("{address} {NAME}\n"));
        // The same file, so that what is mounted changes.
        fs::write(self.0.path().join("hosts"), lines.collect::<String>()).unwrap();
    }

    /// elbows that knows these names, in front of `port`.
    fn elbows(&self, port: u16, settings: &[(&str, &str)]) -> Elbows {
        let mut shell = Command::new("/bin/sh");
        let mounted = "mount --bind \"$0/hosts\" /etc/hosts && \
            mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$1\"";
        shell
            .env_clear()
            .args(["-c", "exec unshare --mount --propagation private /bin/sh -c \"$0\" \"$@\""])
            .arg(mounted)
            .arg(self.0.path())
            .arg(env!("CARGO_BIN_EXE_elbows"));
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (mut command, address) = Elbows::prepare(shell, upstream, settings);
        command.env("DESTINATION_HOSTNAME", NAME);
        Elbows::spawn(command, address)
    }
}

/// So many times the same happens.
const MANY: usize = 30;

/// Waits for the line that tells of all but the first of them together, some ten seconds later.
fn wait_for_rest(elbows: &Elbows, of_what: &str, what: &str) {
    let rest = format!("{} {of_what}", MANY - 1);
    let is_it = |line: &&String| line.contains(&rest) && line.contains(what);
    elbows.log.wait_until(&rest, |lines| lines.iter().find(is_it).cloned());
}

/// The lines of the log that warn or are worse.
fn warnings(elbows: &Elbows) -> Vec<String> {
    let mut lines = elbows.log.all();
    lines.retain(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    lines
}

#[test]
fn outage_of_the_resolver_touches_no_request_and_is_warned_of() {
    let Some(names) = Names::of(&["127.0.0.1"]) else { return };
    let upstream = Upstream::answering(OK);
    let elbows = names.elbows(upstream.address.port(), &[("LOG", "info")]);
    let mut kept = Client::behind_balancer(elbows.address);
    assert_eq!(kept.get("/").status, 200);
    names.set(&[]);
    let ask = |kept: &mut Client| {
        assert_eq!(kept.get("/").status, 200);
        // On a connection of its own, towards the upstream too.
        let mut client = Client::behind_balancer(elbows.address);
        client.send(handshake("/ws"));
        assert_eq!(client.read_response().status, 200);
        // About as often as connections of an application come.
        thread::sleep(Duration::from_millis(50));
    };
    let told = format!("{NAME} does not resolve");
    wait_until("it is warned of", || {
        ask(&mut kept);
        warnings(&elbows).iter().any(|line| line.contains(&told))
    });
    let warned = Instant::now();
    while warned.elapsed() < Duration::from_secs(2) {
        ask(&mut kept);
    }
    let all = warnings(&elbows);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].contains("the last good answer is used until it does"), "{all:?}");
    names.set(&["127.0.0.1"]);
    wait_until("it is over", || {
        ask(&mut kept);
        elbows.log.all().iter().any(|line| line.contains(&format!("{NAME} resolves again")))
    });
}

#[test]
fn dead_first_address_costs_one_connection_its_time_and_no_other() {
    let Some(names) = Names::of(&["127.0.0.1", "127.0.0.2"]) else { return };
    // Nobody accepts at the first, and its queue of one is full: further SYNs are dropped.
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    dead.listen(0).unwrap();
    let first = dead.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(first).unwrap();
    let living = TcpListener::bind(SocketAddr::from(([127, 0, 0, 2], first.port()))).unwrap();
    thread::spawn(move || {
        for mut socket in living.incoming().map_while(Result::ok) {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || {
                while try_read_head(&mut socket).is_some() && socket.write_all(OK).is_ok() {}
            });
        }
    });
    let elbows = names.elbows(first.port(), &[("CONNECT_TIMEOUT", "4s")]);
    // Handshakes: each takes a connection of its own to the upstream.
    let ask = || {
        let start = Instant::now();
        let mut client = Client::behind_balancer(elbows.address);
        client.send(handshake("/ws"));
        assert_eq!(client.read_response().status, 200);
        start.elapsed()
    };
    let slow = ask();
    assert!(slow > Duration::from_millis(1_500), "{slow:?}: the dead address is not the first");
    for _ in 0..10 {
        let fast = ask();
        assert!(fast < Duration::from_secs(1), "{fast:?} behind {slow:?}");
    }
}

#[test]
fn dead_application_is_named_in_the_log_once_per_cause() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let settings = [("LOG", "info"), ("RESPONSE_HEAD_TIMEOUT", "100ms")];
    let elbows = Elbows::start(address, &settings);
    let ask = |status| {
        for _ in 0..MANY {
            assert_eq!(Client::behind_balancer(elbows.address).get("/").status, status);
        }
    };
    // Nobody listens.
    ask(502);
    let line = elbows.log.wait_for("a request got 502: ");
    assert!(line.contains(" WARN ") && line.contains(&address.to_string()), "{line}");
    assert!(line.contains("refused"), "it says why: {line}");
    assert_eq!(warnings(&elbows).len(), 1);
    // It listens and says nothing: that is another cause.
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for (before, mut socket) in listener.incoming().map_while(Result::ok).enumerate() {
            thread::spawn(move || {
                // Until elbows gives up.
                while try_read_head(&mut socket).is_some() {
                    if before >= MANY && socket.write_all(OK).is_err() {
                        break;
                    }
                }
            });
        }
    });
    ask(504);
    let line = elbows.log.wait_for("a request got 504: ");
    assert!(line.contains(" WARN "), "{line}");
    // It answers again.
    ask(200);
    // Those that came behind the first of each cause are told together.
    for status in [502, 504] {
        wait_for_rest(&elbows, "requests in ", &format!("got {status}: "));
    }
    assert_eq!(warnings(&elbows).len(), 4, "{:?}", warnings(&elbows));
    wait_until("it is over", || {
        ask(200);
        elbows.log.all().iter().any(|line| line.contains("the upstream answers again"))
    });
    assert_eq!(warnings(&elbows).len(), 4, "{:?}", warnings(&elbows));
}

#[test]
fn refused_proxy_headers_are_named_in_the_log_once() {
    let elbows = Elbows::start(Upstream::nobody(), &[("LOG", "info")]);
    for _ in 0..MANY {
        let mut client = Client::plain(elbows.address);
        client.send("PROXY TCP4 nonsense\r\n");
        // Nothing is answered.
        assert!(client.read_to_end().unwrap_or_default().is_empty());
    }
    let line = elbows.log.wait_for("a connection refused because of the PROXY header: ");
    assert!(line.contains(" WARN ") && line.contains("from 127.0.0.1:"), "{line}");
    wait_for_rest(&elbows, "connections in ", " refused because of the PROXY header: ");
    assert_eq!(warnings(&elbows).len(), 2, "{:?}", warnings(&elbows));
}
