//! "At 3 in the morning" (`docs/operations.md`), row by row: the fault is made, and what the row says to look at shows it.
//!
//! Rows are read from the document, so that a metric or a line of the log that is called otherwise one day fails here. A row
//! that says `metric` means that its number is there and not 0; `log` and `access log`, that a line has these words.

use std::collections::BTreeSet;
use std::io;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Prometheus, operations};
use crate::admin::{Admin, ask, number};
use crate::client::{Client, handshake, other_handshake};
use crate::endpoints::Balancer;
use crate::endpoints::application::{Application, Does};
use crate::handoff::Place;
use crate::mistakes;
use crate::programs::wait_until;
use crate::proxy::{Elbows, PATIENCE, free_port};
use crate::upstream::{Upstream, handed_over, read_head};
use crate::web_socket::{BINARY, PING, PONG, Tunnels, talk, unmasked};
use rustix::process::Signal;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A place to look at, and what is there when it is this.
#[derive(Clone, Debug, PartialEq)]
enum Look {
    /// This number is there and not 0.
    Metric(String),
    /// This number is there and as much.
    Is(String, f64),
    /// The first number is there and less than the second.
    Below(String, String),
    Log(String),
    AccessLog(String),
    /// This is answered so.
    Answer(String, u16),
}

/// A row of the document.
#[derive(Debug)]
struct Row {
    section: String,
    means: String,
    looks: Vec<Look>,
}

/// The rows below each heading of the chapter.
fn rows() -> Vec<Row> {
    let operations = operations();
    let (_, chapter) = operations.split_once("\n## At 3 in the morning\n").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    let mut rows = Vec::new();
    for section in chapter.split("\n### ").skip(1) {
        let (heading, text) = section.split_once('\n').unwrap();
        let lines = text.lines().filter(|line| line.starts_with("| ") && !line.contains("look at"));
        for line in lines {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [look, means, todo] = cells[..] else { panic!("not three cells: {line}") };
            assert!(!means.is_empty() && !todo.is_empty(), "{line}");
            let (section, means) = (heading.to_owned(), means.to_owned());
            rows.push(Row { section, means, looks: looks(look) });
        }
    }
    assert!(rows.len() > 20, "{}", rows.len());
    rows
}

/// What a cell says to look at: words in front of a piece of code say what it is, and words behind it, how it is.
fn looks(cell: &str) -> Vec<Look> {
    let parts: Vec<_> = cell.split('`').collect();
    let mut looks = Vec::new();
    for place in (1..parts.len()).step_by(2) {
        let (before, code, behind) = (parts[place - 1], parts[place].to_owned(), parts[place + 1]);
        let number = behind.strip_prefix(" is ").map(|rest| rest.split(',').next().unwrap().trim());
        let look = match before.rsplit(',').next().unwrap_or_default().trim() {
            "metric" | "against" => Look::Metric(code),
            "log" => Look::Log(code),
            "access log" => Look::AccessLog(code),
            "below" => match looks.pop() {
                Some(Look::Metric(first)) => Look::Below(first, code),
                other => panic!("{other:?} below {code}"),
            },
            "" => match code.strip_prefix("GET ") {
                Some(target) => {
                    Look::Answer(target.to_owned(), number.map_or(200, |it| it.parse().unwrap()))
                }
                None => Look::Is(code, number.unwrap_or_else(|| panic!("{cell}")).parse().unwrap()),
            },
            other => panic!("what is {other:?} in {cell}"),
        };
        looks.push(look);
    }
    assert!(!looks.is_empty(), "{cell} says nothing to look at");
    looks
}

/// The row of a section whose meaning begins so.
fn row(section: &str, means: &str) -> Row {
    let is_it = |row: &Row| row.section == section && row.means.starts_with(means);
    rows().into_iter().find(is_it).unwrap_or_else(|| panic!("no row of {section}: {means}"))
}

/// Whoever looks: at the admin port, and at both logs.
struct Watch<'w> {
    admin: SocketAddr,
    elbows: &'w Elbows,
}

impl Watch<'_> {
    fn of(admin: &Admin) -> Watch<'_> {
        Watch { admin: admin.address, elbows: &admin.elbows }
    }

    fn number(&self, series: &str) -> Option<f64> {
        self.numbers([series])[0]
    }

    /// Of one scrape.
    fn numbers<const N: usize>(&self, series: [&str; N]) -> [Option<f64>; N] {
        let text = ask(self.admin, "GET", "/metrics", "").text();
        series.map(|series| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
        })
    }

    fn sees(&self, look: &Look) -> bool {
        let has = |lines: Vec<String>, text: &str| lines.iter().any(|line| line.contains(text));
        match look {
            Look::Metric(series) => self.number(series).is_some_and(|number| number > 0.0),
            Look::Is(series, number) => {
                self.number(series).is_some_and(|is| (is - number).abs() < 0.5)
            }
            Look::Below(one, other) => {
                let [one, other] = self.numbers([one, other]);
                one.zip(other).is_some_and(|(one, other)| one < other)
            }
            Look::Log(text) => has(self.elbows.log.all(), text),
            Look::AccessLog(text) => has(self.elbows.access_log.all(), text),
            Look::Answer(target, status) => ask(self.admin, "GET", target, "").status == *status,
        }
    }

    /// Not all that the row says is there yet.
    fn sees_nothing_of(&self, row: &Row) {
        assert!(!row.looks.iter().all(|look| self.sees(look)), "it is there already: {row:?}");
    }

    /// All that the row says comes to be there, one after the other: a process may end meanwhile.
    fn sees_all_of(&self, row: &Row) {
        for look in &row.looks {
            wait_until(&format!("{look:?} of {row:?}"), || self.sees(look));
        }
    }
}

/// These rows are about nothing; then this happens; then they are about it.
fn tried(watch: &Watch<'_>, rows: &[Row], fault: impl FnOnce()) {
    for row in rows {
        watch.sees_nothing_of(row);
    }
    fault();
    for row in rows {
        watch.sees_all_of(row);
    }
}

#[test]
fn mistake_of_elbows() {
    let admin = mistakes::start(Upstream::nobody(), &[(1, mistakes::BAD_HEADER)], &[]);
    let rows = [row("A mistake of elbows", "elbows ran into a fault of its own")];
    tried(&Watch::of(&admin), &rows, || {
        let mut client = Client::plain(admin.elbows.address);
        client.send("PROXY nonsense\r\n");
        assert!(client.read_to_end().unwrap_or_default().is_empty());
    });
}

#[test]
fn mistake_outside_of_any_connection() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let command = mistakes::command(&[(1, mistakes::TAKES_OUT)]);
    let mut old = Elbows::spawn(place.command_of(command, &[]), place.address);
    let _tunnel = application.open(&old);
    let rows = [row("A mistake of elbows", "it happened outside of any one connection")];
    let mut new = None;
    let watch = Watch { admin: place.address, elbows: &old };
    tried(&watch, &rows, || new = Some(Elbows::spawn_unready(place.command(&[]), place.address)));
    assert_eq!(old.wait().code(), Some(1));
}

/// Each row of the document is a row of a test here.
#[test]
fn each_row_is_tried() {
    let source = include_str!("night.rs");
    let mut named = BTreeSet::new();
    for call in source.split("row(").skip(1) {
        let mut words = call.split('"');
        let (before, section, between) = (words.next(), words.next(), words.next());
        if before.is_some_and(|before| before.trim().is_empty())
            && between.is_some_and(|between| between.trim() == ",")
        {
            named.insert((section.unwrap_or_default(), words.next().unwrap_or_default()));
        }
    }
    for row in rows() {
        let is_it = |(section, means): &&(&str, &str)| {
            *section == row.section && !means.is_empty() && row.means.starts_with(means)
        };
        assert_eq!(named.iter().filter(is_it).count(), 1, "nobody tries {row:?}");
    }
}

#[test]
fn client_that_does_not_answer() {
    let application = Tunnels::start();
    let settings = [("PING_INTERVAL", "100ms"), ("PONG_TIMEOUT", "300ms")];
    let admin = Admin::start(application.address, &settings);
    let rows = [
        row("Clients are cut by timeouts", "clients did not answer a Ping"),
        row("Pings are unanswered", "the client never answered a Ping"),
    ];
    let mut silent = None;
    tried(&Watch::of(&admin), &rows, || silent = Some(application.open(&admin.elbows)));
}

#[test]
fn client_whose_network_goes_away() {
    let application = Tunnels::start();
    let settings = [("PING_INTERVAL", "100ms"), ("PONG_TIMEOUT", "300ms")];
    let admin = Admin::start(application.address, &settings);
    let rows = [row("Pings are unanswered", "clients answered before and do so no more")];
    let (mut client, _upstream) = application.open(&admin.elbows);
    tried(&Watch::of(&admin), &rows, || {
        let ping = client.read_frame();
        assert_eq!(ping.opcode, PING);
        client.send_frame(PONG, &ping.payload);
    });
}

#[test]
fn client_that_takes_nothing() {
    let application = Tunnels::start();
    let settings = [("STALL_TIMEOUT", "500ms"), ("PING_INTERVAL", "off")];
    let admin = Admin::start(application.address, &settings);
    let rows = [row("Clients are cut by timeouts", "clients live, and took no byte")];
    let (_client, upstream) = application.open(&admin.elbows);
    tried(&Watch::of(&admin), &rows, || {
        let frame = unmasked(0x80 | BINARY, &vec![0; 60_000]);
        let mut socket = &upstream.socket;
        while socket.write_all(&frame).is_ok() {}
    });
}

#[test]
fn memory_that_waits_for_clients() {
    let application = Tunnels::start();
    let settings = [("STALL_TIMEOUT", "1h"), ("PING_INTERVAL", "off")];
    let admin = Admin::start(application.address, &settings);
    let watch = Watch::of(&admin);
    let row = row("Memory grows", "bytes wait in tunnels");
    let pairs: Vec<_> = (0..30).map(|_| application.open(&admin.elbows)).collect();
    let memory = || watch.number("process_resident_memory_bytes").unwrap();
    let before = memory();
    let frame = unmasked(0x80 | BINARY, &vec![0; 60_000]);
    for (_, upstream) in &pairs {
        upstream.socket.set_nonblocking(true).unwrap();
    }
    let waiting = || {
        let Look::Answer(target, 200) = &row.looks[1] else { panic!("{row:?}") };
        let list = admin.get(target);
        let all = list["tunnels"].as_array().unwrap().iter();
        all.map(|one| number(one, "waiting_for_client")).collect::<Vec<_>>()
    };
    assert!(waiting().iter().all(|bytes| *bytes == 0));
    wait_until("bytes wait for each client", || {
        for (_, upstream) in &pairs {
            // What it does not take breaks the frame, which nobody reads.
            let sent = (&upstream.socket).write(&frame);
            assert!(
                sent.is_ok() || sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            );
        }
        waiting().iter().all(|bytes| *bytes > 0)
    });
    let waiting = waiting();
    assert!(waiting.is_sorted_by(|one, next| one >= next), "the most comes first: {waiting:?}");
    assert!(memory() > before, "{} after {before}", memory());
    watch.sees_all_of(&row);
}

#[test]
fn application_that_does_not_listen() {
    let admin = Admin::start(Upstream::nobody(), &[]);
    let rows = [
        row("Requests get 502, 503 or 504", "the application takes no connections"),
        row("The application is down", "nobody listens at the address"),
    ];
    tried(&Watch::of(&admin), &rows, || {
        assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 502);
    });
}

#[test]
fn endpoint_whose_checks_fail() {
    let application = Application::start(2);
    let settings = [
        ("UPSTREAM_CHECK", "http:/health"),
        ("UPSTREAM_CHECK_INTERVAL", "100ms"),
        ("UPSTREAM_CHECK_FALL", "1"),
    ];
    let balancer = Balancer::of(&application, &settings);
    let rows = [row("The application is down", "checks (`UPSTREAM_CHECK`) fail there")];
    let watch = Watch { admin: balancer.admin, elbows: &balancer.elbows };
    tried(&watch, &rows, || application.lets(2, Does::Status(503)));
}

#[test]
fn endpoint_that_answers_with_5xx_where_others_do_not() {
    let application = Application::start(2);
    application.lets(2, Does::Status(500));
    let settings = [("UPSTREAM_EJECT", "2"), ("BALANCE", "round_robin")];
    let balancer = Balancer::of(&application, &settings);
    let rows = [row("The application is down", "that endpoint answers with 5xx")];
    let watch = Watch { admin: balancer.admin, elbows: &balancer.elbows };
    tried(&watch, &rows, || {
        for _ in 0..4 {
            Client::behind_balancer(balancer.elbows.address).get("/");
        }
    });
}

#[test]
fn application_without_an_address() {
    let settings = [("DESTINATION_HOSTNAME", "no-such-name.invalid")];
    let admin = Admin::start(Upstream::nobody(), &settings);
    let rows = [row("Requests get 502, 503 or 504", "`DESTINATION_HOSTNAME` has no address")];
    tried(&Watch::of(&admin), &rows, || {
        assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 502);
    });
}

#[test]
fn application_that_does_not_answer() {
    let (address, _sockets) = handed_over();
    let admin = Admin::start(address, &[("RESPONSE_HEAD_TIMEOUT", "300ms")]);
    let rows = [row("Requests get 502, 503 or 504", "the application took the connection")];
    tried(&Watch::of(&admin), &rows, || {
        assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 504);
    });
}

#[test]
fn application_that_closes_without_an_answer() {
    let upstream = Upstream::start(|mut socket| read_head(&mut socket));
    let admin = Admin::start(upstream.address, &[]);
    let rows = [row("Requests get 502, 503 or 504", "the application took the request and closed")];
    tried(&Watch::of(&admin), &rows, || {
        assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 502);
    });
}

#[test]
fn application_whose_answer_is_no_http() {
    let upstream = Upstream::answering(b"\x15\x03\x01\x00\x02\x02\x46");
    let admin = Admin::start(upstream.address, &[]);
    let rows = [row("Requests get 502, 503 or 504", "something answers, and what it says")];
    tried(&Watch::of(&admin), &rows, || {
        assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 502);
    });
}

#[test]
fn application_that_answers_with_500_itself() {
    let upstream = Upstream::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let admin = Admin::start(upstream.address, &[]);
    let rows = [row("Requests get 502, 503 or 504", "the application answered so itself")];
    tried(&Watch::of(&admin), &rows, || {
        assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 500);
    });
}

#[test]
fn one_of_two_endpoints_that_is_down() {
    let upstream = Upstream::answering(OK);
    // Nobody listens at the other address.
    let names = format!("{},127.0.0.9", upstream.address.ip());
    let settings = [("DESTINATION_HOSTNAME", &*names), ("BALANCE", "round_robin")];
    let admin = Admin::start(upstream.address, &settings);
    let rows = [row("The application is down", "one of several endpoints takes no connection")];
    tried(&Watch::of(&admin), &rows, || {
        for _ in 0..4 {
            assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 200);
        }
    });
}

#[test]
fn application_that_takes_no_connection() {
    // Nobody accepts, and the queue of one is full: further SYNs are dropped.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let admin = Admin::start(address, &[("CONNECT_TIMEOUT", "300ms")]);
    let rows = [row("The application is down", "packets to it are lost")];
    tried(&Watch::of(&admin), &rows, || {
        assert_eq!(Client::behind_balancer(admin.elbows.address).get("/").status, 504);
    });
}

/// Those that are open are told, and what happens when there are no more.
#[test]
fn descriptors_that_run_out() {
    let application = Tunnels::start();
    let admin_port = free_port();
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().args(["-c", "ulimit -n 64; exec \"$0\""]).arg(env!("CARGO_BIN_EXE_elbows"));
    let settings = [("ADMIN_LISTEN_ON", &*admin_port.to_string()), ("THREADS", "2")];
    let (command, address) = Elbows::prepare(shell, application.address, &settings);
    let elbows = Elbows::spawn(command, address);
    let place = SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port));
    wait_until("the admin port listens", || TcpStream::connect(place).is_ok());
    let watch = Watch { admin: place, elbows: &elbows };
    let most = watch.number("elbows_max_fds").unwrap();
    assert!((most - 64.0).abs() < 0.5, "{most}");
    let open = row("Descriptors are near their limit", "each tunnel takes two");
    watch.sees_nothing_of(&open);
    let before = watch.number("elbows_open_fds").unwrap();
    let _tunnels: Vec<_> = (0..5).map(|_| application.open(&elbows)).collect();
    watch.sees_all_of(&open);
    assert!(watch.number("elbows_open_fds").unwrap() >= before + 10.0);

    let rows = [
        row("Descriptors are near their limit", "it is reached"),
        row("Requests get 502, 503 or 504", "no descriptor or local port is left"),
    ];
    tried(&watch, &rows, || {
        // Each asks for a connection to the application, until one finds no descriptor; the others wait to be accepted.
        let crowd: Vec<_> = (0..80)
            .map(|_| {
                let mut client = Client::behind_balancer(address);
                client.send(handshake("/ws"));
                client
            })
            .collect();
        elbows.log.wait_for("no room for another connection");
        elbows.access_log.wait_for("why=no_room");
        drop(crowd);
    });
}

#[test]
fn worker_that_does_not_get_its_core() {
    let upstream = Upstream::answering(OK);
    let admin = Admin::start(upstream.address, &[("THREADS", "1"), ("ACCESS_LOG", "off")]);
    let watch = Watch::of(&admin);
    let row = row("Rounds are slow", "a worker stood still in the middle of its work");
    watch.sees_nothing_of(&row);
    // A process that is stopped for 100 ms stands for one whose core is taken away. Clients keep it at work.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    Client::behind_balancer(admin.elbows.address).get("/");
                }
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while !row.looks.iter().all(|look| watch.sees(look)) && Instant::now() < deadline {
            admin.elbows.signal(Signal::STOP);
            thread::sleep(Duration::from_millis(100));
            admin.elbows.signal(Signal::CONT);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    watch.sees_all_of(&row);
}

#[test]
fn drain_whose_clients_do_not_answer_and_that_cuts() {
    let (address, sockets) = handed_over();
    let settings = [("DRAIN_PERIOD", "2s"), ("DRAIN_GRACE", "2s"), ("PING_INTERVAL", "off")];
    let admin = Admin::start(address, &settings);
    let open = |request: String, protocol: &str| {
        let mut client = Client::behind_balancer(admin.elbows.address);
        client.send(request);
        let (mut upstream, _) = sockets.recv_timeout(PATIENCE).unwrap();
        // The answer to the key of RFC 6455, section 1.3.
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        upstream.write_all(answer.as_bytes()).unwrap();
        assert_eq!(client.read_head().status, 101);
        (client, upstream)
    };
    let _other = open(other_handshake("/ws"), "foo");
    // Each is told at a time of its own, and never answers: the first are counted while the last still have time.
    let _clients: Vec<_> = (0..20).map(|_| open(handshake("/ws"), "websocket")).collect();
    let rows = [
        row("A drain cuts", "clients had a Close and did not answer"),
        row("A drain cuts", "what is no WebSocket"),
    ];
    tried(&Watch::of(&admin), &rows, || admin.elbows.drain());
}

#[test]
fn log_whose_reader_is_gone() {
    let upstream = Upstream::answering(OK);
    let admin_port = free_port();
    let settings = [("ADMIN_LISTEN_ON", &*admin_port.to_string())];
    let (command, address) = Elbows::prepare(Elbows::command(), upstream.address, &settings);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let elbows = Elbows::spawn_to(command, address, writer, Stdio::piped());
    let place = SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port));
    wait_until("the admin port listens", || TcpStream::connect(place).is_ok());
    let watch = Watch { admin: place, elbows: &elbows };
    let rows = [row("Log lines are dropped", "whoever reads standard output")];
    tried(&watch, &rows, || {
        assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
        elbows.wait_for_report("access_log_lines_dropped=1");
    });
}

/// A handoff is none, and a process that was killed is: for who looks, and for the alert.
#[test]
fn process_that_was_killed_and_one_that_handed_over() {
    let directory = crate::handoff::directory();
    let application = Tunnels::start();
    let [main, admin] =
        [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let start = || {
        let (mut command, _) = Elbows::prepare(Elbows::command(), application.address, &[]);
        command
            .env("LISTEN_ON", main.to_string())
            .env("ADMIN_LISTEN_ON", admin.to_string())
            .env("HANDOFF_SOCKET", directory.path().join("handoff.sock"));
        Elbows::spawn(command, main)
    };
    let [anew, handed] = [
        row("The process is gone, or was started again", "a process that began with nothing"),
        row("The process is gone, or was started again", "an upgrade or new settings"),
    ];
    let mut first = start();
    wait_until("the admin port listens", || TcpStream::connect(admin).is_ok());
    let watch = Watch { admin, elbows: &first };
    watch.sees_all_of(&anew);
    watch.sees_nothing_of(&handed);
    let prometheus = Prometheus::of(admin);
    let mut pair = application.open_at(main);

    let mut second = start();
    second.log.wait_for("handoff from=");
    assert_eq!(first.wait().code(), Some(0));
    talk(&mut pair, b"still there");
    let watch = Watch { admin, elbows: &second };
    watch.sees_all_of(&handed);
    watch.sees_nothing_of(&anew);
    wait_until("Prometheus has seen the other process", || {
        prometheus.number("changes(process_start_time_seconds[5m])", None) >= Some(1.0)
            && prometheus.number("elbows_took_over", None) >= Some(1.0)
    });
    // Each second each rule is evaluated: one more scrape than that.
    let scrapes = || prometheus.number("count_over_time(elbows_took_over[5m])", None);
    let until = scrapes().unwrap() + 3.0;
    wait_until("rules were evaluated since then", || scrapes() >= Some(until));
    assert_eq!(prometheus.firing(), BTreeSet::new());

    second.signal(Signal::KILL);
    second.wait();
    let third = start();
    let watch = Watch { admin, elbows: &third };
    watch.sees_all_of(&anew);
    watch.sees_nothing_of(&handed);
    wait_until("the alert fires", || prometheus.firing().contains("ElbowsRestarted"));
}

#[test]
fn balancer_without_a_proxy_header() {
    let upstream = Upstream::answering(OK);
    let admin = Admin::start(upstream.address, &[]);
    let rows = [row("Nobody gets in", "the balancer sends no PROXY header")];
    tried(&Watch::of(&admin), &rows, || {
        // Health checks are fine, as the row says.
        assert_eq!(Client::plain(admin.elbows.address).get("/ping").status, 200);
        assert_eq!(Client::plain(admin.elbows.address).get("/").status, 400);
    });
}

#[test]
fn balancer_with_another_protocol() {
    let upstream = Upstream::answering(OK);
    let admin = Admin::start(upstream.address, &[]);
    let rows = [row("Nobody gets in", "it sends one that is none")];
    tried(&Watch::of(&admin), &rows, || {
        let mut client = Client::plain(admin.elbows.address);
        client.send("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n");
        let _ = client.read_to_end();
    });
}

#[test]
fn balancer_that_passes_tls_on() {
    let upstream = Upstream::answering(OK);
    let admin = Admin::start(upstream.address, &[]);
    let rows = [row("Nobody gets in", "the first bytes are no HTTP: TLS")];
    tried(&Watch::of(&admin), &rows, || {
        let mut client = Client::behind_balancer(admin.elbows.address);
        // A record of a ClientHello (RFC 8446, section 5.1).
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        assert_eq!(client.read_response().status, 400);
    });
}

/// Limits, and what is over each.
#[test]
fn client_over_a_limit() {
    let upstream = Upstream::answering(OK);
    for (setting, rows, statuses) in [
        (
            ("MAX_CONNECTIONS", "2"),
            vec![
                row("Nobody gets in", "`MAX_CONNECTIONS` are open: 503"),
                row("Requests get 502, 503 or 504", "`MAX_CONNECTIONS` are open"),
            ],
            [200, 200, 503],
        ),
        (
            ("MAX_CONNECTIONS_PER_CLIENT", "2"),
            vec![row("Nobody gets in", "one client has `MAX_CONNECTIONS_PER_CLIENT`")],
            [200, 200, 429],
        ),
    ] {
        let admin = Admin::start(upstream.address, &[setting]);
        admin.elbows.wait_for_report("probes=1");
        admin.elbows.wait_for_report("open=0");
        let mut clients = Vec::new();
        tried(&Watch::of(&admin), &rows, || {
            for status in statuses {
                let mut client = Client::behind_balancer(admin.elbows.address);
                assert_eq!(client.get("/").status, status, "{setting:?}");
                clients.push(client);
            }
        });
    }
}

#[test]
fn client_that_opens_too_often() {
    let upstream = Upstream::answering(OK);
    let admin = Admin::start(upstream.address, &[("HANDSHAKE_RATE_PER_CLIENT", "1/h")]);
    let rows = [row("Nobody gets in", "one client opens more than")];
    tried(&Watch::of(&admin), &rows, || {
        let statuses = [0; 2].map(|_| {
            let mut client = Client::behind_balancer(admin.elbows.address);
            client.send(handshake("/ws"));
            client.read_response().status
        });
        assert_eq!(statuses, [200, 429]);
    });
}

#[test]
fn page_of_another_origin() {
    let upstream = Upstream::answering(OK);
    let admin = Admin::start(upstream.address, &[("ALLOWED_ORIGINS", "https://app.example")]);
    let rows = [row("Nobody gets in", "pages of another origin")];
    tried(&Watch::of(&admin), &rows, || {
        let mut client = Client::behind_balancer(admin.elbows.address);
        client.send(handshake("/ws").replace("Host:", "Origin: https://new.example\r\nHost:"));
        assert_eq!(client.read_response().status, 403);
    });
}

#[test]
fn process_that_drains() {
    let admin = Admin::start(Upstream::nobody(), &[("DRAIN_DELAY", "60s")]);
    let rows = [row("Nobody gets in", "the process was told to stop")];
    tried(&Watch::of(&admin), &rows, || admin.elbows.drain());
}
