//! What elbows has to bear: a flood of handshakes that it refuses, heads that never end, and the rules by which
//! heads are read.

use super::{Bench, cpu_each, rate, some, table};
use crate::Fallible;
use crate::cases::counts::{self, Unit};
use crate::cases::tunnels::{read, still};
use crate::load::{Latency, Outcome, Work};
use crate::measure::counts::{Counter, Counts, INSTRUCTIONS, difference};
use crate::measure::memory;
use crate::micro::Micro;
use crate::proxies::{Proxy, Setup};
use crate::report::{Cell, Chart, Goal, Section};
use crate::stage::Cores;

/// A client's allowance is used up soon, and not given back while it is measured.
const LIMITED: Setup =
    Setup { more: &[("HANDSHAKE_RATE_PER_CLIENT", "1/h burst=256")], ..Setup::DEFAULT };

/// Connections of the client that is measured: fewer than its allowance.
const MEASURED: usize = 200;

/// Refused handshakes that are under way at any time.
const FLOOD: usize = 64;

const QUIET: &str = "quiet";
const FLOODED: &str = "under the flood";

/// What a client saw, and how many handshakes of another were refused meanwhile, per second.
struct Seen {
    outcome: Outcome,
    refused: f64,
}

pub(super) fn flood(bench: &Bench) -> Fallible<Section> {
    let name = "flood";
    let connections = bench.size(MEASURED);
    let found = bench.alternate(name, &[(false, QUIET), (true, FLOODED)], |is_flooded| {
        let mut stage = bench.theatre.stage(Proxy::Elbows, &LIMITED)?;
        let Cores { proxy, load } = &bench.theatre.cores;
        let (flood, _awake) = if is_flooded {
            (Some(stage.keep_up(FLOOD, Work::Flood)?), None)
        } else {
            (None, Some((bench.theatre.awake(proxy)?, bench.theatre.awake(load)?)))
        };
        let work = Work::Paced { rate: 2_000 };
        let outcome = some(stage.load(connections, work, bench.seconds(4))?)?;
        let refused = match flood {
            Some(flood) => rate(&some(stage.finish(flood)?)?),
            None => 0.0,
        };
        let said = format!("p99 {:.0} µs, {refused:.0} refused a second", p99(&outcome));
        Ok((Seen { outcome, refused }, said))
    })?;
    let of = |seen: &Seen, which: fn(&Latency) -> u32| micros(&seen.outcome, which);
    let table = table(
        "elbows",
        &found,
        &[
            ("p50, µs", 0, &|seen| of(seen, |latency| latency.p50)),
            ("p99, µs", 0, &|seen| p99(&seen.outcome)),
            ("p99.9, µs", 0, &|seen| of(seen, |latency| latency.p999)),
            ("refused per second", 0, &|seen| seen.refused),
        ],
    );
    let of = |row| table.get(row, 1).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "A flood of handshakes that are refused, beside another client's messages",
        text: "elbows alone, on one core. One client has used up its `HANDSHAKE_RATE_PER_CLIENT` and goes on, 64 at a \
               time, each answered with 429; another sends 2,000 messages a second over 200 tunnels. The flood has the \
               rest of the load's core (`chrt --idle`), so that what is measured waits for elbows and not for it; \
               where all is quiet, a program that does nothing has the rest of both, so that none of them falls asleep."
            .to_owned(),
        chart: Some(Chart::of(&table, "µs until a message is back", &[0, 1, 2])),
        goals: vec![Goal::at_most("p99 under the flood ÷ quiet", 2.0, of(FLOODED) / of(QUIET), 2)],
        table,
    })
}

fn micros(outcome: &Outcome, which: fn(&Latency) -> u32) -> f64 {
    outcome.latency.as_ref().map_or(0.0, |latency| f64::from(which(latency)) / 1000.0)
}

fn p99(outcome: &Outcome) -> f64 {
    micros(outcome, |latency| latency.p99)
}

const SERVED: &str = "served";
const REFUSED: &str = "refused";

pub(super) fn refusals(bench: &Bench) -> Fallible<Section> {
    let name = "refusals";
    let found = bench.alternate(name, &[(false, SERVED), (true, REFUSED)], |is_refused| {
        let (setup, work) =
            if is_refused { (LIMITED, Work::Refusals) } else { (Setup::DEFAULT, Work::Handshakes) };
        let mut stage = bench.theatre.stage(Proxy::Elbows, &setup)?;
        let outcome = some(stage.load(FLOOD, work, bench.seconds(2))?)?;
        let said = format!("{:.1} µs CPU per handshake", cpu_each(&outcome));
        Ok((outcome, said))
    })?;
    let table =
        table("handshakes", &found, &[("CPU µs each", 1, &cpu_each), ("per second", 0, &rate)]);
    let of = |row| table.get(row, 0).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Refusing beside serving, 64 handshakes at a time",
        text: "elbows alone. Served: as in the case of handshakes. Refused: with 429, for `HANDSHAKE_RATE_PER_CLIENT`."
            .to_owned(),
        chart: Some(Chart::of(&table, "CPU µs per handshake", &[0])),
        goals: vec![Goal::at_most(
            "CPU per handshake, refused ÷ served",
            1.0,
            of(REFUSED) / of(SERVED),
            2,
        )],
        table,
    })
}

const STRICT: &str = "the head, read strictly";
const LENIENT: &str = "the head, read by httparse";
const WHOLE: &str = "a whole handshake";

pub(super) fn strictness(bench: &Bench) -> Fallible<Section> {
    let name = "strictness";
    let times = if bench.is_quick { 20_000 } else { 2_000_000 };
    let who = [(Some(Micro::Head), STRICT), (Some(Micro::LenientHead), LENIENT), (None, WHOLE)];
    // Microseconds of CPU.
    let found = bench.alternate(name, &who, |work| {
        let took = if let Some(work) = work {
            let said = bench.theatre.micro(work, times, None)?.0;
            let took: f64 = said.trim().parse().map_err(|_| format!("it said {said}"))?;
            took / 1000.0 / times as f64
        } else {
            let mut stage = bench.theatre.stage(Proxy::Elbows, &Setup::DEFAULT)?;
            cpu_each(&some(stage.load(FLOOD, Work::Handshakes, bench.seconds(2))?)?)
        };
        Ok((took, format!("{took:.2} µs CPU")))
    })?;
    let mut table = table("of elbows", &found, &[("CPU µs", 2, &|took| *took)]);
    let instructions = |work| -> Fallible<f64> {
        let counted = |count| Ok(bench.theatre.micro(work, count, Some(Counter::Callgrind))?.1);
        let both = counted(1_000).and_then(|few| Ok((few, counted(11_000)?)));
        let (few, many) = both.map_err(|fault: String| format!("{name}: {fault}"))?;
        Ok(instructions_of(&difference(&few, &many, 10_000.0)))
    };
    let unit = Unit::Handshake;
    let whole = counts::one_more(bench, name, Counter::Callgrind, Proxy::Elbows, unit)?;
    let counted =
        [instructions(Micro::Head)?, instructions(Micro::LenientHead)?, instructions_of(&whole)];
    table.columns.push("instructions".to_owned());
    for ((_, cells), instructions) in table.rows.iter_mut().zip(counted) {
        cells.push(Cell::Exact(instructions, 0));
    }
    let cpu = |row| table.get(row, 0).unwrap_or_default().median;
    let more = (cpu(STRICT) - cpu(LENIENT)) * 100.0 / cpu(WHOLE);
    Ok(Section {
        name,
        title: "What strictness costs a handshake",
        text: "The request head of the case of handshakes, read by elbows' strict reader, with all that it asks of `Host`, \
               length and coding, and by httparse, hyper's parser, which would do the job without those rules. Beside \
               them a whole handshake, in which a request head is read once: its CPU is what elbows' threads ran, the \
               kernel's work included; instructions are those in user space."
            .to_owned(),
        chart: None,
        goals: vec![Goal::at_most(
            "CPU of the strict reader less that of httparse, % of a handshake",
            2.0,
            more,
            1,
        )],
        table,
    })
}

fn instructions_of(counts: &Counts) -> f64 {
    counts.get(INSTRUCTIONS).copied().unwrap_or_default()
}

/// Heads that never end.
const HEADS: usize = 9_000;

pub(super) fn slow_heads(bench: &Bench) -> Fallible<Section> {
    let name = "slow-heads";
    let connections = bench.size(HEADS);
    let found = bench.alternate(name, &[(Proxy::Elbows, Proxy::Elbows.as_str())], |proxy| {
        let mut stage = bench.theatre.stage(proxy, &Setup::DEFAULT)?;
        let first = stage.keep_up(1, Work::SlowHeads)?;
        stage.finish(first)?;
        let before = still(bench, &mut stage)?;
        let load = stage.keep_up(connections, Work::SlowHeads)?;
        // All have been accepted, or they would hold nothing.
        while read(memory::descriptors(stage.pid()))? < connections {
            stage.expect_alive()?;
        }
        let full = still(bench, &mut stage)?;
        stage.finish(load)?;
        let each = (full - before) / connections as f64;
        Ok((each, format!("{each:.0} B each")))
    })?;
    let table = table("proxy", &found, &[("bytes each", 0, &|each| *each)]);
    let own = table.get(Proxy::Elbows.as_str(), 0).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Slow heads, 9,000 of them",
        text: "Connections with a PROXY header and half of a request head, which elbows waits for. PSS of the process, as \
               of idle tunnels; the rest of the head is let come for `REQUEST_HEAD_TIMEOUT`."
            .to_owned(),
        chart: None,
        goals: vec![Goal::at_most("bytes of elbows' memory per slow head", 16_384.0, own, 0)],
        table,
    })
}
