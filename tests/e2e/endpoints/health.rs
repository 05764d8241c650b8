//! Endpoints that are not well: what checks, connections and answers say of them, and who is sent there all the same.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::application::{Application, Does};
use super::name_server::{NAME, NameServer};
use super::{Balancer, tunnels};
use crate::admin::ask;
use crate::client::{Client, handshake, other_handshake};
use crate::programs::{Program, peer, python, wait_until};
use crate::proxy::{Elbows, PATIENCE, free_port};

/// Checks that come often, so that tests need not wait.
const OFTEN: [(&str, &str); 2] =
    [("UPSTREAM_CHECK_INTERVAL", "200ms"), ("UPSTREAM_CHECK_TIMEOUT", "300ms")];

/// A GET through elbows: the status.
fn get(balancer: &Balancer) -> u16 {
    let mut client = Client::behind_balancer(balancer.elbows.address);
    client.get("/").status
}

/// The value of a metric.
fn metric(balancer: &Balancer, sample: &str) -> u64 {
    let text = ask(balancer.admin, "GET", "/metrics", "").text();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{sample} in {text}")).parse().unwrap()
}

fn checked(check: &'static str) -> Vec<(&'static str, &'static str)> {
    [&[("UPSTREAM_CHECK", check)][..], &OFTEN].concat()
}

#[test]
fn endpoint_whose_checks_fail_gets_no_new_tunnels_and_comes_back() {
    let application = Application::start(3);
    let balancer = Balancer::of(&application, &checked("http:/health?deep=1"));
    let mut clients: Vec<_> = (0..6).map(|_| balancer.open()).collect();
    wait_until("all were checked", || (1..=3).all(|one| !application.heads(one, true).is_empty()));
    let before = tunnels(&balancer.endpoints());
    for (does, why) in [
        (Does::Status(503), "it answered 503"),
        (Does::Closes, "it closed the connection without an answer"),
        (Does::Hangs, "no answer within 300ms"),
        (Does::Garbage, "its answer breaks a rule"),
        (Does::Drips, "no answer within 300ms"),
        (Does::Floods, "its answer"),
    ] {
        application.lets(2, does);
        let is = |state: &str| balancer.endpoints()[&2].0 == state;
        wait_until(&format!("it is down: {does:?}"), || is("down"));
        let said = format!("is down: its checks fail: {why}");
        wait_until(&said, || balancer.elbows.log.all().iter().any(|line| line.contains(&said)));
        clients.extend((0..4).map(|_| balancer.open()));
        assert_eq!(balancer.endpoints()[&2].1, before[1], "{does:?}: its own tunnels stay");
        application.lets(2, Does::Well);
        wait_until("it is up again", || is("up"));
    }
    clients.iter_mut().for_each(Client::echoes);
    clients.extend((0..12).map(|_| balancer.open()));
    wait_until("it gets tunnels", || balancer.endpoints()[&2].1 > before[1]);
    let head = application.heads(1, true).pop().unwrap();
    assert!(head.starts_with("GET /health?deep=1 HTTP/1.1\r\nHost: 127.1."), "{head}");
    for (sample, least) in [
        ("elbows_endpoint_changes_total{state=\"down\"}", 6),
        ("elbows_endpoint_changes_total{state=\"up\"}", 6),
        ("elbows_endpoint_checks_total{result=\"passed\"}", 9),
        ("elbows_endpoint_checks_total{result=\"timeout\"}", 6),
        ("elbows_endpoint_checks_total{result=\"wrong\"}", 12),
        ("elbows_endpoints{state=\"up\"}", 3),
    ] {
        assert!(metric(&balancer, sample) >= least, "{sample} is {}", metric(&balancer, sample));
    }
}

#[test]
fn endpoint_that_refuses_is_down_at_once_and_checks_alone_bring_it_back() {
    let mut application = Application::start(2);
    // The next check is far away.
    let settings = [("UPSTREAM_CHECK", "tcp"), ("UPSTREAM_CHECK_INTERVAL", "5s")];
    let balancer = Balancer::of(&application, &settings);
    wait_until("both were checked", || {
        metric(&balancer, "elbows_endpoint_checks_total{result=\"passed\"}") >= 2
    });
    application.refuse(2);
    let mut clients: Vec<_> = (0..10).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 10), (2, "down", 0)]);
    let failures =
        || metric(&balancer, "elbows_upstream_connect_failures_total{reason=\"unreachable\"}");
    assert!(failures() <= 1, "one client at most has tried it");
    application.listen_again(2);
    balancer.wait_for(&[(1, "up", 10), (2, "up", 0)]);
    clients.extend((0..4).map(|_| balancer.open()));
    balancer.wait_for(&[(1, "up", 10), (2, "up", 4)]);
    assert!(failures() <= 1);
}

/// The real thing: libraries that log how each WebSocket ended.
#[test]
fn check_of_a_websocket_is_a_handshake_and_a_close_for_real_applications() {
    let mut node = Command::new("/usr/bin/node");
    node.arg(peer("node_ws_app.js")).env("NODE_PATH", "/usr/share/nodejs");
    for command in [python("websockets_app.py"), node] {
        let mut program = Program::start(command);
        let address = program.address_after("listening on");
        let balancer = Balancer::start(|own| {
            let settings = [own, &checked("websocket:/echo")].concat();
            Elbows::start(address, &settings)
        });
        for _ in 0..3 {
            program.output.wait_for("ended path=/echo code=1000");
        }
        assert!(program.errors.all().is_empty(), "{:?}", program.errors.all());
        let mut tunnel = Client::behind_balancer(balancer.elbows.address);
        tunnel.send(handshake("/echo"));
        assert_eq!(tunnel.read_response().status, 101);
        // It is frozen: connections are taken, by the kernel, and nothing is said.
        let state = || balancer.endpoints()[&1].0.clone();
        kill_process(program.pid(), Signal::STOP).unwrap();
        wait_until("it is down", || state() == "down");
        kill_process(program.pid(), Signal::CONT).unwrap();
        wait_until("it is up", || state() == "up");
        tunnel.send([0x89, 0x81, 0, 0, 0, 0, b'x']);
        assert_eq!(tunnel.read_exact(3), [0x8a, 1, b'x'], "its tunnel has lived on");
        kill_process(program.pid(), Signal::KILL).unwrap();
        program.wait(PATIENCE);
        wait_until("it is down", || state() == "down");
        let log = balancer.elbows.log.all();
        for why in ["no answer within 300ms", "its checks pass", "Connection refused"] {
            assert!(log.iter().any(|line| line.contains(why)), "{why}: {log:?}");
        }
    }
}

#[test]
fn what_is_no_websocket_fails_the_check_of_one() {
    let application = Application::start(1);
    application.lets(1, Does::Switches);
    let balancer = Balancer::of(&application, &checked("websocket:/ws"));
    balancer.wait_for(&[(1, "down", 0)]);
    let said = "its checks fail: its 101 is not one to this handshake";
    assert!(balancer.elbows.log.all().iter().any(|line| line.contains(said)));
    let head = application.heads(1, true).pop().unwrap();
    assert!(
        head.contains("\r\nSec-WebSocket-Key: ") && head.contains("\r\nUpgrade: websocket\r\n"),
        "{head}"
    );
}

#[test]
fn all_down_are_tried_or_refused_as_the_setting_says() {
    let application = Application::start(2);
    for number in [1, 2] {
        application.lets(number, Does::Status(404));
    }
    let trying = Balancer::of(&application, &checked("http:/"));
    let refuse = [&checked("http:/")[..], &[("UPSTREAM_ALL_DOWN", "refuse")]].concat();
    let refusing = Balancer::of(&application, &refuse);
    for balancer in [&trying, &refusing] {
        balancer.wait_for(&[(1, "down", 0), (2, "down", 0)]);
    }
    assert_eq!(get(&trying), 404, "what the application says");
    let before = (application.heads(1, false).len(), application.heads(2, false).len());
    let mut client = Client::behind_balancer(refusing.elbows.address);
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
        assert_eq!(response.text(), "upstream unavailable\n");
    }
    client.send(other_handshake("/"));
    assert_eq!(client.read_response().status, 503);
    let after = (application.heads(1, false).len(), application.heads(2, false).len());
    assert_eq!(before, after, "nobody was asked");
    refusing.elbows.log.wait_for("got 503: all endpoints are down");
    let failures = "elbows_upstream_connect_failures_total{reason=\"down\"}";
    assert_eq!(metric(&refusing, failures), 4);
    application.lets(2, Does::Well);
    refusing.wait_for(&[(1, "down", 0), (2, "up", 0)]);
    let _clients: Vec<_> = (0..4).map(|_| refusing.open()).collect();
    refusing.wait_for(&[(1, "down", 0), (2, "up", 4)]);
}

#[test]
fn endpoints_that_come_and_go_are_checked_while_they_are_there() {
    let application = Application::start(3);
    let Some(names) = NameServer::start() else { return };
    let all: Vec<_> = application.addresses().collect();
    application.lets(3, Does::Status(500));
    names.set(&json!({ NAME: { "A": [all[0], all[1]], "ttl": 1 } }));
    let balancer = Balancer::asking(&names, &application, &checked("http:/health"));
    // Nobody connects: checks have names asked for.
    balancer.wait_for(&[(1, "up", 0), (2, "up", 0)]);
    wait_until("it is checked by its name", || {
        application.heads(1, true).iter().any(|head| head.contains(&format!("Host: {NAME}:")))
    });
    names.set(&json!({ NAME: { "A": [all[1], all[2]], "ttl": 1 } }));
    balancer.wait_for(&[(2, "up", 0), (3, "down", 0)]);
    let checks = application.heads(1, true).len();
    let more = application.heads(2, true).len() + 5;
    wait_until("the others are checked on", || application.heads(2, true).len() >= more);
    assert!(application.heads(1, true).len() <= checks + 1, "one may have been under way");
}

#[test]
fn name_with_a_thousand_addresses_does_not_make_a_thousand_sockets() {
    // It takes connections and says nothing.
    let application = Application::start(1);
    application.lets(1, Does::Hangs);
    let Some(names) = NameServer::start() else { return };
    let all: Vec<_> = (0..1_000_u32).map(|n| Ipv4Addr::from(0x7f63_0000 + n)).collect();
    names.set(&json!({ NAME: { "A": all, "truncate": true } }));
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let settings = [
        ("UPSTREAM_CHECK", "http:/"),
        ("UPSTREAM_CHECK_TIMEOUT", "200ms"),
        ("DESTINATION_PORT", &port),
    ];
    let balancer = Balancer::asking(&names, &application, &settings);
    let open = || metric(&balancer, "elbows_open_fds");
    let mut most = 0;
    wait_until("all have been checked and are down", || {
        most = most.max(open());
        metric(&balancer, "elbows_endpoints{state=\"down\"}") == 1_000
    });
    assert!((64..200).contains(&most), "{most} descriptors");
    let lines = balancer.elbows.log.all();
    let told = lines.iter().filter(|line| line.contains(" is down: ")).count();
    assert!(told <= 120, "{told} lines");
}

#[test]
fn endpoint_that_answers_with_5xx_is_ejected_and_comes_back_by_one_request() {
    let application = Application::start(2);
    let balancer = Balancer::of(
        &application,
        &[("UPSTREAM_EJECT", "3"), ("BALANCE", "round_robin"), ("UPSTREAM_TRIES", "1")],
    );
    // Answers about the request are no sign, and neither are two in a row.
    for status in [404, 501, 505] {
        application.lets(2, Does::Status(status));
        let answers: Vec<_> = (0..10).map(|_| get(&balancer)).collect();
        assert_eq!(answers.iter().filter(|answer| **answer == status).count(), 5, "{answers:?}");
    }
    application.lets(2, Does::Status(500));
    let answers: Vec<_> = (0..4).map(|_| get(&balancer)).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == 500).count(), 2, "{answers:?}");
    application.lets(2, Does::Well);
    assert_eq!([get(&balancer), get(&balancer)], [200; 2]);
    let states = |expected: [&str; 2]| {
        let endpoints = balancer.endpoints();
        expected.iter().zip(endpoints.values()).all(|(expected, (state, _))| expected == state)
    };
    assert!(states(["up", "up"]));
    application.lets(2, Does::Status(503));
    let begun = Instant::now();
    let answers: Vec<_> = (0..20).map(|_| get(&balancer)).collect();
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 3, "{answers:?}");
    assert!(states(["up", "ejected"]), "{:?}", balancer.endpoints());
    balancer.elbows.log.wait_for("is ejected: 3 failures in a row; it is tried last for 5 s");
    // The other one fails as well, and is the last.
    application.lets(1, Does::Status(500));
    (0..10).for_each(|_| assert_eq!(get(&balancer), 500));
    assert!(states(["up", "ejected"]), "{:?}", balancer.endpoints());
    application.lets(1, Does::Well);
    application.lets(2, Does::Well);
    wait_until("it is back", || get(&balancer) == 200 && states(["up", "up"]));
    assert!(begun.elapsed() >= Duration::from_secs(5));
    balancer.elbows.log.wait_for("is up: it answered");
    assert_eq!(metric(&balancer, "elbows_endpoint_changes_total{state=\"ejected\"}"), 1);
}

#[test]
fn no_more_than_half_are_ejected() {
    let application = Application::start(4);
    let settings = [("UPSTREAM_EJECT", "1"), ("BALANCE", "round_robin"), ("UPSTREAM_TRIES", "1")];
    let balancer = Balancer::of(&application, &settings);
    for number in 1..=4 {
        application.lets(number, Does::Closes);
    }
    (0..40).for_each(|_| assert_eq!(get(&balancer), 502));
    let ejected = || metric(&balancer, "elbows_endpoints{state=\"ejected\"}");
    assert_eq!(ejected(), 2);
    assert_eq!(metric(&balancer, "elbows_endpoints{state=\"up\"}"), 2);
}

#[test]
fn ends_of_tunnels_are_no_fault_of_their_endpoint() {
    let application = Application::start(2);
    let balancer = Balancer::of(&application, &[("UPSTREAM_EJECT", "1")]);
    for _ in 0..5 {
        let clients: Vec<_> = (0..4).map(|_| balancer.open()).collect();
        // With a reset, each of them.
        application.close(1);
        application.close(2);
        drop(clients);
        balancer.wait_for(&[(1, "up", 0), (2, "up", 0)]);
    }
    assert_eq!(metric(&balancer, "elbows_endpoint_changes_total{state=\"ejected\"}"), 0);
}

#[test]
fn what_only_asks_goes_to_another_endpoint_and_what_may_have_been_done_does_not() {
    let application = Application::start(2);
    let balancer = Balancer::of(&application, &[("BALANCE", "round_robin")]);
    application.lets(1, Does::Closes);
    let _clients: Vec<_> = (0..6).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 0), (2, "up", 6)]);
    (0..6).for_each(|_| assert_eq!(get(&balancer), 200));
    let sent = |number| application.heads(number, false).len();
    assert_eq!((sent(1), sent(2)), (6, 12), "each asked the bad one once at most");
    assert_eq!(metric(&balancer, "elbows_upstream_retries_total"), 6);
    let status_of = |request: &str| {
        let mut client = Client::behind_balancer(balancer.elbows.address);
        client.send(request);
        client.read_response().status
    };
    let before = (sent(1), sent(2));
    let mut bad = 0;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let statuses = [status_of(request), status_of(request)];
        bad += statuses.iter().filter(|status| **status == 502).count();
        assert!(statuses.contains(&502) && statuses.contains(&200), "{request:?}: {statuses:?}");
    }
    assert_eq!(bad, 4);
    assert_eq!((sent(1) - before.0, sent(2) - before.1), (4, 4), "nothing was sent twice");
    assert_eq!(metric(&balancer, "elbows_upstream_retries_total"), 6);
}

#[test]
fn no_more_endpoints_are_tried_than_the_setting_says() {
    let application = Application::start(4);
    for number in 1..=4 {
        application.lets(number, Does::Closes);
    }
    for tries in [1_usize, 3, 10] {
        let text = tries.to_string();
        let balancer = Balancer::of(&application, &[("UPSTREAM_TRIES", &text)]);
        let sent = || (1..=4).map(|one| application.heads(one, false).len()).sum::<usize>();
        let before = sent();
        assert_eq!(get(&balancer), 502);
        assert_eq!(sent() - before, tries.min(4));
    }
}

#[test]
fn endpoint_that_comes_gets_its_share_bit_by_bit() {
    let mut application = Application::start(2);
    application.refuse(2);
    let settings = [
        ("UPSTREAM_CHECK", "tcp"),
        ("SLOW_START", "1h"),
        ("BALANCE", "round_robin"),
        ("UPSTREAM_CHECK_INTERVAL", "200ms"),
    ];
    let balancer = Balancer::of(&application, &settings);
    balancer.wait_for(&[(1, "up", 0), (2, "down", 0)]);
    application.listen_again(2);
    balancer.wait_for(&[(1, "up", 0), (2, "warming", 0)]);
    balancer.elbows.log.wait_for("is warming: its checks pass");
    let _clients: Vec<_> = (0..22).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 20), (2, "warming", 2)]);
}

#[test]
fn endpoints_of_our_own_start_are_not_warming_and_a_short_start_ends() {
    let mut application = Application::start(2);
    let settings = [
        ("UPSTREAM_CHECK", "tcp"),
        ("SLOW_START", "1s"),
        ("BALANCE", "round_robin"),
        ("UPSTREAM_CHECK_INTERVAL", "100ms"),
    ];
    let balancer = Balancer::of(&application, &settings);
    balancer.wait_for(&[(1, "up", 0), (2, "up", 0)]);
    application.refuse(2);
    balancer.wait_for(&[(1, "up", 0), (2, "down", 0)]);
    application.listen_again(2);
    balancer.wait_for(&[(1, "up", 0), (2, "warming", 0)]);
    balancer.wait_for(&[(1, "up", 0), (2, "up", 0)]);
    let _clients: Vec<_> = (0..10).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 5), (2, "up", 5)]);
}

#[test]
fn process_that_takes_over_checks_by_itself() {
    let application = Application::start(2);
    application.lets(2, Does::Status(500));
    let directory = tempfile::tempdir().unwrap();
    let main = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let socket = directory.path().join("handoff.sock");
    let (main_text, socket) = (main.to_string(), socket.to_str().unwrap().to_owned());
    let settings =
        [&[("HANDOFF_SOCKET", &*socket), ("LISTEN_ON", &*main_text)], &checked("http:/")[..]]
            .concat();
    let start = || {
        Balancer::start(|own| {
            let (command, _) = Balancer::command(&application, &[own, &settings].concat());
            Elbows::spawn(command, main)
        })
    };
    let mut old = start();
    old.wait_for(&[(1, "up", 0), (2, "down", 0)]);
    let new = start();
    new.elbows.log.wait_for("handoff from=");
    assert_eq!(old.elbows.wait().code(), Some(0));
    new.wait_for(&[(1, "up", 0), (2, "down", 0)]);
    application.lets(2, Does::Well);
    new.wait_for(&[(1, "up", 0), (2, "up", 0)]);
}
