//! How evenly tunnels are spread over endpoints, also over two that come late, and what evening them out costs.

use std::net::{SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Bench, table};
use crate::Fallible;
use crate::load::Work;
use crate::measure::{read, sockets};
use crate::process::{GLANCE, Process};
use crate::proxies::{Endpoints, Proxy, Setup};
use crate::report::{Chart, Goal, Section};
use crate::stage::Stage;

/// Tunnels in all; the last ones, one in so many, are opened when all endpoints are there.
const TUNNELS: usize = 9_000;
const LAST: usize = 40;

/// Endpoints, and those of them that come late.
const ENDPOINTS: u8 = 10;
const LATE: u8 = 2;

/// How long a proxy has to find that an endpoint is there, and elbows to even out: at 30 % a minute a fifth of all takes
/// 40 s, and 10 s before it.
const FOUND: Duration = Duration::from_secs(90);
const EVEN: Duration = Duration::from_secs(120);

/// The largest share of an endpoint, by the mean of all.
struct Balanced {
    early: f64,
    opened: f64,
    evened: f64,
    /// Clients that got a Close for it, in percent of all.
    closes: f64,
}

pub(super) fn run(bench: &Bench) -> Fallible<Section> {
    let name = "balance";
    let who: Vec<_> = [Proxy::Elbows, Proxy::Nginx, Proxy::Haproxy, Proxy::Envoy]
        .into_iter()
        .filter(|proxy| bench.proxies.contains(proxy))
        .collect();
    let found = bench.in_turn(name, &who, |proxy| measure(bench, proxy))?;
    let table = table(
        "proxy",
        &found,
        &[
            ("8 endpoints", 2, &|one: &Balanced| one.early),
            ("2 more have come", 2, &|one| one.opened),
            ("a while later", 2, &|one| one.evened),
            ("closed for it, %", 1, &|one| one.closes),
        ],
    );
    let own = |column| table.get(Proxy::Elbows.as_str(), column).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Balance, 9,000 tunnels over 10 endpoints of which 2 come late",
        text: "The tunnels of the fullest endpoint, by the mean: of 8,775 over 8 endpoints, and of 9,000 over 10 once two have come \
               and the rest has opened. elbows: `BALANCE=least_tunnels`, `REBALANCE=30%/min`, and the last two columns are of \
               when it has evened out; clients that are closed come back at once. nginx: `least_conn`, HAProxy: `leastconn`, \
               Envoy: `LEAST_REQUEST`; their tunnels stay where they are."
            .to_owned(),
        chart: Some(Chart::of(&table, "tunnels of the fullest endpoint, by the mean", &[0, 1, 2])),
        goals: vec![
            Goal::at_most("fullest of 8 endpoints, by the mean", 1.1, own(0), 2),
            Goal::at_most("fullest of 10 after evening out, by the mean", 1.2, own(2), 2),
        ],
        table,
    })
}

fn measure(bench: &Bench, proxy: Proxy) -> Fallible<(Balanced, String)> {
    let tunnels = bench.size(TUNNELS);
    let endpoints = Endpoints { number: ENDPOINTS, port: free_port()? };
    let setup = Setup { more: &[("REBALANCE", "30%/min")], ..Setup::default() };
    let early = usize::from(ENDPOINTS - LATE);
    let mut stage = bench.rig.stage_before(proxy, &setup, endpoints, early)?;
    until_late_ones_are_left_out(&stage)?;
    let mut loads: Vec<Process> = Vec::new();
    let last = tunnels.div_ceil(LAST);
    loads.push(stage.keep_up(tunnels - last, Work::Return)?);
    let share_early = fullest(endpoints, early)?;

    for address in endpoints.addresses().skip(early) {
        stage.add_endpoint(address)?;
    }
    until_used(&stage, endpoints, early)?;
    loads.push(stage.keep_up(last, Work::Return)?);
    let all = usize::from(ENDPOINTS);
    let opened = fullest(endpoints, all)?;
    let mut evened = opened;
    if proxy == Proxy::Elbows {
        // Until the last of those that are closed is back.
        let start = Instant::now();
        while evened > 1.1 || sum(endpoints)? < tunnels {
            if start.elapsed() > EVEN {
                return Err(format!("the fullest endpoint still has {evened:.2} times the mean"));
            }
            stage.expect_alive()?;
            sleep(GLANCE * 10);
            evened = fullest(endpoints, all)?;
        }
    }
    let mut closes = 0;
    for load in loads {
        closes += stage.finish(load)?.closes.len();
    }
    let closes = closes as f64 * 100.0 / tunnels as f64;
    let said = format!("{share_early:.2}, {opened:.2}, {evened:.2} of the mean");
    Ok((Balanced { early: share_early, opened, evened, closes }, said))
}

/// Connections at each endpoint.
fn connections(endpoints: Endpoints) -> Fallible<Vec<usize>> {
    let all = read(sockets::established())?;
    let of = |address: SocketAddr| all.get(&address).copied().unwrap_or_default();
    Ok(endpoints.addresses().map(of).collect())
}

fn sum(endpoints: Endpoints) -> Fallible<usize> {
    Ok(connections(endpoints)?.iter().sum())
}

/// The most that one of the first so many endpoints has, by the mean.
fn fullest(endpoints: Endpoints, there: usize) -> Fallible<f64> {
    let all = connections(endpoints)?;
    let most = all.iter().max().copied().unwrap_or_default();
    let mean = all.iter().sum::<usize>() as f64 / there as f64;
    Ok(most as f64 / mean.max(1.0))
}

/// Asks until each request of many in a row is answered: the proxy knows which endpoints are not there.
fn until_late_ones_are_left_out(stage: &Stage<'_>) -> Fallible<()> {
    let start = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 5 * u32::from(ENDPOINTS) {
        match stage.ask() {
            Ok(_) => in_a_row += 1,
            Err(_) if start.elapsed() < FOUND => in_a_row = 0,
            Err(fault) => return Err(format!("it does not serve: {fault}")),
        }
        // As long as a check of an endpoint takes to come round, all together.
        sleep(GLANCE * 5);
    }
    Ok(())
}

/// Asks until the proxy uses each endpoint that has come late.
fn until_used(stage: &Stage<'_>, endpoints: Endpoints, early: usize) -> Fallible<()> {
    let start = Instant::now();
    while connections(endpoints)?.iter().skip(early).any(|number| *number == 0) {
        if start.elapsed() > FOUND {
            return Err("it does not use the endpoints that have come".to_owned());
        }
        // One that is asked of an endpoint that is not known to be there is answered by another one.
        stage.ask().map_err(|fault| format!("it does not serve: {fault}"))?;
        sleep(GLANCE * 5);
    }
    Ok(())
}

/// A port that is free at each address.
fn free_port() -> Fallible<u16> {
    for _ in 0..100 {
        let port = crate::process::free_address()?.port();
        let all = Endpoints { number: ENDPOINTS, port };
        if all.addresses().all(|address| TcpListener::bind(address).is_ok()) {
            return Ok(port);
        }
    }
    Err("no port is free at ten addresses".to_owned())
}
