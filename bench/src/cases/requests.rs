//! Requests: plain ones, without and with much to pass on, and handshakes.

use super::{Bench, against_the_best, core_used, cpu_each, rate, some, table};
use crate::Fallible;
use crate::load::{Outcome, Work};
use crate::proxies::{Proxy, Setup};
use crate::report::{Chart, Goal, Section, Table};

/// Requests of one kind, so many at a time.
struct Requests {
    name: &'static str,
    title: &'static str,
    text: &'static str,
    /// What the columns are called.
    columns: [&'static str; 2],
    at_once: usize,
    work: Work,
    /// There is so much to pass on that splice(2) pays.
    is_bulk: bool,
}

pub(super) fn get(bench: &Bench) -> Fallible<Section> {
    let requests = Requests {
        name: "get",
        title: "Plain HTTP, GET of 1 KiB over 64 connections",
        text: "Connections are kept alive on both sides; one request is under way on each, always.",
        columns: ["CPU µs per request", "requests per second"],
        at_once: 64,
        work: Work::Get { is_large: false },
        is_bulk: false,
    };
    requests.run(bench, |table| against_the_best(table, 0, "CPU per request", 0.8))
}

pub(super) fn get_large(bench: &Bench) -> Fallible<Section> {
    let requests = Requests {
        name: "get-1m",
        title: "Plain HTTP, GET of 1 MiB over 16 connections",
        text: "As above.",
        columns: ["CPU µs per request", "requests per second"],
        at_once: 16,
        work: Work::Get { is_large: true },
        is_bulk: true,
    };
    requests.run(bench, |table| against_the_best(table, 0, "CPU per request", 0.6))
}

pub(super) fn upload(bench: &Bench) -> Fallible<Section> {
    let requests = Requests {
        name: "upload-1m",
        title: "Plain HTTP, POST of 1 MiB over 16 connections",
        text: "As above; the body is sent by the client, and the response has two bytes.",
        columns: ["CPU µs per request", "requests per second"],
        at_once: 16,
        work: Work::Upload,
        is_bulk: true,
    };
    requests
        .run(bench, |table| against_the_best(table, 0, "CPU per request", 0.6).map(Goal::further))
}

pub(super) fn handshakes(bench: &Bench) -> Fallible<Section> {
    let requests = Requests {
        name: "handshakes",
        title: "Handshakes, 64 at a time",
        text: "Connect, PROXY header and request, 101, then the client closes, until the proxy has closed, too. Most of it \
               is the kernel's work: the copy loop shows how much. Beside nginx elbows asks the kernel for keepalive and \
               `TCP_USER_TIMEOUT` towards the application, registers both sockets anew as they become a tunnel, \
               and passes the end of each direction on by itself, where nginx closes both \
               connections at the first.",
        columns: ["CPU µs per handshake", "handshakes per second"],
        at_once: 64,
        work: Work::Handshakes,
        is_bulk: false,
    };
    requests.run(bench, |table| against_the_best(table, 0, "CPU per handshake", 0.9))
}

impl Requests {
    fn run(self, bench: &Bench, goal: fn(&Table) -> Option<Goal>) -> Fallible<Section> {
        let [each, per_second] = self.columns;
        let measure = |proxy: Proxy| -> Fallible<(Outcome, String)> {
            let mut stage = bench.rig.stage(proxy, &Setup::default())?;
            let outcome = some(stage.load(self.at_once, self.work.clone(), bench.seconds(2))?)?;
            let said = format!("{:.1} {each}", cpu_each(&outcome));
            Ok((outcome, said))
        };
        let proxies = if self.is_bulk { bench.proxies.clone() } else { bench.proxies() };
        let found = bench.in_turn(self.name, &proxies, measure)?;
        let columns: [super::Column<'_, Outcome>; 3] =
            [(each, 1, &cpu_each), (per_second, 0, &rate), ("core used, %", 0, &core_used)];
        let table = table("proxy", &found, &columns);
        Ok(Section {
            name: self.name,
            title: self.title,
            text: self.text.to_owned(),
            chart: Some(Chart::of(&table, each, &[0])),
            goals: goal(&table).into_iter().collect(),
            table,
        })
    }
}
