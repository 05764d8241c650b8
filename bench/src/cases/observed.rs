//! What it costs to be looked at: the admin port, a scrape each second, and listings.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::counts::{CONNECTIONS, Unit};
use super::memory::still;
use super::{Bench, table};
use crate::Fallible;
use crate::load::Until;
use crate::measure::counts::{Counter, Counts, INSTRUCTIONS, difference};
use crate::measure::{cpu, read};
use crate::process::free_address;
use crate::proxies::{Proxy, Setup};
use crate::report::{Goal, Section};

/// Tunnels that are held.
const TUNNELS: usize = 9_000;

/// Scrapes, a second apart, and listings, one behind the other.
const SCRAPES: usize = 5;
const LISTINGS: usize = 100;

/// The whole of a listing is looked at, and the most of it written down.
const LISTING: &str = "/api/tunnels?sort=-idle&limit=1000";

const OFF: &str = "admin port off";
const ON: &str = "on, scraped each second";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Observed {
    instructions: f64,
    bytes: f64,
    scrape: Scrape,
    listing: f64,
    long_rounds: f64,
}

/// One scrape.
#[derive(Default)]
struct Scrape {
    /// Milliseconds of CPU time.
    cpu: f64,
    kib: f64,
}

pub(super) fn run(bench: &Bench) -> Fallible<Section> {
    let name = "observed";
    let found = bench.alternate(name, &[(false, OFF), (true, ON)], |is_on| {
        let mut observed = held(bench, is_on)?;
        if is_on {
            (observed.listing, observed.long_rounds) = listed(bench)?;
        }
        observed.instructions = instructions(bench, is_on)?;
        let said = format!(
            "{:.0} instructions, {:.0} bytes, {:.1} ms a scrape",
            observed.instructions, observed.bytes, observed.scrape.cpu
        );
        Ok((observed, said))
    })?;
    let table = table(
        "elbows",
        &found,
        &[
            ("instructions per 64 B round trip", 0, &|one: &Observed| one.instructions),
            ("bytes per idle tunnel", 0, &|one| one.bytes),
            ("CPU of a scrape, ms", 2, &|one| one.scrape.cpu),
            ("KiB of a scrape", 1, &|one| one.scrape.kib),
            ("ms of a listing", 1, &|one| one.listing),
            ("rounds over 1 ms in 100 listings", 0, &|one| one.long_rounds),
        ],
    );
    let on = |column| table.get(ON, column).unwrap_or_default().median;
    let goals = vec![
        Goal::at_most("instructions of a watched elbows per 64 B round trip", 600.0, on(0), 0),
        Goal::at_most("bytes of a watched elbows per idle tunnel", 482.0, on(1), 0),
        Goal::at_most("CPU ms of a scrape with 9,000 tunnels", 5.0, on(2), 2),
        Goal::at_most("KiB of a scrape with 9,000 tunnels", 32.0, on(3), 1),
        Goal::at_most(
            "rounds of workers over 1 ms in 100 listings of 9,000 tunnels",
            0.0,
            on(5),
            0,
        ),
    ];
    Ok(Section {
        name,
        title: "Being watched, 9,000 tunnels",
        text: format!(
            "`ADMIN_LISTEN_ON` and a scrape of `/metrics` each second, beside an elbows without. Instructions as below; \
             both runs have the same number of scrapes, so that these are not in the difference. A listing is `GET \
             {LISTING}`. Rounds of workers are those that `elbows_worker_round_seconds` counts: times by the clock, so \
             that what else the kernel runs on that core is in them."
        ),
        table,
        chart: None,
        goals,
    })
}

/// Setup, and the admin port where it is on.
fn setup(is_on: bool) -> Fallible<(Setup, Option<SocketAddr>)> {
    let admin = if is_on { Some(free_address()?) } else { None };
    Ok((Setup { admin, ..Setup::DEFAULT }, admin))
}

/// With many idle tunnels: memory, scrapes and listings.
fn held(bench: &Bench, is_on: bool) -> Fallible<Observed> {
    let (setup, admin) = setup(is_on)?;
    let mut stage = bench.rig.stage(Proxy::Elbows, &setup)?;
    let tunnels = bench.size(TUNNELS);
    // What the first of all takes is not one of theirs.
    let first = stage.hold(1)?;
    stage.finish(first)?;
    if let Some(admin) = admin {
        get(admin, "/metrics")?;
    }
    let before = still(bench, &mut stage)?;
    let load = stage.hold(tunnels)?;
    let mut observed = Observed::default();
    if let Some(admin) = admin {
        let every = if bench.is_quick { Duration::ZERO } else { Duration::from_secs(1) };
        for _ in 0..SCRAPES {
            // A scrape each second is what is measured.
            sleep(every);
            let used = read(cpu::of(stage.pid()))?;
            observed.scrape.kib = get(admin, "/metrics")?.len() as f64 / 1024.0;
            let used = read(cpu::of(stage.pid()))? - used;
            observed.scrape.cpu += used as f64 / 1e6 / SCRAPES as f64;
        }
    }
    observed.bytes = (still(bench, &mut stage)? - before) / tunnels as f64;
    stage.finish(load)?;
    Ok(observed)
}

/// With as many tunnels: milliseconds of a listing, and rounds that took long meanwhile. Nothing else is done then, so that
/// control and the worker have a core each.
fn listed(bench: &Bench) -> Fallible<(f64, f64)> {
    let (setup, admin) = setup(true)?;
    let Some(admin) = admin else { return Ok((0.0, 0.0)) };
    let cores = [&bench.rig.cores.proxy[..], &bench.rig.cores.load].concat();
    let mut stage = bench.rig.stage_on(&cores, Proxy::Elbows, &setup, None)?;
    let load = stage.hold(bench.size(TUNNELS))?;
    let listings = bench.size(LISTINGS);
    get(admin, LISTING)?;
    let (start, long) = (Instant::now(), long_rounds(admin)?);
    for _ in 0..listings {
        get(admin, LISTING)?;
    }
    let each = start.elapsed().as_secs_f64() * 1e3 / listings as f64;
    let long = long_rounds(admin)? - long;
    stage.finish(load)?;
    Ok((each, long))
}

/// Instructions of one more round trip.
fn instructions(bench: &Bench, is_on: bool) -> Fallible<f64> {
    let unit = Unit::RoundTrip;
    let (short, long) = unit.counts(bench);
    let run = |count| -> Fallible<Counts> {
        let (setup, admin) = setup(is_on)?;
        let counter = Counter::Callgrind;
        let cores = &bench.rig.cores.proxy;
        let mut stage = bench.rig.stage_on(cores, Proxy::Elbows, &setup, Some(counter))?;
        if let Some(admin) = admin {
            get(admin, "/metrics")?;
        }
        stage.load(CONNECTIONS, unit.work(), Until::Count(count))?;
        let Some(mut process) = stage.proxy.take() else { return Ok(Counts::new()) };
        process.end()?;
        counter.read(&process)
    };
    let counts = difference(&run(short)?, &run(long)?, (long - short) as f64);
    Ok(counts.get(INSTRUCTIONS).copied().unwrap_or_default())
}

/// Rounds of workers that took more than a millisecond, so far.
fn long_rounds(admin: SocketAddr) -> Fallible<f64> {
    let scrape = get(admin, "/metrics")?;
    let value = |series: &str| -> Fallible<f64> {
        let line = scrape.lines().find_map(|line| line.strip_prefix(series));
        let value = line.and_then(|value| value.trim().parse().ok());
        value.ok_or_else(|| format!("a scrape has no {series}"))
    };
    let all = value("elbows_worker_round_seconds_count ")?;
    Ok(all - value("elbows_worker_round_seconds_bucket{le=\"0.001\"} ")?)
}

/// The body of an answer.
fn get(admin: SocketAddr, target: &str) -> Fallible<String> {
    let fault = |fault| format!("{target} of the admin port: {fault}");
    let ask = || {
        let mut socket = TcpStream::connect(admin)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(socket, "GET {target} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error: std::io::Error| fault(error.to_string()))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(fault(answer.lines().next().unwrap_or("no answer").to_owned())),
    }
}
