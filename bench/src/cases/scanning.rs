//! What following frames costs: the same bytes through the same engine, as a WebSocket and as an
//! upgrade to something else, which is not scanned and not pinged.

use super::{Bench, cpu_each, some, table};
use crate::Fallible;
use crate::heads::WEBSOCKET;
use crate::load::Work;
use crate::proxies::{Proxy, Setup};
use crate::report::{Chart, Goal, Section};

/// A protocol that elbows does not know.
const OTHER: &str = "bytes";

const ON: &str = "followed";
const OFF: &str = "not followed";

pub(super) fn run(bench: &Bench) -> Fallible<Section> {
    let name = "scanning";
    let found = bench.alternate(name, &[(WEBSOCKET, ON), (OTHER, OFF)], |protocol| {
        let mut each = [0.0; 2];
        for ((size, connections), each) in [(64, 100), (16 * 1024, 50)].into_iter().zip(&mut each) {
            let mut stage = bench.rig.stage(Proxy::Elbows, &Setup::default())?;
            let work = Work::Echo { size, protocol: protocol.to_owned() };
            *each = cpu_each(&some(stage.load(connections, work, bench.seconds(2))?)?);
        }
        Ok((each, format!("{:.2} and {:.2} µs CPU per round trip", each[0], each[1])))
    })?;
    let table = table(
        "frames",
        &found,
        &[
            ("64 B, CPU µs per round trip", 2, &|each| each[0]),
            ("16 KiB, CPU µs per round trip", 2, &|each| each[1]),
        ],
    );
    let ratio = |column| {
        let of = |row| table.get(row, column).unwrap_or_default();
        let (on, off) = (of(ON), of(OFF));
        (on.median / off.median, (off.most - off.least) / off.median)
    };
    let ((small, _), (large, noise)) = (ratio(0), ratio(1));
    Ok(Section {
        name,
        title: "Following frames",
        text: "elbows alone. An upgrade to a protocol that is no WebSocket goes the same way with the scanner off. At \
               16 KiB the difference is to be lost in the noise: in the spread of the rounds without it."
            .to_owned(),
        chart: Some(Chart::of(&table, "CPU µs per round trip", &[0, 1])),
        goals: vec![
            Goal::at_most("CPU at 64 B, followed ÷ not followed", 1.05, small, 3).further(),
            Goal::at_most("CPU at 16 KiB, followed ÷ not followed", 1.0 + noise, large, 3).further(),
        ],
        table,
    })
}
