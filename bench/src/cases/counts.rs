//! Instructions, allocations and system calls per round trip, per handshake and per plain request: counts that noise
//! does not reach.

use std::collections::BTreeSet;

use super::Bench;
use crate::Fallible;
use crate::heads::WEBSOCKET;
use crate::load::{Until, Work};
use crate::measure::counts::{ALLOCATIONS, Counter, Counts, INSTRUCTIONS, difference};
use crate::proxies::{Proxy, Setup};
use crate::report::{Cell, Chart, Goal, Group, Section, Table};

/// Connections, or handshakes at a time.
pub(super) const CONNECTIONS: usize = 20;

/// What is counted less often than this belongs to the clock and not to the work.
const SELDOM: f64 = 0.005;

/// What is counted one more of.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    RoundTrip,
    Handshake,
    Request,
}

impl Unit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::RoundTrip => "round trip",
            Self::Handshake => "handshake",
            Self::Request => "plain request",
        }
    }

    /// So many are done in the short run and in the long one.
    pub(super) const fn counts(self, bench: &Bench) -> (u64, u64) {
        match (self, bench.is_quick) {
            (Self::RoundTrip | Self::Request, false) => (2_000, 12_000),
            (Self::RoundTrip | Self::Request, true) => (200, 400),
            (Self::Handshake, false) => (200, 1_200),
            (Self::Handshake, true) => (20, 60),
        }
    }

    pub(super) fn work(self) -> Work {
        match self {
            Self::RoundTrip => Work::Echo { size: 64, protocol: WEBSOCKET.to_owned() },
            Self::Handshake => Work::Handshakes,
            Self::Request => Work::Get { is_large: false },
        }
    }
}

/// What the tables of [`Unit`]s have.
const COLUMNS: [&str; 3] = ["per 64 B round trip", "per handshake", "per plain request"];

pub(super) fn instructions(bench: &Bench) -> Fallible<Section> {
    let name = "instructions";
    let table = by_unit(bench, name, Counter::Callgrind, INSTRUCTIONS, 0, |proxy| {
        proxy.is_go().then_some("Go does not run under valgrind")
    })?;
    let own = |column| table.get(Proxy::Elbows.as_str(), column).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Instructions in user space",
        text: "Each proxy as one process under `valgrind --tool=callgrind`, 20 connections, 64 B: two runs of \
               different length, the difference of their counts divided by the difference of their lengths. Free of \
               noise; what the kernel does is not in it. A handshake is a connection from its opening to its end, a plain \
               request a GET of 1 KiB on a connection that is kept alive."
            .to_owned(),
        chart: Some(Chart::of(&table, "instructions", &[0, 1, 2])),
        goals: vec![
            Goal::at_most("instructions of elbows per 64 B round trip", 600.0, own(0), 0),
            Goal::at_most("instructions of elbows per plain request", 14_000.0, own(2), 0),
            Goal::at_most("instructions of elbows per handshake", 22_000.0, own(1), 0),
        ],
        table,
    })
}

pub(super) fn allocations(bench: &Bench) -> Fallible<Section> {
    let name = "allocations";
    let table = by_unit(bench, name, Counter::Memcheck, ALLOCATIONS, 2, |proxy| match proxy {
        Proxy::Envoy => Some("has an allocator of its own"),
        proxy if proxy.is_go() => Some("Go does not run under valgrind"),
        _ => None,
    })?;
    let own = |column| table.get(Proxy::Elbows.as_str(), column).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Allocations",
        text: "As above, under `valgrind --tool=memcheck`: calls of malloc, calloc and realloc, none where they are made \
               less than once in 200 times. A message of 64 B passes \
               both ways in a round trip; nginx and HAProxy take parts of larger blocks of their own."
            .to_owned(),
        chart: None,
        goals: vec![
            Goal::at_most("allocations of elbows per 64 B round trip", 0.0, own(0), 2),
            Goal::at_most("allocations of elbows per plain request", 4.0, own(2), 2),
        ],
        table,
    })
}

/// A count of each proxy for one more of each unit, but for those that cannot be counted, for a reason.
fn by_unit(
    bench: &Bench,
    name: &str,
    counter: Counter,
    count: &str,
    digits: usize,
    cannot: impl Fn(Proxy) -> Option<&'static str>,
) -> Fallible<Table> {
    let mut rows = Vec::new();
    // Under valgrind each run takes seconds, most of them for the start.
    let is_meant = |one: &Proxy| !bench.is_quick || matches!(one, Proxy::Elbows | Proxy::Nginx);
    for proxy in bench.proxies().into_iter().filter(is_meant) {
        let mut cells = Vec::new();
        if let Some(why) = cannot(proxy) {
            cells = vec![Cell::Cannot(why), Cell::None, Cell::None];
        } else {
            for unit in [Unit::RoundTrip, Unit::Handshake, Unit::Request] {
                let counts = one_more(bench, name, counter, proxy, unit)?;
                let value = counts.get(count).copied().filter(|value| *value >= SELDOM);
                cells.push(Cell::Exact(value.unwrap_or_default(), digits));
            }
        }
        rows.push((proxy.as_str().to_owned(), cells));
    }
    Ok(Table { corner: "proxy", columns: COLUMNS.map(str::to_owned).to_vec(), rows })
}

pub(super) fn calls_message(bench: &Bench) -> Fallible<Section> {
    calls(bench, "calls-message", "System calls per 64 B round trip", Unit::RoundTrip)
}

pub(super) fn calls_handshake(bench: &Bench) -> Fallible<Section> {
    calls(bench, "calls-handshake", "System calls per handshake", Unit::Handshake)
}

pub(super) fn calls_request(bench: &Bench) -> Fallible<Section> {
    calls(bench, "calls-request", "System calls per plain request", Unit::Request)
}

fn calls(bench: &Bench, name: &'static str, title: &'static str, unit: Unit) -> Fallible<Section> {
    let mut found = Vec::new();
    for proxy in bench.proxies() {
        let mut counts = one_more(bench, name, Counter::Strace, proxy, unit)?;
        counts.retain(|_, count| *count >= SELDOM);
        found.push((proxy, counts));
    }
    let kinds: BTreeSet<&String> = found.iter().flat_map(|(_, counts)| counts.keys()).collect();
    let all = |counts: &Counts| Cell::Exact(counts.values().sum(), 2);
    let mut rows = vec![("all".to_owned(), found.iter().map(|(_, counts)| all(counts)).collect())];
    for kind in kinds {
        let cell = |(_, counts): &(Proxy, Counts)| {
            counts.get(kind).map_or(Cell::None, |count| Cell::Exact(*count, 2))
        };
        rows.push((kind.clone(), found.iter().map(cell).collect()));
    }
    let bars = found.iter().map(|(proxy, counts)| (proxy.as_str().to_owned(), all(counts)));
    Ok(Section {
        name,
        title,
        text: "As above, 20 connections, counted by `strace -c -f`. Calls that are made less than once in 200 times \
               are left out."
            .to_owned(),
        chart: Some(Chart { unit: "system calls", groups: vec![Group { head: None, bars: bars.collect() }] }),
        goals: Vec::new(),
        table: Table {
            corner: "call",
            columns: found.iter().map(|(proxy, _)| proxy.as_str().to_owned()).collect(),
            rows,
        },
    })
}

/// What one more of `unit` costs.
pub(super) fn one_more(
    bench: &Bench,
    case: &str,
    counter: Counter,
    proxy: Proxy,
    unit: Unit,
) -> Fallible<Counts> {
    let (short, long) = unit.counts(bench);
    let run = |count| -> Fallible<Counts> {
        let cores = &bench.rig.cores.proxy;
        let mut stage = bench.rig.stage_on(cores, proxy, &Setup::default(), Some(counter))?;
        stage.load(CONNECTIONS, unit.work(), Until::Count(count))?;
        let Some(mut process) = stage.proxy.take() else { return Ok(Counts::new()) };
        process.end()?;
        counter.read(&process)
    };
    let both = run(short).and_then(|short| Ok((short, run(long)?)));
    let (few, many) = both.map_err(|fault| format!("{case}, {}: {fault}", proxy.as_str()))?;
    let counts = difference(&few, &many, (long - short) as f64);
    let all: f64 = counts.values().sum();
    eprintln!("{case:<15} {:<10} {all:.1} per {}", proxy.as_str(), unit.as_str());
    Ok(counts)
}
