//! Tunnels in which nothing is said: their memory, their pings, their end.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Bench, table};
use crate::Fallible;
use crate::measure::{cpu, kernel, memory};
use crate::process::GLANCE;
use crate::proxies::{Proxy, Setup};
use crate::report::{Cell, Chart, Goal, Section, Spread, Table};
use crate::stage::Stage;

/// Tunnels that are held.
const TUNNELS: usize = 9_000;

/// How long memory must not move before it is believed, and how long that is waited for.
const STILL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(15);

/// Memory of a proxy in bytes.
struct Idle {
    before: f64,
    full: f64,
    after: f64,
    tunnels: f64,
}

impl Idle {
    fn per_tunnel(&self) -> f64 {
        (self.full - self.before) / self.tunnels
    }

    /// The part of what the tunnels took that came back, in percent.
    fn given_back(&self) -> f64 {
        (self.full - self.after) * 100.0 / (self.full - self.before).max(1.0)
    }
}

pub(super) fn idle(bench: &Bench) -> Fallible<Section> {
    let name = "idle";
    let tunnels = bench.size(TUNNELS);
    let found = bench.all_in_turn(name, |proxy| {
        let mut stage = bench.theatre.stage(proxy, &Setup::default())?;
        // What the first connection of all takes is not a tunnel's.
        let first = stage.hold(1)?;
        stage.finish(first)?;
        let descriptors = read(memory::descriptors(stage.pid()))?;
        let before = still(bench, &mut stage)?;
        let load = stage.hold(tunnels)?;
        let full = still(bench, &mut stage)?;
        stage.finish(load)?;
        until_closed(&mut stage, descriptors)?;
        let after = still(bench, &mut stage)?;
        let idle = Idle { before, full, after, tunnels: tunnels as f64 };
        let said =
            format!("{:.0} B per tunnel, {:.0} % back", idle.per_tunnel(), idle.given_back());
        Ok((idle, said))
    })?;
    let kib = |bytes: f64| bytes / 1024.0;
    let table = table(
        "proxy",
        &found,
        &[
            ("bytes per tunnel", 0, &Idle::per_tunnel),
            ("given back, %", 1, &Idle::given_back),
            ("KiB before", 0, &|idle| kib(idle.before)),
            ("KiB with all", 0, &|idle| kib(idle.full)),
            ("KiB after", 0, &|idle| kib(idle.after)),
        ],
    );
    let own = |column| table.get(Proxy::Elbows.as_str(), column).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Idle memory, 9,000 tunnels",
        text: "PSS of the process (`Pss` of `smaps_rollup`) before, with all tunnels open and silent, and after all of \
               them have ended."
            .to_owned(),
        chart: Some(Chart::of(&table, "bytes of process memory per tunnel", &[0])),
        goals: vec![
            Goal::at_most("bytes of elbows' memory per idle tunnel", 512.0, own(0), 0),
            Goal::at_least("given back by elbows after a mass disconnect, %", 90.0, own(1), 1),
        ],
        table,
    })
}

pub(super) fn read<T>(value: std::io::Result<T>) -> Fallible<T> {
    value.map_err(|fault| format!("what the kernel says of the proxy: {fault}"))
}

/// PSS, when it has come to rest.
pub(super) fn still(bench: &Bench, stage: &mut Stage<'_>) -> Fallible<f64> {
    let start = Instant::now();
    let mut last = (read(memory::pss(stage.pid()))?, start);
    let rest = if bench.is_quick { STILL / 10 } else { STILL };
    while last.1.elapsed() < rest && start.elapsed() < PATIENCE {
        sleep(GLANCE * 5);
        stage.expect_alive()?;
        let pss = read(memory::pss(stage.pid()))?;
        if pss != last.0 {
            last = (pss, Instant::now());
        }
    }
    Ok(last.0 as f64)
}

/// Waits until the proxy has no more descriptors than before, but for a few that it may keep.
fn until_closed(stage: &mut Stage<'_>, before: usize) -> Fallible<()> {
    let start = Instant::now();
    while read(memory::descriptors(stage.pid()))? > before + 64 {
        if start.elapsed() > PATIENCE {
            return Err("the proxy still has connections 15 s after their clients left".to_owned());
        }
        stage.expect_alive()?;
        sleep(GLANCE);
    }
    Ok(())
}

pub(super) fn pings(bench: &Bench) -> Fallible<Section> {
    let name = "pings";
    let tunnels = bench.size(TUNNELS);
    let every = Duration::from_secs(1);
    let window = if bench.is_quick { every * 2 } else { every * 10 };
    let found = bench.alternate(name, &[(Proxy::Elbows, Proxy::Elbows.as_str())], |proxy| {
        let setup = Setup { ping_interval: every, ..Setup::default() };
        let mut stage = bench.theatre.stage(proxy, &setup)?;
        let load = stage.hold(tunnels)?;
        // The first pings are over, and the load is ready.
        sleep(every);
        let (start, before) = (Instant::now(), read(cpu::of_process(stage.pid()))?);
        sleep(window);
        let used = (read(cpu::of_process(stage.pid()))? - before) as f64 / 1e9;
        let used = used / start.elapsed().as_secs_f64() * 100.0;
        let outcome = stage.finish(load)?;
        let expected = tunnels as u64 * window.as_secs() * 8 / 10;
        if outcome.pings < expected {
            return Err(format!("{} pings came, and {expected} were to come", outcome.pings));
        }
        let said = format!("{used:.1} % of a core");
        Ok((used, said))
    })?;
    let table = table("proxy", &found, &[("core used, %", 1, &|used| *used)]);
    let own = table.get(Proxy::Elbows.as_str(), 0).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Pings, 9,000 idle tunnels pinged every second",
        text: "`PING_INTERVAL=1s`, each Ping answered; the default is 50 s.".to_owned(),
        chart: None,
        goals: vec![Goal::at_most("% of a core for 9,000 pings a second", 15.0, own, 1)],
        table,
    })
}

pub(super) fn drain(bench: &Bench) -> Fallible<Section> {
    let name = "drain";
    let tunnels = bench.size(TUNNELS);
    let seconds = if bench.is_quick { 1 } else { 10 };
    let period = Duration::from_secs(seconds);
    let found = bench.alternate(name, &[(Proxy::Elbows, Proxy::Elbows.as_str())], |proxy| {
        let setup = Setup { drain_period: period, ..Setup::default() };
        let mut stage = bench.theatre.stage(proxy, &setup)?;
        let load = stage.hold(tunnels)?;
        let start = crate::load::now();
        let Some(mut process) = stage.proxy.take() else { return Ok((Vec::new(), String::new())) };
        process.end()?;
        let outcome = stage.finish(load)?;
        let mut rates = vec![0.0; usize::try_from(seconds).unwrap_or_default()];
        for close in &outcome.closes {
            let second = close.saturating_sub(start) / 1_000_000_000;
            if let Some(rate) = rates.get_mut(usize::try_from(second.min(seconds - 1)).unwrap_or(0))
            {
                *rate += 1.0;
            }
        }
        if outcome.closes.len() != tunnels {
            return Err(format!("{} of {tunnels} clients got a Close", outcome.closes.len()));
        }
        let said = format!("{:.1} % off at most", off(&rates));
        Ok((rates, said))
    })?;
    let rounds = found.first().map(|(_, rounds)| rounds.as_slice()).unwrap_or_default();
    let mut columns = vec!["largest deviation, %".to_owned()];
    let mut cells = vec![Cell::Number(Spread::of(rounds.iter().map(|rates| off(rates))), 1)];
    for second in 0..usize::try_from(seconds).unwrap_or_default() {
        columns.push(format!("second {}", second + 1));
        let rates = rounds.iter().filter_map(|rates| rates.get(second).copied());
        cells.push(Cell::Number(Spread::of(rates), 0));
    }
    let own = cells.first().and_then(Cell::spread).unwrap_or_default().median;
    let table =
        Table { corner: "proxy", columns, rows: vec![(Proxy::Elbows.as_str().to_owned(), cells)] };
    let all: Vec<usize> = (1..table.columns.len()).collect();
    Ok(Section {
        name,
        title: "Drain, 9,000 tunnels over 10 s",
        text: "`DRAIN_PERIOD=10s`: how many clients got their Close in each second behind the signal. An even rate is \
               900. Those that came behind the last second are counted in it."
            .to_owned(),
        chart: Some(Chart::of(&table, "Closes in each second", &all)),
        goals: vec![Goal::at_most("largest deviation of a second from the even rate, %", 10.0, own, 1)],
        table,
    })
}

/// How far the worst second is off the mean of all, in percent.
fn off(rates: &[f64]) -> f64 {
    let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    rates.iter().map(|rate| (rate / mean - 1.0).abs() * 100.0).fold(0.0, f64::max)
}

/// Bytes of the whole machine and of the proxy, for one connection.
struct Cost {
    kernel: f64,
    process: f64,
    descriptors: f64,
}

pub(super) fn million(bench: &Bench) -> Fallible<Section> {
    let name = "million";
    let tunnels = bench.size(TUNNELS);
    let whos = [(true, "through elbows"), (false, "without a proxy")];
    let found = bench.alternate(name, &whos, |has_proxy| {
        let theatre = &bench.theatre;
        let mut stage = if has_proxy {
            theatre.stage(Proxy::Elbows, &Setup::default())?
        } else {
            theatre.without_proxy()?
        };
        let own = |stage: &Stage<'_>| -> Fallible<[f64; 2]> {
            if stage.proxy.is_none() {
                return Ok([0.0; 2]);
            }
            let descriptors = read(memory::descriptors(stage.pid()))? as f64;
            Ok([read(memory::pss(stage.pid()))? as f64, descriptors])
        };
        let first = stage.hold(1)?;
        stage.finish(first)?;
        // Sockets of earlier runs are gone when their grace periods are over.
        sleep(STILL);
        let (before, [pss, open]) = (read(kernel::memory())?, own(&stage)?);
        let load = stage.hold(tunnels)?;
        sleep(STILL);
        let (after, [full_pss, full_open]) = (read(kernel::memory())?, own(&stage)?);
        stage.finish(load)?;
        let tunnels = tunnels as f64;
        let cost = Cost {
            kernel: (after as f64 - before as f64) / tunnels,
            process: (full_pss - pss) / tunnels,
            descriptors: (full_open - open) / tunnels,
        };
        let said = format!("{:.0} B of the kernel's memory", cost.kernel);
        Ok((cost, said))
    })?;
    let table = table(
        "9,000 connections",
        &found,
        &[
            ("kernel bytes each", 0, &|cost| cost.kernel),
            ("process bytes each", 0, &|cost| cost.process),
            ("descriptors each", 2, &|cost| cost.descriptors),
        ],
    );
    Ok(Section {
        name,
        title: "What a million tunnels need",
        text: crate::report::million::text(&table, &whos.map(|(_, name)| name)),
        chart: None,
        goals: Vec::new(),
        table,
    })
}

#[cfg(test)]
mod tests {
    use super::off;

    #[test]
    fn worst_second_counts_on_either_side() {
        assert!((off(&[100.0, 90.0, 110.0, 100.0]) - 10.0).abs() < 1e-9);
        assert!((off(&[130.0, 90.0, 90.0, 90.0]) - 30.0).abs() < 1e-9);
    }
}
