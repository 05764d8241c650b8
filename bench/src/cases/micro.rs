//! Following frames and parsing PROXY headers, without sockets.

use super::Bench;
use crate::Fallible;
use crate::micro::Micro;
use crate::report::{Cell, Chart, Section, Spread, Table};

const SCANNED: [usize; 5] = [64, 125, 1024, 16 * 1024, 256 * 1024];

pub(super) fn run(bench: &Bench) -> Fallible<Section> {
    let name = "micro";
    let works = SCANNED.map(Micro::Frames).into_iter().chain([
        Micro::ProxyV1,
        Micro::ProxyV2,
        Micro::ProxyV2Tlvs,
        Micro::Hosts,
        Micro::Paths,
    ]);
    let count = if bench.is_quick { 20_000 } else { 2_000_000 };
    let mut rows = Vec::new();
    for work in works {
        let told = |fault| format!("{name}, {fault}");
        let mut times = Vec::new();
        for _ in 0..bench.rounds {
            times.push(bench.nanoseconds(work, count).map_err(told)?);
        }
        let instructions = bench.instructions(work).map_err(told)?;
        let length = work.bytes().len() as f64;
        let of = |value: &dyn Fn(f64) -> f64| Spread::of(times.iter().map(|time| value(*time)));
        let per_second = of(&|time| 1e9 / time);
        eprintln!("{name:<15} {}: {instructions:.0} instructions", work.title());
        rows.push((
            work.title(),
            vec![
                Cell::Exact(instructions, 0),
                Cell::Number(per_second, 0),
                Cell::Number(of(&|time| length / time), 2),
            ],
        ));
    }
    let columns = ["instructions each", "per second", "GB per second"];
    let table = Table { corner: "of elbows", columns: columns.map(str::to_owned).to_vec(), rows };
    Ok(Section {
        name,
        title: "Scanner and PROXY parser alone",
        text: "The code of elbows on bytes in memory, on one core. Large frames are read in pieces of 64 KiB, and \
               payload is skipped without a look at it, so that its bytes per second say little; the instructions \
               are counted by callgrind."
            .to_owned(),
        chart: Some(Chart::of(&table, "instructions each", &[0])),
        goals: Vec::new(),
        table,
    })
}
