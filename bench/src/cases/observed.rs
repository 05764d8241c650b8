//! What it costs to be looked at: the admin port, a scrape each second, and listings.

use std::fs;
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

/// Parts of each kind whose time is taken.
const PARTS: usize = 500;

/// A page of as many tunnels as one part writes down: it asks for one more, to see whether there are more.
const PAGE: &str = "/api/tunnels?limit=31";

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
    parts: Parts,
    long_rounds: f64,
}

/// Milliseconds of CPU time that one part of a listing takes a worker.
#[derive(Default)]
struct Parts {
    p99: f64,
    longest: f64,
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
            (observed.listing, observed.parts, observed.long_rounds) = listed(bench)?;
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
            ("CPU of a part, p99, ms", 3, &|one| one.parts.p99),
            ("longest, ms", 3, &|one| one.parts.longest),
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
            "CPU ms of a worker for the longest part of a listing of 9,000 tunnels",
            1.0,
            on(6),
            3,
        ),
    ];
    Ok(Section {
        name,
        title: "Being watched, 9,000 tunnels",
        text: format!(
            "`ADMIN_LISTEN_ON` and a scrape of `/metrics` each second, beside an elbows without. Instructions as below; \
             both runs have the same number of scrapes, so that these are not in the difference. A listing is `GET \
             {LISTING}`. A worker answers in parts, one in a round, and messages wait for a part and no longer: what one \
             takes is the goal. It is the CPU time of the worker's thread, as the kernel counts it, from before a request \
             of which one part is the whole until the worker sleeps again: {PARTS} each that write down as many tunnels \
             as a part may, that look at a thousand tunnels for a path that nobody has, and that compare the addresses of \
             250 with a text. The longest and the p99 are of all of them. Rounds over 1 ms are those that \
             `elbows_worker_round_seconds` counts by the clock in {LISTINGS} listings: the load, control and the worker \
             share two cores then, so that most of what is long there is a worker that the kernel let wait, which elbows \
             does not cause. They have no goal."
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

/// With as many tunnels: milliseconds of a listing, what parts cost, and rounds that took long meanwhile. Nothing else is done then, so that
/// control and the worker have a core each.
fn listed(bench: &Bench) -> Fallible<(f64, Parts, f64)> {
    let (setup, admin) = setup(true)?;
    let Some(admin) = admin else { return Ok(Default::default()) };
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
    let parts = parts(bench, admin, stage.pid())?;
    stage.finish(load)?;
    Ok((each, parts, long))
}

/// The time of single parts. A worker that has nothing to do sleeps, so that what its thread has run by then is exact.
fn parts(bench: &Bench, admin: SocketAddr, pid: u32) -> Fallible<Parts> {
    let tunnels = bench.size(TUNNELS);
    let kinds = [
        PAGE.to_owned(),
        format!("/api/tunnels?path=nobody{}", behind(admin, tunnels.saturating_sub(PLACES))?),
        format!(
            "/api/tunnels?search=999.999{}",
            behind(admin, tunnels.saturating_sub(PLACES / 4))?
        ),
    ];
    let mut times = Vec::new();
    for target in kinds {
        for _ in 0..bench.size(PARTS) {
            let before = run_by_workers(pid)?;
            get(admin, &target)?;
            times.push((run_by_workers(pid)? - before) as f64 / 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    Ok(Parts { p99: at(times.len() * 99 / 100), longest: at(times.len().saturating_sub(1)) })
}

/// Places of so many tunnels are less than the 1,024 that a part looks at, and a quarter of them less than the 256 whose
/// addresses it compares.
const PLACES: usize = 1_000;

/// The parameter with which a list begins behind so many tunnels.
fn behind(admin: SocketAddr, tunnels: usize) -> Fallible<String> {
    let (mut cursor, mut left) = (String::new(), tunnels);
    while left > 0 {
        let limit = left.min(PLACES);
        let page = get(admin, &format!("/api/tunnels?limit={limit}{cursor}"))?;
        let page: serde_json::Value =
            serde_json::from_str(&page).map_err(|fault| fault.to_string())?;
        let next = page
            .get("next")
            .and_then(|next| next.as_str())
            .ok_or("a list ends before its last page")?;
        (cursor, left) = (format!("&cursor={next}"), left - limit);
    }
    Ok(cursor)
}

/// Nanoseconds that the workers' threads have run (schedstat, Documentation/scheduler/sched-stats.rst), once they sleep.
fn run_by_workers(pid: u32) -> Fallible<u64> {
    let told = |fault: std::io::Error| format!("the threads of {pid}: {fault}");
    let now = || -> Fallible<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(told)? {
            let thread = thread.map_err(told)?.path();
            let of = |file: &str| fs::read_to_string(thread.join(file)).map_err(told);
            if of("comm")?.starts_with("worker-") {
                let text = of("schedstat")?;
                let ran = text.split(' ').next().and_then(|ran| ran.parse::<u64>().ok());
                sum += ran.ok_or("schedstat has no number")?;
            }
        }
        Ok(sum)
    };
    let mut before = now()?;
    loop {
        // A part takes less, and so it is over, or the number has changed.
        sleep(Duration::from_micros(200));
        let after = now()?;
        if after == before {
            return Ok(after);
        }
        before = after;
    }
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
