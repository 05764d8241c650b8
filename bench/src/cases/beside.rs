//! What one client's traffic does to another one's messages, on one core.
//!
//! The client that is measured sends by the clock. The other one has the rest of the load's core (`chrt --idle`), so that
//! what is measured waits for elbows and not for it.

use super::{Bench, latency, rate, some, table};
use crate::Fallible;
use crate::load::{Frames, Outcome, Work};
use crate::proxies::{Proxy, Setup};
use crate::report::{Chart, Goal, Section, Table};
use crate::stage::Cores;

/// A client's allowance is used up soon, and not given back while it is measured.
pub(super) const LIMITED: Setup =
    Setup { more: &[("HANDSHAKE_RATE_PER_CLIENT", "1/h burst=256")], ..Setup::DEFAULT };

/// Connections of the client that is measured: fewer than its allowance.
const MEASURED: usize = 200;

/// Handshakes that are under way at any time.
pub(super) const AT_ONCE: usize = 64;

/// The name of the row in which the other client is not there.
const QUIET: &str = "quiet";

/// What the other client does.
#[derive(Clone, Copy)]
enum Other {
    Nothing,
    Handshakes,
    Frames(Frames),
}

/// What a client saw, and how much of the other one's work was done, per second.
struct Beside {
    outcome: Outcome,
    other: f64,
}

pub(super) fn flood(bench: &Bench) -> Fallible<Section> {
    let name = "flood";
    let flooded = "under the flood";
    let whos = [(Other::Nothing, QUIET), (Other::Handshakes, flooded)];
    let table = measure(bench, name, &whos, &LIMITED, "refused per second", |count| count)?;
    Ok(Section {
        name,
        title: "A flood of handshakes that are refused, beside another client's messages",
        text: "elbows alone, on one core. One client has used up its `HANDSHAKE_RATE_PER_CLIENT` and goes on, 64 at a \
               time, each answered with 429; another sends 2,000 messages a second over 200 tunnels. The flood has the \
               rest of the load's core (`chrt --idle`), so that what is measured waits for elbows and not for it; \
               where all is quiet, a program that does nothing has the rest of both, so that none of them falls asleep."
            .to_owned(),
        chart: Some(Chart::of(&table, "µs until a message is back", &[0, 1, 2])),
        goals: vec![Goal::at_most("p99 under the flood ÷ quiet", 1.5, ratio(&table, flooded), 2)],
        table,
    })
}

pub(super) fn hostile_frames(bench: &Bench) -> Fallible<Section> {
    let name = "hostile-frames";
    let [valid, unmasked, unknown] =
        ["beside valid frames", "beside `82 00`", "beside unknown opcodes"];
    let whos = [
        (Other::Nothing, QUIET),
        (Other::Frames(Frames::Valid), valid),
        (Other::Frames(Frames::Unmasked), unmasked),
        (Other::Frames(Frames::UnknownOpcode), unknown),
    ];
    // What is counted are blocks of 256 KiB.
    let table =
        measure(bench, name, &whos, &Setup::DEFAULT, "MiB per second", |count| count / 4.0)?;
    let goal = |row, words| {
        let what = format!("p99 beside {words} ÷ quiet");
        Goal::at_most(what, 1.5, ratio(&table, row), 2)
    };
    Ok(Section {
        name,
        title: "Hostile frames, beside another client's messages",
        text: "elbows alone, on one core, as above. One client sends frames through one tunnel, as fast as they are taken, \
               to an application that does not look at them, and reads them when the load's core has nothing else to do: \
               256 KiB of `82 00` again and again (frames without payload that are not masked), frames with an opcode that is reserved, or, to compare, valid messages of 64 KiB. \
               Another sends 2,000 messages a second over 200 tunnels."
            .to_owned(),
        chart: Some(Chart::of(&table, "µs until a message is back", &[0, 1, 2])),
        goals: vec![goal(unmasked, "256 KiB of `82 00` and again"), goal(unknown, "unknown opcodes")],
        table,
    })
}

/// Measures a client beside each of the others.
fn measure(
    bench: &Bench,
    name: &str,
    whos: &[(Other, &str)],
    setup: &Setup,
    unit: &str,
    in_units: fn(f64) -> f64,
) -> Fallible<Table> {
    let connections = bench.size(MEASURED);
    let found = bench.alternate(name, whos, |other| {
        let mut stage = bench.rig.stage(Proxy::Elbows, setup)?;
        let Cores { proxy, load } = &bench.rig.cores;
        let (at_work, _awake) = match other {
            Other::Nothing => (None, Some((bench.rig.awake(proxy)?, bench.rig.awake(load)?))),
            Other::Handshakes => (Some(stage.keep_up(AT_ONCE, Work::Flood)?), None),
            Other::Frames(frames) => (Some(stage.keep_up(1, Work::Frames(frames))?), None),
        };
        let work = Work::Paced { rate: 2_000 };
        // Where nothing comes back at all, those under way say how long that was.
        let outcome = stage.load(connections, work, bench.seconds(3))?;
        if outcome.latency.is_none() {
            return Err("no message was sent".to_owned());
        }
        let other = match at_work {
            Some(at_work) => in_units(rate(&some(stage.finish(at_work)?)?)),
            None => 0.0,
        };
        let said = format!("p99 {:.0} µs, {other:.0} {unit}", p99(&outcome));
        Ok((Beside { outcome, other }, said))
    })?;
    Ok(table(
        "elbows",
        &found,
        &[
            ("p50, µs", 0, &|one| latency(&one.outcome, |all| all.p50)),
            ("p99, µs", 0, &|one| p99(&one.outcome)),
            ("p99.9, µs", 0, &|one| latency(&one.outcome, |all| all.p999)),
            (unit, 0, &|one| one.other),
        ],
    ))
}

fn p99(outcome: &Outcome) -> f64 {
    latency(outcome, |all| all.p99)
}

/// The p99 of a row ÷ the quiet one.
fn ratio(table: &Table, row: &str) -> f64 {
    let of = |row| table.get(row, 1).unwrap_or_default().median;
    of(row) / of(QUIET)
}
