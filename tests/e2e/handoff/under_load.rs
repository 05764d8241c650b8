//! Handoffs in a row under the load of `load`: nothing is lost, nobody is cut, and what a process has in the end is what
//! the first one had.
//!
//! How long tunnels stood still is printed and not judged: the machine may be busy with other tests. What the clients
//! saw is printed beside how late they themselves were woken. The long run shows a summary of both.

use std::collections::HashMap;
use std::env;
use std::io::{self, Write as _};
use std::time::Instant;

use rustix::process::Signal;
use test_support::left_out::{LONG, left_out};
use test_support::log_line::value;
use test_support::process::{open_descriptors, raise_descriptor_limit};

use super::{Place, number};
use crate::load::{Application, Clients, Report, mixture};
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::under_load::{assert_is_logged, is_mixed};

/// How much of it.
struct Load {
    tunnels: usize,
    /// Processes that share them.
    processes: usize,
    handoffs: usize,
    /// The handoff after which memory and descriptors do not grow any more.
    settled: usize,
}

/// What the normal run has the time for.
const SHORT: Load = Load { tunnels: 300, processes: 1, handoffs: 5, settled: 2 };

/// As many tunnels as 20,000 descriptors allow for: a process that takes over is to have as many free as two for each, and
/// 256.
const LONG_LOAD: Load = Load { tunnels: 9_000, processes: 2, handoffs: 100, settled: 10 };

/// A request that runs through a handoff may be as long as the download. A stalled reader takes 128 KiB in 5 s: megabytes that
/// are in the kernel's buffers in front of a Ping, or of the next byte that elbows may write, take it minutes.
const SETTINGS: [(&str, &str); 6] = [
    ("LOG", "info"),
    ("DRAIN_PERIOD", "120s"),
    ("PING_INTERVAL", "5s"),
    ("PONG_TIMEOUT", "1h"),
    ("STALL_TIMEOUT", "1h"),
    ("ACCESS_LOG", "text"),
];

/// What a process that serves has.
#[derive(Debug)]
struct Footprint {
    /// Resident memory, in kB.
    memory: u64,
    descriptors: usize,
}

impl Footprint {
    fn of(elbows: &Elbows) -> Self {
        let descriptors = open_descriptors(elbows.pid()).len();
        Self { memory: elbows.memory("VmRSS"), descriptors }
    }
}

#[test]
fn handoffs_in_a_row_cut_nobody_and_lose_nothing() {
    let is_long = env::var_os(LONG).is_some();
    if !is_long {
        left_out("9,000 tunnels and 100 handoffs; `cargo xtask test --long` has the time");
    }
    let summary = hand_over_in_a_row(&if is_long { LONG_LOAD } else { SHORT });
    if is_long {
        // Past libtest, which would show it only if the test failed.
        let _ = io::stderr().write_all(summary.as_bytes());
    }
}

/// Returns what came of it.
fn hand_over_in_a_row(load: &Load) -> String {
    raise_descriptor_limit();
    let application = Application::start();
    let place = Place::new(application.address);
    let mut serving = place.start(&SETTINGS);
    let mut words = mixture(load.tunnels, load.processes);
    for words in &mut words {
        words.push("--each".to_owned());
    }
    let clients = Clients::start(place.address, &application, &words);
    let mut footprints = vec![Footprint::of(&serving)];
    let mut before = Vec::new();
    for handoff in 1..=load.handoffs {
        let begun = Instant::now();
        let new = place.take_over(&SETTINGS);
        let footprint = Footprint::of(&new);
        println!("{handoff}: serves after {:?}, has {footprint:?}", begun.elapsed());
        footprints.push(footprint);
        before.push(std::mem::replace(&mut serving, new));
    }
    // The download ends, and with it the process that has it.
    let reports = clients.finish();
    for old in &mut before {
        assert_eq!(old.wait().code(), Some(0));
    }
    let all: u64 = reports.iter().map(|report| report.all.tunnels).sum();
    before.push(serving);
    let logged = || -> HashMap<String, String> {
        let lines = before.iter().flat_map(|elbows| elbows.access_log.all());
        let tunnels = lines.filter(|line| line.contains("status=101"));
        tunnels.map(|line| (value(&line, "client").to_owned(), line)).collect()
    };
    wait_until("there is a line for each tunnel", || logged().len() as u64 == all);
    let lines = logged();
    for elbows in &before {
        tell(elbows);
    }
    for report in &reports {
        println!("{}", of_clients(report));
    }
    for report in &reports {
        assert_eq!((report.failed, &report.failures), (0, &Vec::new()));
        assert!(is_mixed(report), "{:#?}", report.kinds);
        for tunnel in &report.tunnels {
            assert_is_logged(tunnel, &lines[&tunnel.client]);
        }
    }
    let downloads = reports.iter().map(|report| report.downloads.count).sum::<u64>();
    assert!(downloads > 0, "no download was whole");
    let handed = lines.values().map(|line| number(line, "handoffs")).max();
    assert_eq!(handed, Some(load.handoffs as u64), "a tunnel was there from the first to the last");
    assert_has_not_grown(&footprints, load.settled);
    let last = before.last_mut().unwrap();
    last.signal(Signal::TERM);
    assert_eq!(last.wait().code(), Some(0));
    summary(load, &before, &reports)
}

/// The worst that the processes said of their handoffs, and what the clients saw: none of their tunnels has failed, and each
/// hash and count was compared.
fn summary(load: &Load, processes: &[Elbows], reports: &[Report]) -> String {
    let took_over = |elbows: &Elbows| {
        let lines = elbows.log.all();
        lines.into_iter().find(|line| line.contains("handoff from="))
    };
    let lines: Vec<_> = processes.iter().filter_map(took_over).collect();
    assert_eq!(lines.len(), load.handoffs);
    let all = |name: &str| lines.iter().map(|line| number(line, name)).sum::<u64>();
    let worst = |name: &str, unit: &str| {
        let times =
            lines.iter().map(|line| value(line, name).strip_suffix(unit).expect("its unit"));
        times.map(|time| time.parse::<f64>().expect("a time")).fold(0.0, f64::max)
    };
    let clients: Vec<_> = reports.iter().map(of_clients).collect();
    format!(
        "{} handoffs of {} tunnels: moved {} in all, refused {}; the worst handoff took {} s; the worst pauses were p50 {} ms, \
         p99 {} ms, max {} ms; {} tunnels in all, of which {} failed\n{}\n",
        lines.len(),
        load.tunnels,
        all("moved"),
        all("refused"),
        worst("took", "s"),
        worst("pause_p50", "ms"),
        worst("pause_p99", "ms"),
        worst("pause_max", "ms"),
        reports.iter().map(|report| report.all.tunnels).sum::<u64>(),
        reports.iter().map(|report| report.failed).sum::<u64>(),
        clients.join("\n"),
    )
}

/// What a process said of its handoffs. None of it is a fault.
fn tell(elbows: &Elbows) {
    let lines = elbows.log.all();
    for line in lines.iter().filter(|line| line.contains(" handoff ")) {
        println!("{line}");
    }
    let faults: Vec<_> =
        lines.iter().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What the clients saw, and how late they were woken themselves.
fn of_clients(report: &Report) -> String {
    format!(
        "clients: gap {:?}, handshakes {:?}, requests {:?}; woken late themselves {:?}; worst {:?}",
        report.all.gap,
        report.handshakes,
        report.requests,
        report.own_delay,
        report.worst.first()
    )
}

/// The last processes have no more than those that come when all has settled, but for what comes and goes: connections
/// of a moment, and pages.
fn assert_has_not_grown(footprints: &[Footprint], settled: usize) {
    const COMES_AND_GOES: usize = 300;
    let (first, last) = (&footprints[settled], footprints.last().unwrap());
    assert!(last.descriptors <= first.descriptors + COMES_AND_GOES, "{footprints:#?}");
    assert!(last.memory <= first.memory + first.memory / 4, "{footprints:#?}");
}
