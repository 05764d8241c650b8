//! Many endpoints: how they come from names, what a name server may do, and which of them gets the next tunnel.
//!
//! elbows asks a real name server, by an `/etc/resolv.conf` of its own: it runs in a mount namespace, which needs root and
//! `unshare` (util-linux). Without them the tests that need names are left out, and the run says so.

pub(crate) mod application;
mod crowd;
mod health;
mod name_server;
mod rebalancing;
mod sticky;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::application::Application;
use self::name_server::{NAME, NameServer};
use crate::admin::{ask, json as parsed};
use crate::client::{Client, other_handshake};
use crate::programs::wait_until;
use crate::proxy::{Elbows, PATIENCE, free_port};

/// An elbows whose endpoints can be looked at.
pub(crate) struct Balancer {
    pub(crate) elbows: Elbows,
    pub(crate) admin: SocketAddr,
}

impl Balancer {
    /// In front of these addresses.
    pub(crate) fn of(application: &Application, settings: &[(&str, &str)]) -> Self {
        Self::start(|own| {
            let (command, address) = Self::command(application, &[own, settings].concat());
            Elbows::spawn(command, address)
        })
    }

    fn command(application: &Application, settings: &[(&str, &str)]) -> (Command, SocketAddr) {
        let names = application.addresses().map(|ip| ip.to_string()).collect::<Vec<_>>().join(",");
        let first = SocketAddr::from((Ipv4Addr::LOCALHOST, application.port));
        let settings = [&[("DESTINATION_HOSTNAME", &*names)], settings].concat();
        Elbows::prepare(Elbows::command(), first, &settings)
    }

    /// In front of what the name server says of the application.
    fn asking(names: &NameServer, application: &Application, settings: &[(&str, &str)]) -> Self {
        Self::start(|own| names.elbows(application.port, &[own, settings].concat()))
    }

    fn start(start: impl Fn(&[(&str, &str)]) -> Elbows) -> Self {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let port = admin.port().to_string();
        let elbows = start(&[("ADMIN_LISTEN_ON", &port), ("THREADS", "2"), ("DNS_MAX_TTL", "1s")]);
        wait_until("the admin port listens", || TcpStream::connect(admin).is_ok());
        Self { elbows, admin }
    }

    /// Opens a tunnel.
    fn open(&self) -> Client {
        let mut client = Client::behind_balancer(self.elbows.address);
        client.send(other_handshake("/"));
        assert_eq!(client.read_response().status, 101);
        client
    }

    /// State and tunnels of each endpoint, by the last number of its address.
    fn endpoints(&self) -> BTreeMap<u8, (String, u64)> {
        let answer: Value = parsed(&ask(self.admin, "GET", "/api/endpoints", ""));
        let of = |one: &Value| {
            let address: SocketAddr = one["address"].as_str().unwrap().parse().unwrap();
            let SocketAddr::V4(address) = address else { panic!("{address}") };
            let state = one["state"].as_str().unwrap().to_owned();
            (address.ip().octets()[3], (state, one["tunnels"].as_u64().unwrap()))
        };
        answer["endpoints"].as_array().unwrap().iter().map(of).collect()
    }

    /// Waits until the endpoints are so.
    fn wait_for(&self, expected: &[(u8, &str, u64)]) {
        let expected =
            expected.iter().map(|(n, state, tunnels)| (*n, (String::from(*state), *tunnels)));
        let expected: BTreeMap<_, _> = expected.collect();
        wait_until(&format!("endpoints are {expected:?}"), || self.endpoints() == expected);
    }
}

fn tunnels(endpoints: &BTreeMap<u8, (String, u64)>) -> Vec<u64> {
    endpoints.values().map(|(_, tunnels)| *tunnels).collect()
}

#[test]
fn new_tunnels_go_where_there_are_fewer_on_all_workers() {
    let application = Application::start(3);
    let balancer = Balancer::of(&application, &[]);
    let mut clients: Vec<_> = (0..60).map(|_| balancer.open()).collect();
    let sum = || tunnels(&balancer.endpoints()).iter().sum::<u64>();
    wait_until("they are counted", || sum() == 60);
    let counts = tunnels(&balancer.endpoints());
    // Of two that are drawn the one with fewer: some draws may leave one out in a row.
    assert!(counts.iter().all(|count| (16..=24).contains(count)), "{counts:?}");
    // All of one leave, and it gets the next ones: in two of three draws it is there, and has fewer.
    application.close(2);
    balancer.wait_for(&[(1, "up", counts[0]), (2, "up", 0), (3, "up", counts[2])]);
    clients.extend((0..30).map(|_| balancer.open()));
    wait_until("they are counted", || sum() == counts[0] + counts[2] + 30);
    let counts = tunnels(&balancer.endpoints());
    assert!(counts[1] >= 14, "{counts:?}");
}

#[test]
fn round_robin_gives_each_its_turn() {
    let application = Application::start(4);
    let balancer = Balancer::of(&application, &[("BALANCE", "round_robin")]);
    let _clients: Vec<_> = (0..40).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 10), (2, "up", 10), (3, "up", 10), (4, "up", 10)]);
}

#[test]
fn endpoint_that_refuses_costs_nobody_its_tunnel_and_comes_back() {
    let mut application = Application::start(3);
    let balancer = Balancer::of(&application, &[]);
    application.refuse(2);
    let _clients: Vec<_> = (0..30).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 15), (2, "failed", 0), (3, "up", 15)]);
}

#[test]
fn few_of_many_addresses_come_with_each_answer_and_all_are_used() {
    let application = Application::start(12);
    let Some(names) = NameServer::start() else { return };
    names.set(
        &json!({ NAME: { "A": application.addresses().collect::<Vec<_>>(), "pick": 8, "ttl": 1 } }),
    );
    let balancer = Balancer::asking(&names, &application, &[("ENDPOINT_HOLD", "1m")]);
    wait_until("all twelve are known", || balancer.endpoints().len() == 12);
    let clients: Vec<_> = (0..120).map(|_| balancer.open()).collect();
    let endpoints = balancer.endpoints();
    let states: Vec<_> = endpoints.values().map(|(state, _)| state.as_str()).collect();
    assert!(states.contains(&"held"), "{endpoints:?}");
    assert!(states.iter().all(|state| ["up", "held"].contains(state)), "{endpoints:?}");
    let (fullest, sum) = (tunnels(&endpoints).into_iter().max().unwrap(), clients.len() as u64);
    // The mean, and one for the draw.
    assert!(fullest <= sum.div_ceil(12) + 2, "{endpoints:?}");
}

#[test]
fn address_that_is_missing_is_held_and_then_keeps_only_its_tunnels() {
    let application = Application::start(2);
    let Some(names) = NameServer::start() else { return };
    let all: Vec<_> = application.addresses().collect();
    names.set(&json!({ NAME: { "A": all } }));
    let balancer = Balancer::asking(&names, &application, &[("ENDPOINT_HOLD", "3s")]);
    let mut clients: Vec<_> = (0..4).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 2), (2, "up", 2)]);
    names.set(&json!({ NAME: { "A": [all[0]] } }));
    balancer.wait_for(&[(1, "up", 2), (2, "held", 2)]);
    clients.extend((0..2).map(|_| balancer.open()));
    balancer.wait_for(&[(1, "up", 3), (2, "held", 3)]);
    balancer.wait_for(&[(1, "up", 3), (2, "gone", 3)]);
    clients.extend((0..2).map(|_| balancer.open()));
    balancer.wait_for(&[(1, "up", 5), (2, "gone", 3)]);
    clients.iter_mut().for_each(Client::echoes);
    application.close(2);
    balancer.wait_for(&[(1, "up", 5)]);
    // It comes back, empty, and gets the next one or two.
    names.set(&json!({ NAME: { "A": all } }));
    balancer.wait_for(&[(1, "up", 5), (2, "up", 0)]);
}

#[test]
fn last_good_answer_is_used_whatever_the_name_server_does() {
    let application = Application::start(2);
    let Some(names) = NameServer::start() else { return };
    let all: Vec<_> = application.addresses().collect();
    let good = json!({ NAME: { "A": all } });
    for (fault, said) in [
        (json!({ NAME: { "rcode": "SERVFAIL" } }), "Server Failure"),
        (json!({ NAME: { "rcode": "REFUSED" } }), "Refused"),
        (json!({}), "there is no such name"),
        (json!({ NAME: { "A": [] } }), "it has no address"),
        (json!({ NAME: { "silent": true } }), "the resolver did not answer"),
    ] {
        names.set(&good);
        let balancer = Balancer::asking(&names, &application, &[("LOG", "info")]);
        let mut clients = vec![balancer.open()];
        names.set(&fault);
        wait_until("it is warned of", || {
            clients.push(balancer.open());
            // As often as connections of an application come.
            thread::sleep(Duration::from_millis(50));
            balancer.elbows.log.all().iter().any(|line| line.contains("does not resolve"))
        });
        let log = balancer.elbows.log.all();
        let warnings: Vec<_> = log.iter().filter(|line| line.contains(" WARN ")).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let warning = format!("{NAME} does not resolve: ");
        assert!(
            warnings[0].contains(&warning) && warnings[0].contains(said),
            "{fault}: {warnings:?}"
        );
        assert!(warnings[0].contains("the last good answer is used until it does"), "{warnings:?}");
        let begun = Instant::now();
        clients.push(balancer.open());
        assert!(begun.elapsed() < Duration::from_millis(900), "{fault}: nobody waits for it");
        names.set(&good);
        wait_until("it is over", || {
            clients.push(balancer.open());
            thread::sleep(Duration::from_millis(50));
            balancer.elbows.log.all().iter().any(|line| line.contains("resolves again"))
        });
        let counts = tunnels(&balancer.endpoints());
        assert!(counts[0].abs_diff(counts[1]) <= 1, "{fault}: {counts:?}");
    }
}

#[test]
fn truncated_answer_is_asked_for_by_tcp() {
    let application = Application::start(2);
    let Some(names) = NameServer::start() else { return };
    let many: Vec<_> = (1..=200).map(|last| Ipv4Addr::new(127, 9, 9, last)).collect();
    names.set(&json!({ NAME: { "A": many, "truncate": true } }));
    let balancer = Balancer::asking(&names, &application, &[]);
    wait_until("all are known", || balancer.endpoints().len() == 200);
    let asked = names.asked();
    for transport in ["udp", "tcp"] {
        assert!(asked.contains(&format!("asked {NAME} A {transport}")), "{asked:?}");
    }
}

#[test]
fn ttl_is_kept_within_its_bounds() {
    let application = Application::start(1);
    let Some(names) = NameServer::start() else { return };
    // How many questions come before `time` is over, one of them for the warning at start; or until so many came.
    let asked_with = |ttl: u32, most: &str, time: Duration, until: usize| {
        names.set(
            &json!({ NAME: { "A": application.addresses().collect::<Vec<_>>(), "ttl": ttl } }),
        );
        let before = names.asked().len();
        let balancer = Balancer::asking(&names, &application, &[("DNS_MAX_TTL", most)]);
        let begun = Instant::now();
        loop {
            drop(balancer.open());
            let asked = names.asked().split_off(before);
            let asked = asked.iter().filter(|line| line.contains(" A ")).count();
            if asked >= until || begun.elapsed() >= time {
                return (asked, begun.elapsed());
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let (asked, _) = asked_with(600, "1h", Duration::from_secs(3), usize::MAX);
    assert_eq!(asked, 2, "once");
    // The first may have come before the clock began.
    for (ttl, most) in [(0, "1h"), (600, "1s"), (1, "1h")] {
        let (asked, took) = asked_with(ttl, most, PATIENCE, 5);
        assert_eq!(asked, 5, "once a second");
        assert!(took >= Duration::from_millis(2_500), "{took:?}: not more often");
    }
}

#[test]
fn service_has_ports_weights_and_a_place_for_bad_times() {
    let mut application = Application::start(3);
    let Some(names) = NameServer::start() else { return };
    let service = format!("_ws._tcp.{NAME}");
    let host = |number: usize| format!("host-{number}.{NAME}");
    let mut zone = serde_json::Map::new();
    for (number, address) in (1..).zip(application.addresses()) {
        zone.insert(host(number), json!({ "A": [address] }));
    }
    let port = application.port;
    zone.insert(
        service.clone(),
        json!({ "SRV": [
            [10, 30, port, host(1)], [10, 10, port, host(2)], [20, 0, port, host(3)], [10, 5, 0, host(3)],
        ] }),
    );
    names.set(&Value::Object(zone));
    let destination = format!("srv+{service}");
    let balancer = Balancer::start(|own| {
        // The port of the setting is nobody's.
        let settings = [own, &[("DESTINATION_HOSTNAME", &*destination)]].concat();
        names.elbows(free_port(), &settings)
    });
    let mut clients: Vec<_> = (0..80).map(|_| balancer.open()).collect();
    balancer.wait_for(&[(1, "up", 60), (2, "up", 20), (3, "up", 0)]);
    application.refuse(1);
    application.refuse(2);
    clients.extend((0..5).map(|_| balancer.open()));
    wait_until("the other priority has them", || {
        balancer.endpoints()[&3] == (String::from("up"), 5)
    });
}

#[test]
fn name_without_dots_is_looked_for_in_search_domains() {
    let application = Application::start(1);
    let Some(names) = NameServer::start() else { return };
    names.set(&json!({ NAME: { "A": application.addresses().collect::<Vec<_>>() } }));
    let (short, domain) = NAME.split_once('.').unwrap();
    names.search(&["nowhere.test", domain]);
    let balancer = Balancer::asking(&names, &application, &[("DESTINATION_HOSTNAME", short)]);
    balancer.open().echoes();
    let nowhere = format!("asked {short}.nowhere.test A udp");
    assert!(names.asked().contains(&nowhere), "{:?}", names.asked());
}

#[test]
fn tunnels_that_are_handed_over_count_where_they_are() {
    let application = Application::start(2);
    let directory = tempfile::tempdir().unwrap();
    let main = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let socket = directory.path().join("handoff.sock");
    let (main_text, socket) = (main.to_string(), socket.to_str().unwrap().to_owned());
    let settings = [("HANDOFF_SOCKET", &*socket), ("LISTEN_ON", &*main_text)];
    let start = || {
        Balancer::start(|own| {
            let (command, _) = Balancer::command(&application, &[own, &settings].concat());
            Elbows::spawn(command, main)
        })
    };
    let mut old = start();
    let mut clients: Vec<_> = (0..10).map(|_| old.open()).collect();
    application.close(2);
    old.wait_for(&[(1, "up", 5), (2, "up", 0)]);
    let new = start();
    new.elbows.log.wait_for("handoff from=");
    assert_eq!(old.elbows.wait().code(), Some(0));
    new.wait_for(&[(1, "up", 5), (2, "up", 0)]);
    clients.extend((0..5).map(|_| new.open()));
    new.wait_for(&[(1, "up", 5), (2, "up", 5)]);
}
