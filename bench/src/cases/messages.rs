//! Messages by the clock and from the application, over many connections, and on two threads.

use super::{Bench, against_the_best, best, core_used, cpu_each, latency, rate, some, table};
use crate::Fallible;
use crate::heads::WEBSOCKET;
use crate::load::Work;
use crate::proxies::{Proxy, Setup};
use crate::report::{Chart, Goal, Section, Table};

pub(super) fn paced(bench: &Bench) -> Fallible<Section> {
    let name = "paced";
    let connections = bench.size(2_000);
    let found = bench.in_turn(name, &bench.proxies(), |proxy| {
        let mut stage = bench.rig.stage(proxy, &Setup::default())?;
        let outcome =
            some(stage.load(connections, Work::Paced { rate: 10_000 }, bench.seconds(3))?)?;
        let said = format!("p99.9 {:.0} µs", latency(&outcome, |all| all.p999));
        Ok((outcome, said))
    })?;
    let table = table(
        "proxy",
        &found,
        &[
            ("p50, µs", 0, &|outcome| latency(outcome, |all| all.p50)),
            ("p99, µs", 0, &|outcome| latency(outcome, |all| all.p99)),
            ("p99.9, µs", 0, &|outcome| latency(outcome, |all| all.p999)),
            ("max, µs", 0, &|outcome| latency(outcome, |all| all.max)),
            ("CPU µs per message", 1, &cpu_each),
        ],
    );
    Ok(Section {
        name,
        title: "Paced, 10,000 messages a second over 2,000 connections",
        text: "64 B each, sent by the clock whether or not earlier ones are back; a time counts from when its \
               message was due, and for one that is not back at the end until then."
            .to_owned(),
        chart: Some(Chart::of(&table, "µs until a message is back", &[0, 1, 2])),
        goals: no_worse(&table, 2).into_iter().collect(),
        table,
    })
}

/// That elbows' p99.9 is no worse than the best peer's, within the spread of that peer's rounds.
fn no_worse(table: &Table, column: usize) -> Option<Goal> {
    let (peer, best) = best(table, column)?;
    let own = table.get(Proxy::Elbows.as_str(), column)?.median;
    let what = format!(
        "p99.9, elbows ÷ the best peer ({}); the bound is that peer's worst round ÷ its median",
        peer.as_str()
    );
    Some(Goal::at_most(what, best.most / best.median, own / best.median, 2))
}

pub(super) fn push(bench: &Bench) -> Fallible<Section> {
    let name = "push";
    let connections = bench.size(5_000);
    let found = bench.in_turn(name, &bench.proxies(), |proxy| {
        let mut stage = bench.rig.stage(proxy, &Setup::default())?;
        let outcome = some(stage.load(connections, Work::Push, bench.seconds(2))?)?;
        let said = format!("{:.1} µs CPU per message", cpu_each(&outcome));
        Ok((outcome, said))
    })?;
    let table = table(
        "proxy",
        &found,
        &[
            ("CPU µs per message", 1, &cpu_each),
            ("messages per second", 0, &rate),
            ("core used, %", 1, &core_used),
        ],
    );
    Ok(Section {
        name,
        title: "Push, 64 B to each of 5,000 connections once a second",
        text: "The application sends to all connections in one go.".to_owned(),
        chart: Some(Chart::of(&table, "CPU µs per message", &[0])),
        goals: against_the_best(&table, 0, "CPU per pushed message", 1.0)
            .map(Goal::further)
            .into_iter()
            .collect(),
        table,
    })
}

/// How many connections the growth is measured at.
const GROWTH: [usize; 4] = [10, 100, 1_000, 9_000];

pub(super) fn growth(bench: &Bench) -> Fallible<Section> {
    let name = "growth";
    let meant = [Proxy::Elbows, Proxy::Nginx, Proxy::CopyLoop];
    let proxies: Vec<_> = bench.proxies().into_iter().filter(|one| meant.contains(one)).collect();
    let found = bench.in_turn(name, &proxies, |proxy| {
        let mut each = [0.0; GROWTH.len()];
        for (connections, each) in GROWTH.into_iter().zip(&mut each) {
            let connections = if bench.is_quick { connections.min(1_000) } else { connections };
            let mut stage = bench.rig.stage(proxy, &Setup::default())?;
            let work = Work::Echo { size: 64, protocol: WEBSOCKET.to_owned() };
            *each = cpu_each(&some(stage.load(connections, work, bench.seconds(1))?)?);
        }
        Ok((each, format!("{:.1} to {:.1} µs", each[0], each[3])))
    })?;
    let table = table(
        "proxy",
        &found,
        &[
            ("10", 1, &|each| each[0]),
            ("100", 1, &|each| each[1]),
            ("1,000", 1, &|each| each[2]),
            ("9,000", 1, &|each| each[3]),
            ("slope, µs per tenfold", 2, &|each: &[f64; GROWTH.len()]| slope(each)),
            ("9,000 ÷ 100", 2, &|each| each[3] / each[1]),
        ],
    );
    let own = table.get(Proxy::Elbows.as_str(), 5).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Growth, CPU per message by number of connections",
        text: "64 B, one message under way on each connection, always. The slope is that of the line through the \
               four points, over the logarithm of the number of connections. Each message touches what the kernel \
               keeps of its two sockets, which no cache holds for thousands: the copy loop, which keeps next to \
               nothing of its own, grows as well."
            .to_owned(),
        chart: Some(Chart::of(&table, "CPU µs per round trip, by number of connections", &[0, 1, 2, 3])),
        goals: vec![
            Goal::at_most("CPU per message of elbows, at 9,000 connections ÷ at 100", 1.15, own, 2)
                .further(),
        ],
        table,
    })
}

/// The slope of the least-squares line through `each` over the decimal logarithms of [`GROWTH`].
fn slope(each: &[f64; GROWTH.len()]) -> f64 {
    let count = GROWTH.len() as f64;
    let logarithms = GROWTH.map(|connections| (connections as f64).log10());
    let (x, y) = (logarithms.iter().sum::<f64>() / count, each.iter().sum::<f64>() / count);
    let over = logarithms.iter().zip(each).map(|(a, b)| (a - x) * (b - y)).sum::<f64>();
    over / logarithms.iter().map(|a| (a - x).powi(2)).sum::<f64>()
}

pub(super) fn threads(bench: &Bench) -> Fallible<Section> {
    let name = "threads";
    let rig = &bench.rig;
    let both = [rig.cores.proxy.clone(), rig.cores.load.clone()].concat();
    let found = bench.alternate(name, &[(1, "one thread"), (2, "two threads")], |threads| {
        let setup = Setup { threads, ..Setup::default() };
        let mut stage = rig.stage_on(&both, Proxy::Elbows, &setup, None)?;
        let work = Work::Echo { size: 64, protocol: WEBSOCKET.to_owned() };
        let outcome = some(stage.load(100, work, bench.seconds(2))?)?;
        let said = format!("{:.0} round trips per second", rate(&outcome));
        Ok((outcome, said))
    })?;
    let table = table(
        "elbows",
        &found,
        &[
            ("round trips per second", 0, &rate),
            ("CPU µs per round trip", 1, &cpu_each),
            ("cores used, %", 0, &core_used),
        ],
    );
    Ok(Section {
        name,
        title: "Two threads against one",
        text: "elbows alone, 64 B over 100 connections, on both cores, one of which the load and the application have \
               as well: they take what the second thread could use, so that this shows what it costs more than what \
               it brings."
            .to_owned(),
        chart: Some(Chart::of(&table, "round trips per second", &[0])),
        goals: Vec::new(),
        table,
    })
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn slope_of_what_does_not_grow_is_zero() {
        assert!(slope(&[15.0; 4]).abs() < 1e-9);
        // One more for each tenfold: 9,000 is a little less than the last tenfold.
        assert!((slope(&[1.0, 2.0, 3.0, 9000_f64.log10()]) - 1.0).abs() < 1e-9);
    }
}
