//! What connections on which nothing is said take: memory of the proxy, and of the kernel.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Bench, table};
use crate::Fallible;
use crate::load::Work;
use crate::measure::{kernel, memory, read};
use crate::process::GLANCE;
use crate::proxies::{Proxy, Setup};
use crate::report::{Chart, Goal, Section, Table};
use crate::stage::Stage;

/// Connections that are held.
const CONNECTIONS: usize = 9_000;

/// How long memory must not move before it is believed, and how long that is waited for.
const STILL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(15);

/// Memory of a proxy in bytes.
struct Memory {
    before: f64,
    full: f64,
    after: f64,
    connections: f64,
}

impl Memory {
    fn each(&self) -> f64 {
        (self.full - self.before) / self.connections
    }

    /// The part of what the connections took that came back, in percent.
    fn given_back(&self) -> f64 {
        (self.full - self.after) * 100.0 / (self.full - self.before).max(1.0)
    }
}

pub(super) fn idle(bench: &Bench) -> Fallible<Section> {
    let name = "idle";
    let table = held(bench, name, &Work::Hold, "bytes per tunnel")?;
    let own = |column| table.get(Proxy::Elbows.as_str(), column).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Idle memory, 9,000 tunnels",
        text: "PSS of the process (`Pss` of `smaps_rollup`) before, with all tunnels open and silent, and after all of \
               them have ended."
            .to_owned(),
        chart: Some(Chart::of(&table, "bytes of process memory per tunnel", &[0])),
        goals: vec![
            Goal::at_most("bytes of elbows' memory per idle tunnel", 482.0, own(0), 0),
            Goal::at_least("given back by elbows after a mass disconnect, %", 90.0, own(1), 1).further(),
        ],
        table,
    })
}

pub(super) fn kept(bench: &Bench) -> Fallible<Section> {
    let name = "kept";
    let table = held(bench, name, &Work::Kept, "bytes per connection")?;
    let own = table.get(Proxy::Elbows.as_str(), 0).unwrap_or_default().median;
    Ok(Section {
        name,
        title: "Idle memory, 9,000 kept connections",
        text: "As above; each connection has had one response of 1 KiB and may have more."
            .to_owned(),
        chart: Some(Chart::of(&table, "bytes of process memory per connection", &[0])),
        goals: vec![Goal::at_most(
            "bytes of elbows' memory per idle kept connection",
            1_024.0,
            own,
            0,
        )],
        table,
    })
}

/// What each proxy's memory is before, with and after connections that are held.
fn held(bench: &Bench, name: &str, work: &Work, each: &str) -> Fallible<Table> {
    let connections = bench.size(CONNECTIONS);
    let found = bench.in_turn(name, &bench.proxies(), |proxy| {
        let mut stage = bench.rig.stage(proxy, &Setup::default())?;
        // What the first connection of all takes is not one of theirs.
        let first = stage.keep_up(1, work.clone())?;
        stage.finish(first)?;
        let descriptors = read(memory::descriptors(stage.pid()))?;
        let before = still(bench, &mut stage)?;
        let load = stage.keep_up(connections, work.clone())?;
        let full = still(bench, &mut stage)?;
        stage.finish(load)?;
        until_closed(&mut stage, descriptors)?;
        let after = still(bench, &mut stage)?;
        let memory = Memory { before, full, after, connections: connections as f64 };
        let said = format!("{:.0} {each}, {:.0} % back", memory.each(), memory.given_back());
        Ok((memory, said))
    })?;
    let kib = |bytes: f64| bytes / 1024.0;
    Ok(table(
        "proxy",
        &found,
        &[
            (each, 0, &Memory::each),
            ("given back, %", 1, &Memory::given_back),
            ("KiB before", 0, &|memory| kib(memory.before)),
            ("KiB with all", 0, &|memory| kib(memory.full)),
            ("KiB after", 0, &|memory| kib(memory.after)),
        ],
    ))
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

pub(super) fn slow_heads(bench: &Bench) -> Fallible<Section> {
    let name = "slow-heads";
    let connections = bench.size(CONNECTIONS);
    let found = bench.in_turn(name, &[Proxy::Elbows], |proxy| {
        let mut stage = bench.rig.stage(proxy, &Setup::DEFAULT)?;
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
        goals: vec![Goal::at_most("bytes of elbows' memory per slow head", 16_384.0, own, 0).further()],
        table,
    })
}

/// Bytes of the whole machine and of the proxy, for one connection.
struct Cost {
    kernel: f64,
    process: f64,
    descriptors: f64,
}

pub(super) fn million(bench: &Bench) -> Fallible<Section> {
    let name = "million";
    let tunnels = bench.size(CONNECTIONS);
    let whos = [(true, "through elbows"), (false, "without a proxy")];
    let found = bench.alternate(name, &whos, |has_proxy| {
        let rig = &bench.rig;
        let mut stage = if has_proxy {
            rig.stage(Proxy::Elbows, &Setup::default())?
        } else {
            rig.without_proxy()?
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
        // Nothing tells when the kernel has done what it does behind an opening.
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
