//! Echo at full speed: one message under way on each connection.

use super::{Bench, against_the_best, against_the_limit, core_used, cpu_each, rate, some, table};
use crate::Fallible;
use crate::heads::WEBSOCKET;
use crate::load::Work;
use crate::proxies::Setup;
use crate::report::{Chart, Section};

/// Payload in bytes and connections of one case.
struct Echo {
    name: &'static str,
    title: &'static str,
    size: usize,
    connections: usize,
    /// CPU, as a part of the best peer's.
    of_the_best: f64,
    /// CPU, as a multiple of the copy loop's.
    of_the_limit: Option<f64>,
    /// There is so much to pass on that splice(2) pays.
    is_bulk: bool,
    /// What it costs, and what was tried to make it cheaper.
    note: &'static str,
}

pub(super) fn echo64(bench: &Bench) -> Fallible<Section> {
    Echo {
        name: "echo64",
        title: "Echo, 64 B over 100 connections",
        size: 64,
        connections: 100,
        of_the_best: 0.95,
        of_the_limit: Some(1.03),
        is_bulk: false,
        note: "Nearly all of it is the kernel's work, as the copy loop shows.",
    }
    .run(bench)
}

pub(super) fn echo16k(bench: &Bench) -> Fallible<Section> {
    Echo {
        name: "echo16k",
        title: "Echo, 16 KiB over 50 connections",
        size: 16 * 1024,
        connections: 50,
        of_the_best: 0.65,
        of_the_limit: None,
        is_bulk: false,
        note: "Frames as short as these are copied, one read(2) and one write(2) each, and the copy loop shows what that \
               costs.",
    }
    .run(bench)
}

pub(super) fn echo256k(bench: &Bench) -> Fallible<Section> {
    Echo {
        name: "echo256k",
        title: "Echo, 256 KiB over 16 connections",
        size: 256 * 1024,
        connections: 16,
        of_the_best: 0.50,
        of_the_limit: None,
        is_bulk: true,
        note: "Payload goes from socket to socket by splice(2), each head by itself in front of it, which takes three calls \
               more each way than the splice loop makes. To have head and payload share a segment (`MSG_MORE`) was \
               tried: it made a quarter fewer packets and took more CPU, since whoever waits for them had to be woken \
               more often.",
    }
    .run(bench)
}

impl Echo {
    fn run(&self, bench: &Bench) -> Fallible<Section> {
        let proxies = if self.is_bulk { bench.proxies.clone() } else { bench.proxies() };
        let found = bench.in_turn(self.name, &proxies, |proxy| {
            let mut stage = bench.rig.stage(proxy, &Setup::default())?;
            let work = Work::Echo { size: self.size, protocol: WEBSOCKET.to_owned() };
            let outcome = some(stage.load(self.connections, work, bench.seconds(2))?)?;
            let said = format!("{:.1} µs CPU per round trip", cpu_each(&outcome));
            Ok((outcome, said))
        })?;
        let table = table(
            "proxy",
            &found,
            &[
                ("CPU µs per round trip", 1, &cpu_each),
                ("round trips per second", 0, &rate),
                ("core used, %", 0, &core_used),
            ],
        );
        let what = "CPU per round trip";
        let best = against_the_best(&table, 0, what, self.of_the_best);
        let limit = self.of_the_limit.and_then(|bound| against_the_limit(&table, 0, what, bound));
        Ok(Section {
            name: self.name,
            title: self.title,
            text: format!(
                "One message is under way on each connection, always; the application sends it back. {}",
                self.note
            ),
            chart: Some(Chart::of(&table, "CPU µs per round trip", &[0])),
            goals: best.into_iter().chain(limit).collect(),
            table,
        })
    }
}
