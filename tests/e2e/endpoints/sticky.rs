//! Clients that come back to the endpoint where they were: by cookie, address, field, query and path.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::application::{self, Application};
use super::{Balancer, tunnels};
use crate::client::{Client, Response, other_handshake};
use crate::programs::{Program, python, wait_until};
use crate::proxy::{Elbows, free_port};

/// One request of `client` to `elbows`, on a connection of its own, with these field lines.
fn request(elbows: SocketAddr, client: &str, target: &str, lines: &str) -> Response {
    let mut connection = Client::plain(elbows);
    connection.send(format!("PROXY TCP4 {client} 192.0.2.1 51234 80\r\n"));
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"));
    connection.read_response()
}

fn get(elbows: &Elbows, lines: &str) -> Response {
    request(elbows.address, "203.0.113.7", "/", lines)
}

fn instance(response: &Response) -> u8 {
    response.field("instance").expect("an instance answered").parse().unwrap()
}

/// The cookie that a response sets, as the client sends it: a field line.
fn cookie(response: &Response) -> Option<String> {
    let value = response.field("set-cookie")?.split(';').next().unwrap();
    Some(format!("Cookie: {value}\r\n"))
}

#[test]
fn cookie_brings_its_client_back() {
    let application = Application::start(4);
    let balancer = Balancer::of(&application, &[("STICKY", "cookie")]);
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for number in 0..20 {
        // Of the first ones some come with a request, some with a handshake.
        let mut client = Client::behind_balancer(balancer.elbows.address);
        client.send(if number % 2 == 0 {
            other_handshake("/")
        } else {
            String::from("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        });
        let first = client.read_response();
        let cookie = cookie(&first).expect("it is set");
        assert!(seen.insert(cookie.clone()), "each has its own");
        all.push((instance(&first), cookie, client));
    }
    let used: BTreeSet<_> = all.iter().map(|(instance, ..)| *instance).collect();
    assert_eq!(used.len(), 4, "{used:?}");
    for _ in 0..3 {
        for (number, cookie, _) in &all {
            let again = get(&balancer.elbows, cookie);
            assert_eq!((instance(&again), again.field("set-cookie")), (*number, None));
            let mut client = Client::behind_balancer(balancer.elbows.address);
            client.send(other_handshake("/").replace("Host:", &format!("{cookie}Host:")));
            let again = client.read_response();
            assert_eq!((again.status, instance(&again)), (101, *number));
            assert_eq!(again.field("set-cookie"), None);
        }
    }
}

#[test]
fn cookie_says_nothing_but_its_token_and_how_it_may_be_sent() {
    let application = Application::start(2);
    let balancer = Balancer::of(&application, &[("STICKY", "cookie:__Secure-Seat")]);
    let plain = get(&balancer.elbows, "");
    let value = plain.field("set-cookie").unwrap().to_owned();
    let (token, attributes) = value.strip_prefix("__Secure-Seat=").unwrap().split_at(16);
    assert!(token.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{value}");
    assert_eq!(attributes, "; Path=/; HttpOnly; Secure; SameSite=None");

    let balancer = Balancer::of(&application, &[("STICKY", "cookie")]);
    for (port, attributes) in [
        (80, "; Path=/; HttpOnly; SameSite=Lax"),
        (443, "; Path=/; HttpOnly; Secure; SameSite=None"),
    ] {
        let mut client = Client::plain(balancer.elbows.address);
        client.send(format!("PROXY TCP4 203.0.113.7 192.0.2.1 51234 {port}\r\n"));
        let value = client.get("/").field("set-cookie").unwrap().to_owned();
        assert!(value.starts_with("elbows=") && value.ends_with(attributes), "{value}");
    }
}

#[test]
fn cookie_that_elbows_cannot_have_set_counts_as_none() {
    let application = Application::start(3);
    let balancer = Balancer::of(&application, &[("STICKY", "cookie"), ("BALANCE", "round_robin")]);
    let good = cookie(&get(&balancer.elbows, "")).unwrap();
    let value = good.trim_start_matches("Cookie: ").trim_end();
    for bad in [
        String::from("Cookie: elbows=\r\n"),
        String::from("Cookie: elbows=127.1.1.1:80\r\n"),
        format!("Cookie: elbows={}\r\n", "0".repeat(60_000)),
        format!("Cookie: {value}; {value}\r\n"),
        format!("Cookie: {value}\r\nCookie: {value}\r\n"),
        format!("Cookie: {}\r\n", value.to_uppercase()),
        format!("Cookie: {value}0\r\n"),
        String::from("Cookie: elbows=%3030303030303030\r\n"),
    ] {
        // Each has its turn, as who brings none.
        let all: BTreeSet<_> = (0..3)
            .map(|_| {
                let answer = get(&balancer.elbows, &bad);
                assert_eq!(answer.status, 200, "{bad:?}");
                assert_ne!(cookie(&answer), None, "{bad:?}");
                instance(&answer)
            })
            .collect();
        assert_eq!(all.len(), 3, "{bad:?}");
    }
}

/// Where each of some rooms is.
fn rooms(elbows: &Elbows) -> Vec<u8> {
    let room = |number| instance(&get(elbows, &format!("X-Room: {number}\r\n")));
    (0..60).map(room).collect()
}

#[test]
fn endpoint_that_is_down_is_replaced_at_once_and_only_its_own_move() {
    let mut application = Application::start(4);
    let balancer = Balancer::of(&application, &[("STICKY", "header:X-Room")]);
    let before = rooms(&balancer.elbows);
    assert_eq!(before, rooms(&balancer.elbows));
    let used: BTreeSet<_> = before.iter().copied().collect();
    assert_eq!(used.len(), 4, "{before:?}");
    application.refuse(2);
    let after = rooms(&balancer.elbows);
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == 2, "{before} {after}");
        assert_ne!(*after, 2);
    }
    // The first one of its rooms found it down, and is where the others look for theirs.
    assert_eq!(after, rooms(&balancer.elbows));
    let moved: BTreeSet<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, _)| **before == 2)
        .map(|(_, after)| *after)
        .collect();
    assert!(moved.len() > 1, "its rooms are shared: {moved:?}");
}

#[test]
fn cookie_of_an_endpoint_that_is_down_finds_another_and_stays_there() {
    let mut application = Application::start(3);
    let balancer = Balancer::of(&application, &[("STICKY", "cookie")]);
    let mut cookies: [Option<String>; 3] = [const { None }; 3];
    wait_until("each has a client", || {
        let answer = get(&balancer.elbows, "");
        cookies[usize::from(instance(&answer)) - 1] = cookie(&answer);
        cookies.iter().all(Option::is_some)
    });
    application.refuse(1);
    let [gone, others @ ..] = cookies.map(Option::unwrap);
    let first = get(&balancer.elbows, &gone);
    for _ in 0..10 {
        let again = get(&balancer.elbows, &gone);
        assert_eq!(instance(&again), instance(&first));
        assert_eq!(again.field("set-cookie"), None, "it still says where it belongs");
    }
    for (number, cookie) in (2..).zip(&others) {
        assert_eq!(instance(&get(&balancer.elbows, cookie)), number);
    }
}

/// Sends a request that has this number for its key.
type Ask = fn(SocketAddr, u8) -> Response;

#[test]
fn each_way_keeps_its_own_together() {
    let application = Application::start(5);
    let ways: [(&str, Ask); 4] = [
        ("client", |elbows, number| request(elbows, &format!("203.0.113.{number}"), "/", "")),
        ("header:x-room", |elbows, number| {
            request(elbows, "203.0.113.7", "/", &format!("X-Room: {number}\r\n"))
        }),
        ("query:room", |elbows, number| {
            request(elbows, "203.0.113.7", &format!("/ws?a=b&room={number}"), "")
        }),
        ("path", |elbows, number| {
            request(elbows, "203.0.113.7", &format!("/rooms/{number}?time={number}"), "")
        }),
    ];
    for (sticky, ask) in ways {
        let balancer = Balancer::of(&application, &[("STICKY", sticky)]);
        let look = || -> Vec<_> {
            let all = (0..40).map(|number| ask(balancer.elbows.address, number));
            all.map(|answer| {
                assert_eq!(answer.field("set-cookie"), None);
                instance(&answer)
            })
            .collect()
        };
        let first = look();
        assert_eq!(first, look(), "{sticky}");
        let used: BTreeSet<_> = first.iter().copied().collect();
        assert!(used.len() >= 4, "{sticky}: {first:?}");
    }
}

#[test]
fn request_without_a_key_goes_by_balance() {
    let application = Application::start(3);
    for sticky in ["header:X-Room", "query:room"] {
        let settings = [("STICKY", sticky), ("BALANCE", "round_robin")];
        let balancer = Balancer::of(&application, &settings);
        let all: Vec<_> = (0..6).map(|_| instance(&get(&balancer.elbows, ""))).collect();
        assert_eq!(all[..3], all[3..], "{sticky}");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3, "{sticky}: {all:?}");
    }
}

#[test]
fn key_that_everybody_has_does_not_fill_one_endpoint() {
    let application = Application::start(3);
    let balancer = Balancer::of(&application, &[("STICKY", "path")]);
    let mut clients: Vec<_> = (0..16).map(|_| balancer.open()).collect();
    let sum = || tunnels(&balancer.endpoints()).iter().sum::<u64>();
    wait_until("they are counted", || sum() == 16);
    let counts = tunnels(&balancer.endpoints());
    assert!(counts.contains(&16), "few stay together: {counts:?}");
    for _ in 16..240 {
        clients.push(balancer.open());
    }
    wait_until("they are counted", || sum() == 240);
    let counts = tunnels(&balancer.endpoints());
    // 1.25 times 80, and 16, and the one that made it full.
    assert!(counts.iter().all(|count| *count <= 118), "{counts:?}");
}

/// Several instances behind one balancer, and a process that takes over, are one to their clients.
#[test]
fn processes_agree() {
    let application = Application::start(5);
    let mut reversed: Vec<_> = application.addresses().map(|ip| ip.to_string()).collect();
    reversed.reverse();
    let reversed = reversed.join(",");
    let room = ("STICKY", "header:X-Room");
    let one = Balancer::of(&application, &[room]);
    let other = Balancer::of(&application, &[room, ("DESTINATION_HOSTNAME", &reversed)]);
    assert_eq!(rooms(&one.elbows), rooms(&other.elbows));

    let cookie_setting = ("STICKY", "cookie");
    let one = Balancer::of(&application, &[cookie_setting]);
    let other = Balancer::of(&application, &[cookie_setting, ("DESTINATION_HOSTNAME", &reversed)]);
    for _ in 0..20 {
        let first = get(&one.elbows, "");
        let again = get(&other.elbows, &cookie(&first).unwrap());
        assert_eq!((instance(&again), again.field("set-cookie")), (instance(&first), None));
    }
}

#[test]
fn cookie_holds_behind_a_handoff() {
    let application = Application::start(5);
    let directory = tempfile::tempdir().unwrap();
    let main = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let socket = directory.path().join("handoff.sock");
    let (main_text, socket) = (main.to_string(), socket.to_str().unwrap().to_owned());
    let settings = [("HANDOFF_SOCKET", &*socket), ("LISTEN_ON", &*main_text), ("STICKY", "cookie")];
    let start = || {
        Balancer::start(|own| {
            let (command, _) = Balancer::command(&application, &[own, &settings].concat());
            Elbows::spawn(command, main)
        })
    };
    let mut old = start();
    let all: Vec<_> = (0..20)
        .map(|_| {
            let first = get(&old.elbows, "");
            (instance(&first), cookie(&first).unwrap())
        })
        .collect();
    let new = start();
    new.elbows.log.wait_for("handoff from=");
    assert_eq!(old.elbows.wait().code(), Some(0));
    for (number, cookie) in &all {
        assert_eq!(instance(&get(&new.elbows, cookie)), *number);
    }
}

/// Three instances of a Socket.IO application, each of which knows its own sessions only.
struct SocketIo {
    _instances: Vec<Program>,
    destination: String,
    first: SocketAddr,
}

impl SocketIo {
    fn start() -> Self {
        let (addresses, port) = application::addresses(3);
        let start = |ip: &std::net::Ipv4Addr| {
            let mut command = python("socketio_app.py");
            command.args([ip.to_string(), port.to_string()]);
            Program::start(command).listening(SocketAddr::from((*ip, port)))
        };
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        Self {
            _instances: addresses.iter().map(start).collect(),
            destination: texts.join(","),
            first: SocketAddr::from((addresses[0], port)),
        }
    }

    fn behind(&self, sticky: &str) -> Elbows {
        let settings = [
            ("DESTINATION_HOSTNAME", &*self.destination),
            ("PROXY_PROTOCOL", "off"),
            ("BALANCE", "round_robin"),
            ("STICKY", sticky),
        ];
        Elbows::start(self.first, &settings)
    }

    /// A session of a client that begins with long polls.
    fn client(elbows: &Elbows, transports: &str) -> Program {
        let mut command = python("socketio_client.py");
        command.args([format!("http://{}", elbows.address), transports.to_owned()]);
        Program::start(command)
    }
}

#[test]
fn socket_io_needs_it() {
    let application = SocketIo::start();
    let elbows = application.behind("cookie");
    let clients: Vec<_> = ["polling", "polling,websocket", "polling", "polling,websocket"]
        .into_iter()
        .map(|transports| SocketIo::client(&elbows, transports))
        .collect();
    for client in clients {
        client.succeed("done");
    }
    let line = elbows.access_log.wait_for("\"POST /socket.io/");
    assert!(line.contains("status=200"), "{line}");

    let elbows = application.behind("off");
    let mut client = SocketIo::client(&elbows, "polling");
    assert!(!client.wait(Duration::from_secs(60)).success(), "sessions are one instance's own");
    let lines = elbows.access_log.all();
    assert!(lines.iter().any(|line| line.contains("status=400")), "{lines:#?}");
}
