//! Tunnels are evened out when endpoints come, and those of endpoints that are gone are closed: each client hears so by a
//! Close 1012, and comes back.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use super::application::Application;
use super::crowd::{Crowd, is_busy};
use super::name_server::{NAME, NameServer};
use super::{Balancer, tunnels};
use crate::admin::ask;
use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::proxy::{Elbows, free_port};
use crate::web_socket::Peer;

/// How long it is watched that nothing happens: several steps of what closes tunnels.
const A_WHILE: Duration = Duration::from_secs(2);

/// The name has the first so many addresses.
fn answer(names: &NameServer, application: &Application, number: usize) {
    let addresses: Vec<_> = application.addresses().take(number).collect();
    names.set(&json!({ NAME: { "A": addresses, "ttl": 1 } }));
}

impl Balancer {
    fn wait_for_all(&self, number: u64) {
        wait_until("all tunnels are counted", || {
            tunnels(&self.endpoints()).iter().sum::<u64>() == number
        });
    }

    fn metric(&self, series: &str) -> u64 {
        let text = ask(self.admin, "GET", "/metrics", "").text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |number| number.parse().unwrap())
    }

    /// Lines of tunnels that ended for this reason.
    fn ends(&self, why: &str) -> usize {
        let end = format!("by=elbows during=relay why={why}");
        self.elbows.access_log.all().iter().filter(|line| line.contains(&end)).count()
    }

    fn logs(&self, text: &str) -> bool {
        self.elbows.log.all().iter().any(|line| line.contains(text))
    }
}

#[test]
fn new_endpoint_gets_its_share_and_busy_tunnels_are_left_alone() {
    let application = Application::start(4);
    let Some(names) = NameServer::start() else { return };
    answer(&names, &application, 3);
    let balancer = Balancer::asking(&names, &application, &[("REBALANCE", "10%/s")]);
    let crowd = Crowd::start(balancer.elbows.address, 600);
    balancer.wait_for_all(600);
    assert_eq!(balancer.metric("elbows_rebalancing"), 0);
    answer(&names, &application, 4);
    balancer.elbows.log.wait_for("tunnels are evened out (REBALANCE): ");
    wait_until("it is seen in the metrics", || balancer.metric("elbows_rebalancing") == 1);
    balancer.elbows.log.wait_for("tunnels are even: ");
    crowd.wait_for(600);
    balancer.wait_for_all(600);

    let counts = tunnels(&balancer.endpoints());
    assert!(counts.iter().all(|count| (120..=160).contains(count)), "{counts:?}");
    let closes = crowd.closes();
    assert_eq!(crowd.codes(), BTreeSet::from([1012]));
    assert_eq!(crowd.broken(), 0);
    // 150 is its share, and each tunnel that was closed came to it.
    assert!((120..=165).contains(&closes.len()), "{}", closes.len());
    let busy: Vec<_> = closes.iter().filter(|close| is_busy(close.client)).collect();
    assert!(busy.is_empty(), "{busy:?}");
    let took = closes.iter().map(|close| close.at).max().unwrap() - closes[0].at;
    assert!(took > Duration::from_secs(1), "{took:?}: they go at the pace");

    wait_until("all ends are told", || balancer.ends("rebalanced") == closes.len());
    let series = "elbows_tunnels_closed_total{by=\"elbows\",during=\"relay\",why=\"rebalanced\"}";
    assert_eq!(balancer.metric(series), closes.len() as u64);
    assert_eq!(balancer.metric("elbows_rebalancing"), 0);
    crowd.is_left_alone_for(A_WHILE);
}

#[test]
fn nothing_is_closed_for_it_while_an_endpoint_has_failed_or_the_process_drains() {
    let mut application = Application::start(4);
    let Some(names) = NameServer::start() else { return };
    answer(&names, &application, 3);
    let settings = [("REBALANCE", "50%/min"), ("DRAIN_DELAY", "3s"), ("DRAIN_PERIOD", "0s")];
    let mut balancer = Balancer::asking(&names, &application, &settings);
    let crowd = Crowd::start(balancer.elbows.address, 240);
    answer(&names, &application, 4);
    wait_until("some are closed", || crowd.closes().len() > 3);
    application.refuse(2);
    let mut others = Vec::new();
    wait_until("it is known", || {
        others.push(balancer.open());
        balancer.endpoints()[&2].0 == "failed"
    });
    balancer.elbows.log.wait_for("tunnels are not evened out any more");
    crowd.wait_for(240);
    crowd.is_left_alone_for(A_WHILE);

    // It is gone, and the others are left: it begins again, until the process is told to stop.
    let addresses: Vec<_> = application.addresses().enumerate().collect();
    let left: Vec<_> =
        addresses.iter().filter(|(place, _)| *place != 1).map(|(_, address)| address).collect();
    names.set(&json!({ NAME: { "A": left, "ttl": 1 } }));
    let before = crowd.closes().len();
    wait_until("more are closed", || crowd.closes().len() > before + 3);
    crowd.stay_away();
    let begins = |log: &[String]| log.iter().filter(|line| line.contains("not evened out")).count();
    balancer.elbows.drain();
    balancer.elbows.log.wait_until("the end of it", |log| (begins(log) == 2).then_some(()));
    let before = balancer.ends("rebalanced");
    assert!(balancer.elbows.wait().success());
    // What was under way, and no more.
    assert!(balancer.ends("rebalanced") <= before + 30);
    let log = balancer.elbows.access_log.all();
    assert!(log.iter().any(|line| line.contains("during=drain why=drained")));
    assert_eq!(begins(&balancer.elbows.log.all()), 2);
}

#[test]
fn tunnels_of_an_endpoint_that_is_gone_are_closed_over_the_period() {
    let application = Application::start(3);
    let Some(names) = NameServer::start() else { return };
    answer(&names, &application, 3);
    let settings = [("ENDPOINT_GONE", "drain"), ("ENDPOINT_GONE_PERIOD", "3s")];
    let balancer = Balancer::asking(&names, &application, &settings);
    let crowd = Crowd::start(balancer.elbows.address, 90);
    // No WebSockets: nobody can be told anything.
    let mut others: Vec<_> = (0..30).map(|_| balancer.open()).collect();
    balancer.wait_for_all(120);
    let (_, gone) = balancer.endpoints()[&3];
    answer(&names, &application, 2);
    wait_until("it is empty", || !balancer.endpoints().contains_key(&3));
    assert!(balancer.logs("is gone: its tunnels, "));
    crowd.wait_for(90);

    assert_eq!((crowd.codes(), crowd.broken()), (BTreeSet::from([1012]), 0));
    let closes = crowd.closes();
    let took = closes.iter().map(|close| close.at).max().unwrap() - closes[0].at;
    assert!(took > Duration::from_millis(1_500), "{took:?}");
    assert_eq!(balancer.ends("endpoint_gone"), usize::try_from(gone).unwrap());
    let ended = usize::try_from(gone).unwrap() - closes.len();
    let before = others.len();
    others.retain_mut(|client| {
        client.socket.set_nonblocking(true).unwrap();
        let is_open =
            client.read_to_end().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        client.socket.set_nonblocking(false).unwrap();
        is_open
    });
    assert_eq!(others.len(), before - ended, "they end as well, the last ones");
    others.iter_mut().for_each(Client::echoes);
    crowd.is_left_alone_for(A_WHILE);
}

#[test]
fn tunnels_stay_by_default_and_where_a_name_does_not_resolve() {
    let application = Application::start(3);
    let Some(names) = NameServer::start() else { return };
    for settings in [&[][..], &[("ENDPOINT_GONE", "drain"), ("ENDPOINT_GONE_PERIOD", "1m")]] {
        let drains = !settings.is_empty();
        answer(&names, &application, 3);
        let balancer = Balancer::asking(&names, &application, settings);
        let crowd = Crowd::start(balancer.elbows.address, 300);
        balancer.wait_for_all(300);
        answer(&names, &application, 1);
        wait_until("two are gone", || {
            let endpoints = balancer.endpoints();
            endpoints.values().filter(|(state, _)| state == "gone").count() == 2
        });
        if drains {
            wait_until("some are closed", || crowd.closes().len() > 3);
        }
        names.set(&json!({ NAME: { "rcode": "SERVFAIL" } }));
        wait_until("it does not resolve", || {
            drop(balancer.endpoints());
            balancer.logs("does not resolve")
        });
        crowd.wait_for(300);
        crowd.is_left_alone_for(A_WHILE);
        assert_eq!(drains, !crowd.closes().is_empty());
        answer(&names, &application, 1);
        if drains {
            let before = crowd.closes().len();
            wait_until("more are closed", || crowd.closes().len() > before + 3);
            answer(&names, &application, 3);
            wait_until("they are back", || {
                balancer.endpoints().values().all(|(state, _)| state == "up")
            });
            crowd.wait_for(300);
        }
        crowd.is_left_alone_for(A_WHILE);
        assert_eq!(crowd.broken(), 0);
    }
}

#[test]
fn message_under_way_is_finished_before_its_tunnel_is_closed() {
    let application = Application::start(2);
    let Some(names) = NameServer::start() else { return };
    answer(&names, &application, 1);
    let settings =
        [("ENDPOINT_GONE", "drain"), ("ENDPOINT_GONE_PERIOD", "0s"), ("DRAIN_GRACE", "30s")];
    let balancer = Balancer::asking(&names, &application, &settings);
    let mut client = Client::behind_balancer(balancer.elbows.address);
    client.send(handshake("/"));
    assert_eq!(client.read_response().status, 101);
    let mut client = Peer::client(client);
    client.send_frame(1, "whole");
    client.expect(1, "whole");
    // The first half; what comes back of it is all that the application has sent of a message.
    client.send(client.frame(1, "half, "));
    client.expect(1, "half, ");
    let addresses: Vec<_> = application.addresses().skip(1).collect();
    names.set(&json!({ NAME: { "A": addresses, "ttl": 1 } }));
    balancer.elbows.log.wait_for("is gone: its tunnels, 1, ");
    client.hears_nothing_for(A_WHILE);
    client.send(client.frame(0x80, "and the rest"));
    client.expect(0, "and the rest");
    client.expect_close(1012);
    client.send_close(1012);
    let (frames, end) = client.read_to_end();
    assert!(frames.is_empty() && end.is_ok(), "{frames:?} {end:?}");
    wait_until("its end is told", || balancer.ends("endpoint_gone") == 1);
}

#[test]
fn process_that_takes_over_goes_on_with_it() {
    let application = Application::start(4);
    let Some(names) = NameServer::start() else { return };
    answer(&names, &application, 3);
    let directory = tempfile::tempdir().unwrap();
    let main = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let socket = directory.path().join("handoff.sock");
    let (main_text, socket) = (main.to_string(), socket.to_str().unwrap().to_owned());
    let start = |pace: &str| {
        let settings =
            [("HANDOFF_SOCKET", &*socket), ("LISTEN_ON", &*main_text), ("REBALANCE", pace)];
        Balancer::start(|own| {
            let (command, _) = names.command(application.port, &[own, &settings].concat());
            Elbows::spawn(command, main)
        })
    };
    let mut old = start("50%/min");
    let crowd = Crowd::start(main, 240);
    answer(&names, &application, 4);
    wait_until("some are closed", || crowd.closes().len() > 3);
    let new = start("20%/s");
    new.elbows.log.wait_for("handoff from=");
    assert!(old.elbows.wait().success());
    new.elbows.log.wait_for("tunnels are even: ");
    crowd.wait_for(240);
    new.wait_for_all(240);
    let counts = tunnels(&new.endpoints());
    assert!(counts.iter().all(|count| (45..=66).contains(count)), "{counts:?}");
    assert_eq!((crowd.codes(), crowd.broken()), (BTreeSet::from([1012]), 0));
    assert!(crowd.closes().len() <= 75, "{}", crowd.closes().len());
    assert!(new.ends("rebalanced") > 10);
}
