//! Sides that are cut off: packets go nowhere, and nobody says so. And a machine that is out of ports.
//!
//! Client, elbows and upstream live in network namespaces of their own, behind a router that can stop
//! forwarding for one of them: no reset, no ICMP, as when a machine or a network is gone. That needs
//! root and `ip` (iproute2); without them these tests are left out, and the run says so.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use test_support::left_out::{is_long_run, left_out};

use crate::client::{Client, handshake};
use crate::proxy::{Elbows, PATIENCE};
use crate::upstream::read_head;
use crate::web_socket::{BINARY, Peer, TEXT, Tunnels};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The namespaces, and the addresses in them. The last one is the router.
const CLIENT: u8 = 1;
const UPSTREAM: u8 = 2;
const ELBOWS: u8 = 3;
const ROUTER: u8 = 4;

/// Three namespaces around a router.
struct Net {
    name: String,
}

impl Net {
    /// Lays it, or says that the test is left out.
    fn lay() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let net = Self { name: format!("elbows-test-{}-{number}", std::process::id()) };
        let mut batch = format!("netns add {}\n", net.space(ROUTER));
        for end in [CLIENT, UPSTREAM, ELBOWS] {
            let (space, router) = (net.space(end), net.space(ROUTER));
            let _ = write!(
                batch,
                "netns add {space}\n\
                 link add to{end} netns {router} type veth peer name eth0 netns {space}\n\
                 -n {space} address add 10.181.{end}.1/24 dev eth0\n\
                 -n {space} link set lo up\n\
                 -n {space} link set eth0 up\n\
                 -n {space} route add default via 10.181.{end}.2\n\
                 -n {router} address add 10.181.{end}.2/24 dev to{end}\n\
                 -n {router} link set to{end} up\n"
            );
        }
        let laid = batch.lines().all(ip);
        if laid && net.set(ROUTER, "ip_forward", "1") {
            return Some(net);
        }
        left_out("this machine allows no network namespaces (root and `ip` are needed)");
        None
    }

    fn space(&self, end: u8) -> String {
        format!("{}-{end}", self.name)
    }

    /// Runs it in the namespace. Threads and processes that it starts are there too.
    fn within<T: Send>(&self, end: u8, run: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let space = File::open(format!("/run/netns/{}", self.space(end))).unwrap();
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                run()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets a setting of the kernel's, `net.ipv4.…`. Says whether it could.
    fn set(&self, end: u8, setting: &str, value: &str) -> bool {
        let path = format!("/proc/sys/net/ipv4/{setting}");
        self.within(end, || std::fs::write(path, value).is_ok())
    }

    /// From now on nothing gets to this end or comes from it, and nobody is told.
    fn cut(&self, end: u8) {
        assert!(self.set(ROUTER, &format!("conf/to{end}/forwarding"), "0"));
        assert!(ip(&format!("-n {} route add blackhole 10.181.{end}.1/32", self.space(ROUTER))));
    }

    /// elbows in its namespace, in front of the upstream's port.
    fn elbows(&self, upstream: SocketAddr, settings: &[(&str, &str)]) -> Elbows {
        self.within(ELBOWS, || {
            let address = SocketAddr::new(address(ELBOWS), 45400);
            let (mut command, _) = Elbows::prepare(Elbows::command(), upstream, settings);
            command.env("LISTEN_ON", address.to_string());
            Elbows::spawn(command, address)
        })
    }

    /// A client in its namespace.
    fn client(&self, elbows: &Elbows) -> Client {
        let address = elbows.address;
        self.within(CLIENT, || Client::behind_balancer(address))
    }

    /// An open tunnel: the client's end and the application's.
    fn open(&self, tunnels: &Tunnels, elbows: &Elbows) -> (Peer, Peer) {
        let mut client = self.client(elbows);
        client.send(handshake("/ws"));
        let upstream = tunnels.accept();
        assert_eq!(client.read_head().status, 101);
        (Peer::client(client), upstream)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for end in [CLIENT, UPSTREAM, ELBOWS, ROUTER] {
            ip(&format!("netns del {}", self.space(end)));
        }
    }
}

fn address(end: u8) -> IpAddr {
    Ipv4Addr::new(10, 181, end, 1).into()
}

/// Runs `ip`; whether it succeeded.
fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An upstream of plain requests in its namespace.
fn plain_upstream(net: &Net, serve: fn(&mut TcpStream)) -> SocketAddr {
    net.within(UPSTREAM, || {
        let listener = TcpListener::bind((address(UPSTREAM), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(&mut socket));
            }
        });
        address
    })
}

#[test]
fn client_that_vanished_is_noticed_by_ping() {
    let Some(net) = Net::lay() else { return };
    let tunnels = net.within(UPSTREAM, || Tunnels::start_at(address(UPSTREAM)));
    let settings = [("PING_INTERVAL", "300ms"), ("PONG_TIMEOUT", "700ms")];
    let elbows = net.elbows(tunnels.address, &settings);
    let (_client, mut upstream) = net.open(&tunnels, &elbows);
    net.cut(CLIENT);
    let line = elbows.access_log.wait_for("/ws");
    assert!(line.contains("by=client during=relay why=timeout"), "{line}");
    // The application hears of it.
    upstream.expect_close(1001);
    elbows.wait_for_report("open=0");
}

#[test]
fn upstream_that_vanished_is_noticed_by_ping() {
    let Some(net) = Net::lay() else { return };
    let tunnels = net.within(UPSTREAM, || Tunnels::start_at(address(UPSTREAM)));
    let settings =
        [("PING_INTERVAL", "off"), ("PING_UPSTREAM_INTERVAL", "300ms"), ("PONG_TIMEOUT", "700ms")];
    let elbows = net.elbows(tunnels.address, &settings);
    let (mut client, _upstream) = net.open(&tunnels, &elbows);
    net.cut(UPSTREAM);
    let line = elbows.access_log.wait_for("/ws");
    assert!(line.contains("by=upstream during=relay why=timeout"), "{line}");
    client.expect_close(1001);
    elbows.wait_for_report("open=0");
}

#[test]
fn side_that_vanished_is_noticed_by_what_it_does_not_acknowledge() {
    let settings = [("PING_INTERVAL", "off"), ("STALL_TIMEOUT", "1s")];
    for cut in [CLIENT, UPSTREAM] {
        let Some(net) = Net::lay() else { return };
        let tunnels = net.within(UPSTREAM, || Tunnels::start_at(address(UPSTREAM)));
        let elbows = net.elbows(tunnels.address, &settings);
        let (mut client, mut upstream) = net.open(&tunnels, &elbows);
        net.cut(cut);
        // The kernel takes it: to elbows it is as good as delivered.
        let (sender, by) =
            if cut == CLIENT { (&mut upstream, "client") } else { (&mut client, "upstream") };
        sender.send_frame(TEXT, "is anybody there?");
        let line = elbows.access_log.wait_for("/ws");
        assert!(line.contains(&format!("by={by} during=relay why=timeout")), "{line}");
        elbows.wait_for_report("open=0");
    }
}

#[test]
fn side_that_vanished_while_much_waits_for_it_is_noticed() {
    let settings = [("PING_INTERVAL", "off"), ("STALL_TIMEOUT", "1s")];
    let Some(net) = Net::lay() else { return };
    let tunnels = net.within(UPSTREAM, || Tunnels::start_at(address(UPSTREAM)));
    let elbows = net.elbows(tunnels.address, &settings);
    let (client, upstream) = net.open(&tunnels, &elbows);
    net.cut(CLIENT);
    let frame = upstream.frame(0x80 | BINARY, vec![0; 60_000]);
    while (&upstream.socket).write_all(&frame).is_ok() {}
    let line = elbows.access_log.wait_for("/ws");
    assert!(line.contains("by=client during=relay why="), "{line}");
    assert!(line.contains("why=timeout") || line.contains("why=stalled"), "{line}");
    elbows.wait_for_report("open=0");
    drop(client);
}

#[test]
fn client_that_vanished_from_its_response_is_noticed() {
    let Some(net) = Net::lay() else { return };
    // An event now and then, as long as somebody takes them.
    let upstream = plain_upstream(&net, |socket| {
        read_head(socket);
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").unwrap();
        while socket.write_all(b"event").is_ok() {
            // Its pace: the wire is cut between two of them.
            thread::sleep(Duration::from_millis(100));
        }
    });
    let elbows = net.elbows(upstream, &[("STALL_TIMEOUT", "1s")]);
    let mut client = net.client(&elbows);
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_until(b"event");
    net.cut(CLIENT);
    let line = elbows.access_log.wait_for("/x");
    assert!(line.contains("by=client during=response why=stalled"), "{line}");
    elbows.wait_for_report("open=0");
    drop(client);
}

#[test]
fn upstream_that_vanished_is_504() {
    let settings =
        [("CONNECT_TIMEOUT", "500ms"), ("RESPONSE_HEAD_TIMEOUT", "20s"), ("STALL_TIMEOUT", "1s")];
    let Some(net) = Net::lay() else { return };
    let upstream = plain_upstream(&net, |socket| {
        loop {
            read_head(socket);
            socket.write_all(OK).unwrap();
        }
    });
    let elbows = net.elbows(upstream, &settings);
    let mut client = net.client(&elbows);
    assert_eq!(client.get("/first").status, 200);
    elbows.access_log.wait_for("/first");
    net.cut(UPSTREAM);
    // On a connection that was open already, and then on one that never opens.
    assert_eq!(client.get("/open").status, 504);
    let line = elbows.access_log.wait_for("/open");
    assert!(line.contains("by=upstream during=request why=timeout"), "{line}");
    assert_eq!(client.get("/new").status, 504);
    client.send(handshake("/ws"));
    assert_eq!(client.read_response().status, 504);
    for path in ["/new", "/ws"] {
        let line = elbows.access_log.wait_for(path);
        assert!(line.contains("by=upstream during=") && line.contains("why=timeout"), "{line}");
    }
}

#[test]
fn silent_side_that_vanished_is_noticed_by_keepalive() {
    // From 60 s of silence on it is asked; an answer has 15 s.
    if !is_long_run("more than a minute") {
        return;
    }
    let settings = [("PING_INTERVAL", "off")];
    let Some(net) = Net::lay() else { return };
    let tunnels = net.within(UPSTREAM, || Tunnels::start_at(address(UPSTREAM)));
    let elbows = net.elbows(tunnels.address, &settings);
    let _kept = net.open(&tunnels, &elbows);
    net.cut(UPSTREAM);
    for _ in 0..6 * PATIENCE.as_secs() {
        // The kernel takes longer than a log line is waited for.
        thread::sleep(Duration::from_secs(1));
        if !elbows.access_log.all().is_empty() {
            break;
        }
    }
    let line = elbows.access_log.wait_for("/ws");
    assert!(line.contains("by=upstream during=relay why=timeout"), "{line}");
}

#[test]
fn out_of_ports_towards_the_upstream_is_503_and_passes() {
    const PORTS: usize = 4;
    let Some(net) = Net::lay() else { return };
    assert!(net.set(ELBOWS, "ip_local_port_range", "40000 40003"));
    let tunnels = net.within(UPSTREAM, || Tunnels::start_at(address(UPSTREAM)));
    let elbows = net.elbows(tunnels.address, &[]);
    let mut open: Vec<_> = (0..PORTS).map(|_| net.open(&tunnels, &elbows)).collect();
    for request in [handshake("/ws"), String::from("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")] {
        let mut refused = net.client(&elbows);
        refused.send(request);
        let response = refused.read_response();
        assert_eq!(response.status, 503, "{}", response.head);
        assert_eq!(response.field("retry-after"), Some("1"));
    }
    elbows.log.wait_for("no room for a connection to 10.181.2.1:");
    elbows.access_log.wait_for("by=elbows during=handshake why=no_room");
    elbows.access_log.wait_for("by=elbows during=request why=no_room");
    elbows.wait_for_report("no_room=2");
    // Those that are open go on.
    for (client, upstream) in &mut open {
        client.send_frame(TEXT, "hello");
        upstream.expect(TEXT, "hello");
    }
    // A port that is free again is used. It is at once where the upstream closes first.
    let (client_end, upstream_end) = open.pop().unwrap();
    drop(upstream_end);
    drop(client_end);
    elbows.wait_for_report("tunnels_open=3");
    open.push(net.open(&tunnels, &elbows));
}
