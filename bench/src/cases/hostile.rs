//! What elbows has to bear: handshakes that it refuses, and what the rules cost by which it reads heads.

use super::beside::{AT_ONCE, LIMITED};
use super::counts::{self, Unit};
use super::{Bench, cpu_each, rate, some, table};
use crate::Fallible;
use crate::load::Work;
use crate::measure::counts::{Counter, INSTRUCTIONS};
use crate::micro::Micro;
use crate::proxies::{Proxy, Setup};
use crate::report::{Cell, Chart, Goal, Section};

const SERVED: &str = "served";
const REFUSED: &str = "refused";

pub(super) fn refusals(bench: &Bench) -> Fallible<Section> {
    let name = "refusals";
    let found = bench.alternate(name, &[(false, SERVED), (true, REFUSED)], |is_refused| {
        let (setup, work) =
            if is_refused { (LIMITED, Work::Refusals) } else { (Setup::DEFAULT, Work::Handshakes) };
        let mut stage = bench.rig.stage(Proxy::Elbows, &setup)?;
        let outcome = some(stage.load(AT_ONCE, work, bench.seconds(2))?)?;
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
        )
        .further()],
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
            bench.nanoseconds(work, times)? / 1000.0
        } else {
            let mut stage = bench.rig.stage(Proxy::Elbows, &Setup::DEFAULT)?;
            cpu_each(&some(stage.load(AT_ONCE, Work::Handshakes, bench.seconds(2))?)?)
        };
        Ok((took, format!("{took:.2} µs CPU")))
    })?;
    let mut table = table("of elbows", &found, &[("CPU µs", 2, &|took| *took)]);
    let unit = Unit::Handshake;
    let whole = counts::one_more(bench, name, Counter::Callgrind, Proxy::Elbows, unit)?;
    let counted = [
        bench.instructions(Micro::Head)?,
        bench.instructions(Micro::LenientHead)?,
        whole.get(INSTRUCTIONS).copied().unwrap_or_default(),
    ];
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
        )
        .further()],
        table,
    })
}
