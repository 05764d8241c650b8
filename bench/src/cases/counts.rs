//! Instructions and system calls per round trip and per handshake.

use super::Bench;
use crate::Fallible;
use crate::heads::WEBSOCKET;
use crate::load::{Until, Work};
use crate::measure::counts::{Counter, Counts, INSTRUCTIONS, difference};
use crate::proxies::{Proxy, Setup};
use crate::report::{Cell, Chart, Goal, Section, Table};

/// Connections, or handshakes at a time.
const CONNECTIONS: usize = 20;

/// What is counted one more of.
#[derive(Clone, Copy)]
enum Unit {
    RoundTrip,
    Handshake,
}

impl Unit {
    fn work(self) -> Work {
        match self {
            Self::RoundTrip => Work::Echo { size: 64, protocol: WEBSOCKET.to_owned() },
            Self::Handshake => Work::Handshakes,
        }
    }
}

pub(super) fn instructions(bench: &Bench) -> Fallible<Section> {
    let name = "instructions";
    let (mut rows, mut own) = (Vec::new(), [0.0; 2]);
    for proxy in Proxy::ALL {
        let mut each = [0.0; 2];
        for (unit, each) in [Unit::RoundTrip, Unit::Handshake].into_iter().zip(&mut each) {
            let counts = one_more(bench, name, Counter::Callgrind, proxy, unit)?;
            *each = counts.get(INSTRUCTIONS).copied().unwrap_or_default();
        }
        if proxy == Proxy::Elbows {
            own = each;
        }
        let cells = each.map(|each| Cell::Exact(each, 0)).to_vec();
        rows.push((proxy.as_str().to_owned(), cells));
    }
    let [round_trip, handshake] = own;
    Ok(Section {
        name,
        title: "Instructions in user space",
        text: "Each proxy as one process under `valgrind --tool=callgrind`, 20 connections, 64 B: two runs of \
               different length, the difference of their counts divided by the difference of their lengths. Free of \
               noise; what the kernel does is not in it."
            .to_owned(),
        table: Table {
            corner: "proxy",
            columns: vec!["per 64 B round trip".to_owned(), "per handshake".to_owned()],
            rows,
        },
        chart: Some(Chart { unit: "instructions", columns: vec![0, 1] }),
        goals: vec![
            Goal::at_most("instructions of elbows per 64 B round trip", 700.0, round_trip, 0),
            Goal::at_most("instructions of elbows per handshake", 29_500.0, handshake, 0),
        ],
    })
}

/// What one more of `unit` costs.
fn one_more(
    bench: &Bench,
    case: &str,
    counter: Counter,
    proxy: Proxy,
    unit: Unit,
) -> Fallible<Counts> {
    let (short, long) = match (unit, bench.is_quick) {
        (Unit::RoundTrip, false) => (2_000, 12_000),
        (Unit::RoundTrip, true) => (200, 400),
        (Unit::Handshake, false) => (200, 1_200),
        (Unit::Handshake, true) => (40, 80),
    };
    let run = |count| -> Fallible<Counts> {
        let cores = &bench.theatre.cores.proxy;
        let mut stage = bench.theatre.stage_on(cores, proxy, &Setup::default(), Some(&counter))?;
        stage.load(CONNECTIONS, unit.work(), Until::Count(count))?;
        let Some(mut process) = stage.proxy.take() else { return Ok(Counts::new()) };
        process.end()?;
        counter.read(&process)
    };
    let told = |fault| format!("{case}, {}: {fault}", proxy.as_str());
    let counts =
        difference(&run(short).map_err(told)?, &run(long).map_err(told)?, (long - short) as f64);
    let all: f64 = counts.values().sum();
    let unit = match unit {
        Unit::RoundTrip => "round trip",
        Unit::Handshake => "handshake",
    };
    eprintln!("{case:<14} {:<12} {all:.1} per {unit}", proxy.as_str());
    Ok(counts)
}
