//! What a new version does to WebSockets that are open: elbows hands them over, the others are reloaded or restarted as
//! their documents say.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Bench, progress};
use crate::Fallible;
use crate::load::{Latency, Work};
use crate::measure::{memory, tree};
use crate::process::{GLANCE, Process};
use crate::proxies::{Proxy, Replacement, Setup, envoy};
use crate::report::{Cell, Chart, Goal, Section, Spread, Table};
use crate::stage::Stage;

/// Tunnels in which nothing is said, and clients with an echo fifty times a second.
const TUNNELS: usize = 9_000;
const WITNESSES: usize = 10;

/// How long the old process may stay where that is set, and how long it is looked on.
const STAYS: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(30);

/// How long the witnesses look on before.
const BEFORE: Duration = Duration::from_secs(1);

/// What was seen.
struct Replaced {
    /// Of the tunnels.
    ended: f64,
    /// Seconds until the old process was gone, where it went.
    gone_after: Option<f64>,
    /// Of both processes.
    mebibytes: f64,
    /// Milliseconds.
    gap: f64,
    handshake_p99: f64,
    /// Of witnesses, and handshakes without a 101.
    cut: f64,
    refused: f64,
    /// p50, p99 and the longest, in milliseconds, and seconds.
    pauses: Option<[f64; 4]>,
}

/// A way to replace a proxy: whose, its name in the table, and how long the old process may keep its connections.
type Way = (Proxy, &'static str, Option<Duration>);

const WAYS: [Way; 7] = [
    (Proxy::Elbows, "elbows, handoff", Some(STAYS)),
    (Proxy::Nginx, "nginx, reload", None),
    (Proxy::Nginx, "nginx, `worker_shutdown_timeout 10s`", Some(STAYS)),
    (Proxy::Haproxy, "HAProxy, reload", None),
    (Proxy::Haproxy, "HAProxy, `hard-stop-after 10s`", Some(STAYS)),
    (Proxy::Envoy, "Envoy, hot restart", None),
    (Proxy::Envoy, "Envoy, `--parent-shutdown-time-s 10`", Some(STAYS)),
];

pub(super) fn run(bench: &Bench) -> Fallible<Section> {
    let name = "handoff";
    let mut found = Vec::new();
    for (proxy, way, stays) in WAYS.into_iter().filter(|(proxy, ..)| bench.proxies.contains(proxy))
    {
        // What the others do comes out the same each time.
        let rounds = if proxy == Proxy::Elbows { bench.rounds } else { 1 };
        let mut all = Vec::new();
        for round in 1..=rounds {
            let start = Instant::now();
            let replaced =
                replace(bench, proxy, stays).map_err(|fault| format!("{name}, {way}: {fault}"))?;
            let said = format!("{} ended, gap {:.1} ms", replaced.ended, replaced.gap);
            progress(name, [round, rounds], proxy.as_str(), &said, start.elapsed());
            all.push(replaced);
        }
        found.push((way.to_owned(), all));
    }
    let table = table(&found);
    let own = |column| table.get(WAYS[0].1, column).unwrap_or_default();
    let mut goals = vec![
        Goal::at_most("WebSockets that end when elbows is replaced", 0.0, own(0).most, 0),
        Goal::at_most("pause of a WebSocket, p99, ms", 10.0, own(8).median, 1),
        Goal::at_most("longest pause of a WebSocket, ms", 100.0, own(9).median, 1),
        Goal::at_most("seconds until 9,000 WebSockets have moved", 2.0, own(10).median, 2),
        Goal::at_most("handshakes while they move, p99, ms", 100.0, own(4).median, 1),
    ];
    if bench.is_quick {
        goals.truncate(1);
    }
    Ok(Section {
        name,
        title: "A new version, 9,000 open WebSockets",
        text: "The proxy is replaced while 9,000 WebSockets are open in which nothing is said. elbows hands over to a new process \
               (`HANDOFF_SOCKET`); nginx gets `SIGHUP`, HAProxy's master `SIGUSR2`, and Envoy a second process with the next \
               `--restart-epoch`. That is looked at for 30 s: how many of the WebSockets end, how long the old process \
               stays, and the most memory (PSS) that both have together. Beside them 10 clients get an echo 50 times a second; the \
               gap is the longest that one waited, of those that were not cut. Another makes up to 50 handshakes a second. \
               What a pause is elbows says itself: from when the old process lets go of a WebSocket to the first read of the new one."
            .to_owned(),
        chart: Some(Chart::of(&table, "WebSockets that ended, of 9,000", &[0])),
        goals,
        table,
    })
}

fn replace(bench: &Bench, proxy: Proxy, stays: Option<Duration>) -> Fallible<Replaced> {
    let (stays, window) =
        if bench.is_quick { (stays.map(|stays| stays / 5), WINDOW / 6) } else { (stays, WINDOW) };
    let setup = Setup {
        replacement: Some(Replacement { stays, epoch: 0 }),
        drain_period: stays.unwrap_or_default(),
        ..Setup::default()
    };
    let mut stage = bench.rig.stage(proxy, &setup)?;
    let held = stage.hold(bench.size(TUNNELS))?;
    let witnesses = stage.keep_up(WITNESSES, Work::Witness)?;
    // So long the witnesses are watched before anything happens: it is what the rest is compared with.
    sleep(BEFORE);
    let start = Instant::now();
    let mut change = Change::begin(proxy, &stage, &setup)?;
    let (mut gone_after, mut most) = (None, 0);
    while start.elapsed() < window {
        most = most.max(change.memory(&stage));
        if gone_after.is_none() && change.is_old_gone(&mut stage) {
            gone_after = Some(start.elapsed().as_secs_f64());
        }
        sleep(GLANCE * 5);
    }
    let pauses = change.pauses();
    // Who serves now is the proxy that is looked after.
    if let Some(new) = change.new.take() {
        change.old = stage.proxy.replace(new);
    }
    let seen = stage.finish(witnesses)?;
    let held = stage.finish(held)?;
    let milliseconds = |latency: Option<Latency>, which: fn(Latency) -> u64| {
        latency.map_or(0.0, |latency| which(latency) as f64 / 1e6)
    };
    let replaced = Replaced {
        ended: held.ended as f64,
        gone_after,
        mebibytes: most as f64 / 1024.0 / 1024.0,
        gap: milliseconds(seen.latency, |latency| latency.max),
        handshake_p99: milliseconds(seen.handshakes, |latency| latency.p99),
        cut: seen.ended as f64,
        refused: seen.failed as f64,
        pauses,
    };
    drop((change, stage));
    envoy::clean_up();
    Ok(replaced)
}

/// A change of processes that is under way.
struct Change {
    /// The second process, where there is one to be started.
    new: Option<Process>,
    /// The first one, once the second is the stage's.
    old: Option<Process>,
    /// The old worker, where the program stays and its workers go.
    worker: Option<u32>,
}

impl Change {
    fn begin(proxy: Proxy, stage: &Stage<'_>, setup: &Setup) -> Fallible<Self> {
        let signal = match proxy {
            Proxy::Nginx => Some(Signal::HUP),
            Proxy::Haproxy => Some(Signal::USR2),
            _ => None,
        };
        let Some(signal) = signal else {
            let replacement = setup.replacement.map(|first| Replacement { epoch: 1, ..first });
            let new = stage.replace(proxy, &Setup { replacement, ..*setup })?;
            return Ok(Self { new: Some(new), old: None, worker: None });
        };
        let workers = tree::children(stage.pid()).map_err(|fault| fault.to_string())?;
        let Some(worker) = workers.first().copied() else {
            return Err("it has no worker".to_owned());
        };
        if let Some(master) = &stage.proxy {
            master.signal_master(signal);
        }
        Ok(Self { new: None, old: None, worker: Some(worker) })
    }

    /// What both processes have; what goes just now has none.
    fn memory(&self, stage: &Stage<'_>) -> u64 {
        let new = self.new.as_ref().map(|new| memory::pss(new.pid()).unwrap_or_default());
        memory::pss(stage.pid()).unwrap_or_default() + new.unwrap_or_default()
    }

    fn is_old_gone(&self, stage: &mut Stage<'_>) -> bool {
        match self.worker {
            None => stage.proxy.as_mut().is_some_and(|old| old.ended().is_some()),
            Some(worker) => {
                let left = tree::of(stage.pid()).unwrap_or_default();
                !left.contains(&worker)
            }
        }
    }

    /// What elbows says of the pauses and of how long it took.
    fn pauses(&self) -> Option<[f64; 4]> {
        let said = self.new.as_ref()?.errors();
        let line = said.lines().find(|line| line.contains("handoff from="))?;
        let number = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}="))?;
            let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
            rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
        };
        Some([number("pause_p50")?, number("pause_p99")?, number("pause_max")?, number("took")?])
    }
}

fn table(found: &[(String, Vec<Replaced>)]) -> Table {
    let columns = [
        "WebSockets that ended",
        "old process gone after, s",
        "PSS of both, MiB",
        "longest gap of an echo, ms",
        "handshakes p99, ms",
        "echo clients that were cut",
        "handshakes without 101",
        "pause p50, ms",
        "pause p99, ms",
        "pause max, ms",
        "moved in, s",
    ];
    let row = |(name, rounds): &(String, Vec<Replaced>)| {
        let of = |value: &dyn Fn(&Replaced) -> f64, digits| {
            Cell::Number(Spread::of(rounds.iter().map(value)), digits)
        };
        let gone: Option<Vec<f64>> = rounds.iter().map(|one| one.gone_after).collect();
        let pauses: Option<Vec<[f64; 4]>> = rounds.iter().map(|one| one.pauses).collect();
        let mut cells = vec![
            of(&|one| one.ended, 0),
            gone.map_or(Cell::Cannot("stays"), |gone| Cell::Number(Spread::of(gone), 1)),
            of(&|one| one.mebibytes, 1),
            of(&|one| one.gap, 1),
            of(&|one| one.handshake_p99, 1),
            of(&|one| one.cut, 0),
            of(&|one| one.refused, 0),
        ];
        match pauses {
            Some(pauses) => cells.extend([0, 1, 2, 3].map(|which| {
                let values = pauses.iter().filter_map(|pauses| pauses.get(which).copied());
                Cell::Number(Spread::of(values), 2)
            })),
            None => cells.resize(columns.len(), Cell::None),
        }
        (name.clone(), cells)
    };
    Table {
        corner: "proxy",
        columns: columns.map(str::to_owned).to_vec(),
        rows: found.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Replaced, table};
    use crate::report::Cell;

    #[test]
    fn process_that_stays_is_said_to() {
        let round = |gone_after, pauses| Replaced {
            ended: 0.0,
            gone_after,
            mebibytes: 8.0,
            gap: 4.0,
            handshake_p99: 2.0,
            cut: 0.0,
            refused: 0.0,
            pauses,
        };
        let elbows = vec![round(Some(1.0), Some([1.0, 2.0, 3.0, 0.7]))];
        let table = table(&[
            ("elbows".to_owned(), elbows),
            ("nginx".to_owned(), vec![round(Some(1.0), None), round(None, None)]),
        ]);
        assert_eq!(table.get("elbows", 1).map(|spread| spread.median), Some(1.0));
        assert_eq!(table.get("elbows", 9).map(|spread| spread.median), Some(3.0));
        let (_, nginx) = &table.rows[1];
        assert_eq!((&nginx[1], nginx.last()), (&Cell::Cannot("stays"), Some(&Cell::None)));
    }
}
