//! Tunnels in which nothing is said: their pings, and their end.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Bench, table};
use crate::Fallible;
use crate::measure::{cpu, read};
use crate::proxies::{Proxy, Setup};
use crate::report::{Cell, Chart, Goal, Section, Spread, Table};

/// Tunnels that are held.
const TUNNELS: usize = 9_000;

pub(super) fn pings(bench: &Bench) -> Fallible<Section> {
    let name = "pings";
    let tunnels = bench.size(TUNNELS);
    let every = Duration::from_secs(1);
    let window = if bench.is_quick { every * 2 } else { every * 10 };
    let found = bench.alternate(name, &[(Proxy::Elbows, Proxy::Elbows.as_str())], |proxy| {
        let setup = Setup { ping_interval: every, ..Setup::default() };
        let mut stage = bench.rig.stage(proxy, &setup)?;
        let load = stage.hold(tunnels)?;
        // The first pings are over, and the load is ready.
        sleep(every);
        let (start, before) = (Instant::now(), read(cpu::of(stage.pid()))?);
        // The time over which it is measured.
        sleep(window);
        let used = (read(cpu::of(stage.pid()))? - before) as f64 / 1e9;
        let used = used / start.elapsed().as_secs_f64() * 100.0;
        let outcome = stage.finish(load)?;
        let expected = tunnels as u64 * window.as_secs() * 8 / 10;
        if outcome.pings < expected {
            return Err(format!("{} pings came, and {expected} were to come", outcome.pings));
        }
        let said = format!("{used:.1} % of a core");
        Ok((used, said))
    })?;
    let mut table = table("proxy", &found, &[("core used, %", 1, &|used| *used)]);
    for peer in bench.peers() {
        table.rows.push((peer.as_str().to_owned(), vec![Cell::Cannot("has no Pings of its own")]));
    }
    let own = table.get(Proxy::Elbows.as_str(), 0).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Pings, 9,000 idle tunnels pinged every second",
        text: "`PING_INTERVAL=1s`, each Ping answered; the default is 50 s.".to_owned(),
        chart: None,
        goals: vec![Goal::at_most("% of a core for 9,000 pings a second", 15.0, own, 1).further()],
        table,
    })
}

/// When the Closes came behind the signal, by seconds.
struct Drained {
    closes: f64,
    rates: Vec<f64>,
}

pub(super) fn drain(bench: &Bench) -> Fallible<Section> {
    let name = "drain";
    let tunnels = bench.size(TUNNELS);
    let seconds = if bench.is_quick { 1 } else { 10 };
    let measure = |proxy| -> Fallible<(Drained, String)> {
        let setup = Setup { drain_period: Duration::from_secs(seconds), ..Setup::default() };
        let mut stage = bench.rig.stage(proxy, &setup)?;
        let load = stage.hold(tunnels)?;
        let start = crate::load::now();
        let Some(mut process) = stage.proxy.take() else { return Err("no proxy".to_owned()) };
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
        if proxy == Proxy::Elbows && outcome.closes.len() != tunnels {
            return Err(format!("{} of {tunnels} clients got a Close", outcome.closes.len()));
        }
        let closes = outcome.closes.len() as f64;
        let said = format!("{closes} Closes");
        Ok((Drained { closes, rates }, said))
    };
    let mut found = bench.in_turn(name, &[Proxy::Elbows], measure)?;
    // Whether a peer says goodbye comes out the same each time.
    for peer in bench.peers() {
        let start = Instant::now();
        let (drained, said) =
            measure(peer).map_err(|fault| format!("{name}, {}: {fault}", peer.as_str()))?;
        super::progress(name, [1, 1], peer.as_str(), &said, start.elapsed());
        found.push((peer.as_str().to_owned(), vec![drained]));
    }
    let table = drained(&found);
    let own = table.get(Proxy::Elbows.as_str(), 1).unwrap_or_default().median;
    let all: Vec<usize> = (2..table.columns.len()).collect();
    Ok(Section {
        name,
        title: "Drain, 9,000 tunnels over 10 s",
        text: "`DRAIN_PERIOD=10s` of elbows: how many clients got their Close in each second behind the signal. An even rate \
               is 900. Those that came behind the last second are counted in it. The others are sent the same signal."
            .to_owned(),
        chart: Some(Chart::of(&table, "Closes in each second", &all)),
        goals: vec![
            Goal::at_most("largest deviation of a second from the even rate, %", 10.0, own, 1).further(),
        ],
        table,
    })
}

fn drained(found: &[(String, Vec<Drained>)]) -> Table {
    let seconds = found.iter().flat_map(|(_, rounds)| rounds).map(|one| one.rates.len()).max();
    let mut columns =
        vec!["clients that got a Close".to_owned(), "largest deviation, %".to_owned()];
    columns.extend((1..=seconds.unwrap_or_default()).map(|second| format!("second {second}")));
    let row = |(name, rounds): &(String, Vec<Drained>)| {
        let of = |value: &dyn Fn(&Drained) -> f64, digits| {
            Cell::Number(Spread::of(rounds.iter().map(value)), digits)
        };
        let mut cells = vec![of(&|one| one.closes, 0)];
        if rounds.iter().all(|one| one.closes == 0.0) {
            cells.push(Cell::Cannot("sends no Close"));
            cells.resize(columns.len(), Cell::None);
        } else {
            cells.push(of(&|one| off(&one.rates), 1));
            let seconds = 0..columns.len() - 2;
            cells
                .extend(seconds.map(|second| {
                    of(&|one| one.rates.get(second).copied().unwrap_or_default(), 0)
                }));
        }
        (name.clone(), cells)
    };
    let rows = found.iter().map(row).collect();
    Table { corner: "proxy", columns, rows }
}
/// How far the worst second is off the mean of all, in percent.
fn off(rates: &[f64]) -> f64 {
    let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    rates.iter().map(|rate| (rate / mean - 1.0).abs() * 100.0).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::{Drained, drained, off};
    use crate::report::Cell;

    #[test]
    fn proxy_that_sends_no_close_is_said_not_to() {
        let round =
            |rates: [f64; 2]| vec![Drained { closes: rates[0] + rates[1], rates: rates.to_vec() }];
        let found =
            [("elbows".to_owned(), round([450.0, 450.0])), ("nginx".to_owned(), round([0.0; 2]))];
        let table = drained(&found);
        assert_eq!(table.get("elbows", 1).map(|spread| spread.median), Some(0.0));
        let nginx = table.rows.last().map(|(_, cells)| cells.as_slice()).unwrap();
        assert_eq!(nginx[1..], [Cell::Cannot("sends no Close"), Cell::None, Cell::None]);
        assert_eq!(table.get("nginx", 1), None);
    }

    #[test]
    fn worst_second_counts_on_either_side() {
        assert!((off(&[100.0, 90.0, 110.0, 100.0]) - 10.0).abs() < 1e-9);
        assert!((off(&[130.0, 90.0, 90.0, 90.0]) - 30.0).abs() < 1e-9);
    }
}
