//! The cases: what is measured. Each is a function that makes its measurements, in rounds in which the
//! proxies take turns, and returns what it found.

mod balance;
mod beside;
mod counts;
mod echo;
mod handoff;
mod hostile;
mod memory;
mod messages;
mod micro;
mod observed;
mod requests;
mod scanning;
mod tunnels;

use std::time::{Duration, Instant};

use crate::Fallible;
use crate::load::{Latency, Outcome, Until};
use crate::measure::counts::{Counter, INSTRUCTIONS, difference};
use crate::micro::Micro;
use crate::proxies::Proxy;
use crate::report::{Cell, Goal, Section, Spread, Table};
use crate::stage::Rig;

/// A case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// It is part of `--quick`.
    pub(crate) is_quick: bool,
    /// How often each of its measurements is made.
    pub(crate) rounds: usize,
    pub(crate) run: fn(&Bench) -> Fallible<Section>,
}

impl Case {
    /// One whose measurements are of time. The machine's other work disturbs them.
    const fn timed(
        name: &'static str,
        is_quick: bool,
        run: fn(&Bench) -> Fallible<Section>,
    ) -> Self {
        Self { name, is_quick, rounds: 3, run }
    }

    /// One whose measurements are counts, of bytes or of seconds by the clock. They come out the same each time.
    const fn counted(
        name: &'static str,
        is_quick: bool,
        run: fn(&Bench) -> Fallible<Section>,
    ) -> Self {
        Self { name, is_quick, rounds: 2, run }
    }
}

/// All cases, in the order of the report.
pub(crate) const ALL: &[Case] = &[
    Case::timed("echo64", true, echo::echo64),
    Case::timed("echo16k", false, echo::echo16k),
    Case::timed("echo256k", true, echo::echo256k),
    Case::timed("get", true, requests::get),
    Case::timed("get-1m", true, requests::get_large),
    Case::timed("upload-1m", true, requests::upload),
    Case::timed("handshakes", true, requests::handshakes),
    Case::timed("paced", true, messages::paced),
    Case::timed("push", false, messages::push),
    Case::counted("idle", true, memory::idle),
    Case::counted("kept", true, memory::kept),
    Case::counted("observed", true, observed::run),
    Case::timed("flood", true, beside::flood),
    Case::timed("hostile-frames", true, beside::hostile_frames),
    Case::counted("instructions", true, counts::instructions),
    Case::counted("allocations", true, counts::allocations),
    Case::counted("calls-message", true, counts::calls_message),
    Case::counted("calls-handshake", false, counts::calls_handshake),
    Case::counted("calls-request", false, counts::calls_request),
    Case::timed("growth", false, messages::growth),
    Case::timed("threads", true, messages::threads),
    Case::counted("micro", false, micro::run),
    Case::timed("scanning", true, scanning::run),
    Case::timed("refusals", true, hostile::refusals),
    Case::timed("strictness", false, hostile::strictness),
    Case::counted("slow-heads", true, memory::slow_heads),
    Case::counted("pings", true, tunnels::pings),
    Case::counted("drain", true, tunnels::drain),
    Case::counted("balance", true, balance::run),
    Case::timed("handoff", true, handoff::run),
    Case::counted("million", true, memory::million),
];

/// What cases measure with.
pub(crate) struct Bench {
    pub(crate) rig: Rig,
    /// Small numbers: whether the parts work is the question, not how well.
    pub(crate) is_quick: bool,
    /// Who is measured, elbows among them.
    pub(crate) proxies: Vec<Proxy>,
    /// How often each measurement is made.
    pub(crate) rounds: usize,
}

impl Bench {
    /// Those that are measured, without the loop that splices: it is the limit only where there is much to pass on.
    pub(crate) fn proxies(&self) -> Vec<Proxy> {
        self.proxies.iter().copied().filter(|proxy| *proxy != Proxy::SpliceLoop).collect()
    }

    /// Those that are programs of other people, and measured.
    pub(crate) fn peers(&self) -> Vec<Proxy> {
        Proxy::PEERS.into_iter().filter(|peer| self.proxies.contains(peer)).collect()
    }

    /// `full`, or a number that is small enough for the short mode.
    pub(crate) fn size(&self, full: usize) -> usize {
        if self.is_quick { full.div_ceil(20) } else { full }
    }

    /// A window of so many seconds; in the short mode one of a few messages, which come however busy the
    /// machine is.
    pub(crate) const fn seconds(&self, measured: u64) -> Until {
        if self.is_quick {
            Until::Count(400)
        } else {
            Until::Time { warm_up: 300, measured: measured * 1000 }
        }
    }

    /// Makes a measurement with each of `who`, in rounds, and says on standard error how it goes. Each
    /// round begins with another one, so that nobody is always first.
    pub(crate) fn alternate<W: Copy, T>(
        &self,
        case: &str,
        who: &[(W, &str)],
        mut measure: impl FnMut(W) -> Fallible<(T, String)>,
    ) -> Fallible<Vec<(String, Vec<T>)>> {
        let mut found: Vec<(String, Vec<T>)> =
            who.iter().map(|(_, name)| ((*name).to_owned(), Vec::new())).collect();
        for round in 0..self.rounds {
            for turn in 0..who.len() {
                let index = (round + turn) % who.len();
                let (Some((one, name)), Some((_, values))) = (who.get(index), found.get_mut(index))
                else {
                    continue;
                };
                let start = Instant::now();
                let (value, said) =
                    measure(*one).map_err(|fault| format!("{case}, {name}: {fault}"))?;
                values.push(value);
                let took = start.elapsed();
                progress(case, [round + 1, self.rounds], name, &said, took);
            }
        }
        Ok(found)
    }

    /// The same with these proxies.
    pub(crate) fn in_turn<T>(
        &self,
        case: &str,
        proxies: &[Proxy],
        measure: impl FnMut(Proxy) -> Fallible<(T, String)>,
    ) -> Fallible<Vec<(String, Vec<T>)>> {
        let who: Vec<_> = proxies.iter().map(|proxy| (*proxy, proxy.as_str())).collect();
        self.alternate(case, &who, measure)
    }

    /// Instructions that a part of elbows without sockets takes each time.
    fn instructions(&self, work: Micro) -> Fallible<f64> {
        let counted = |count| Ok(self.rig.micro(work, count, Some(Counter::Callgrind))?.1);
        let both = counted(1_000).and_then(|few| Ok((few, counted(11_000)?)));
        let (few, many) = both.map_err(|fault: String| format!("{}: {fault}", work.title()))?;
        Ok(difference(&few, &many, 10_000.0).get(INSTRUCTIONS).copied().unwrap_or_default())
    }

    /// Nanoseconds that it takes each time.
    fn nanoseconds(&self, work: Micro, count: u64) -> Fallible<f64> {
        let said = self.rig.micro(work, count, None)?.0;
        let all: f64 = said.trim().parse().map_err(|_| format!("{} said {said}", work.title()))?;
        Ok(all / count as f64)
    }
}

fn progress(case: &str, [round, rounds]: [usize; 2], name: &str, said: &str, took: Duration) {
    eprintln!(
        "{case:<14} round {round} of {rounds}  {name:<12} {said:<40} ({:.1} s)",
        took.as_secs_f64()
    );
}

/// CPU microseconds of the proxy for each thing that was counted.
fn cpu_each(outcome: &Outcome) -> f64 {
    outcome.cpu as f64 / 1000.0 / outcome.count.max(1) as f64
}

/// Things that were counted, per second.
fn rate(outcome: &Outcome) -> f64 {
    outcome.count as f64 * 1e9 / outcome.elapsed.max(1) as f64
}

/// The share of a core that the proxy used, in percent.
fn core_used(outcome: &Outcome) -> f64 {
    outcome.cpu as f64 * 100.0 / outcome.elapsed.max(1) as f64
}

/// Fails if nothing was counted: a ratio to it would mean nothing.
fn some(outcome: Outcome) -> Fallible<Outcome> {
    if outcome.count == 0 { Err("nothing came back".to_owned()) } else { Ok(outcome) }
}

/// A column: what it is called, how many digits it is shown with, and how it is worked out.
type Column<'a, T> = (&'a str, usize, &'a dyn Fn(&T) -> f64);

/// A table with a row for each proxy, or whatever takes turns.
fn table<T>(corner: &'static str, found: &[(String, Vec<T>)], columns: &[Column<'_, T>]) -> Table {
    let row = |(name, values): &(String, Vec<T>)| {
        let cell = |(_, digits, of): &Column<'_, T>| {
            Cell::Number(Spread::of(values.iter().map(of)), *digits)
        };
        (name.clone(), columns.iter().map(cell).collect())
    };
    Table {
        corner,
        columns: columns.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        rows: found.iter().map(row).collect(),
    }
}

/// Microseconds that messages took.
fn latency(outcome: &Outcome, which: impl Fn(&Latency) -> u64) -> f64 {
    outcome.latency.as_ref().map_or(0.0, |latency| which(latency) as f64 / 1000.0)
}

/// The peer whose median in a column is the least.
fn best(table: &Table, column: usize) -> Option<(Proxy, Spread)> {
    let peers = Proxy::PEERS.into_iter();
    let found = peers.filter_map(|peer| Some((peer, table.get(peer.as_str(), column)?)));
    found.min_by(|(_, one), (_, other)| one.median.total_cmp(&other.median))
}

/// That elbows' number in a column is at most `bound` times that of the best peer.
fn against_the_best(table: &Table, column: usize, what: &str, bound: f64) -> Option<Goal> {
    let (peer, best) = best(table, column)?;
    let own = table.get(Proxy::Elbows.as_str(), column)?.median;
    let what = format!("{what}, elbows ÷ the best peer ({})", peer.as_str());
    Some(Goal::at_most(what, bound, own / best.median, 2))
}

/// The same against the copy loop.
fn against_the_limit(table: &Table, column: usize, what: &str, bound: f64) -> Option<Goal> {
    let limit = table.get(Proxy::CopyLoop.as_str(), column)?.median;
    let own = table.get(Proxy::Elbows.as_str(), column)?.median;
    Some(Goal::at_most(format!("{what}, elbows ÷ copy loop"), bound, own / limit, 2))
}

#[cfg(test)]
mod tests {
    use super::{against_the_best, table};
    use crate::report::{Cell, Spread};

    #[test]
    fn best_peer_is_the_one_with_the_least_median() {
        let found = [("elbows", 8.0), ("nginx", 12.0), ("Envoy", 10.0), ("copy loop", 1.0)];
        let found = found.map(|(name, value)| (name.to_owned(), vec![value]));
        let mut table = table("proxy", &found, &[("CPU", 1, &|value: &f64| *value)]);
        // One that could not be measured is not the best.
        table.rows.push(("Caddy".to_owned(), vec![Cell::Cannot("it cannot")]));
        let goal = against_the_best(&table, 0, "CPU", 0.9).unwrap();
        assert!(goal.is_held() && goal.what.ends_with("the best peer (Envoy)"), "{goal}");
        assert_eq!(table.get("elbows", 0), Some(Spread::of([8.0])));
    }
}
