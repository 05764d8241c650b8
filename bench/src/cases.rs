//! The cases: what is measured. Each is a function that makes its measurements, in rounds in which the
//! proxies take turns, and returns what it found.

mod counts;
mod echo;
mod hostile;
mod messages;
mod micro;
mod scanning;
mod tunnels;

use std::time::{Duration, Instant};

use crate::Fallible;
use crate::load::{Outcome, Until};
use crate::proxies::Proxy;
use crate::report::{Cell, Goal, Section, Spread, Table};
use crate::stage::Theatre;

/// A case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// It is part of `--quick`.
    pub(crate) is_quick: bool,
    pub(crate) run: fn(&Bench) -> Fallible<Section>,
}

/// All cases, in the order of the report.
pub(crate) const ALL: &[Case] = &[
    Case { name: "echo64", is_quick: true, run: echo::echo64 },
    Case { name: "echo16k", is_quick: false, run: echo::echo16k },
    Case { name: "echo256k", is_quick: true, run: echo::echo256k },
    Case { name: "paced", is_quick: true, run: messages::paced },
    Case { name: "push", is_quick: true, run: messages::push },
    Case { name: "handshakes", is_quick: true, run: messages::handshakes },
    Case { name: "idle", is_quick: true, run: tunnels::idle },
    Case { name: "get", is_quick: true, run: messages::get },
    Case { name: "growth", is_quick: false, run: messages::growth },
    Case { name: "threads", is_quick: true, run: messages::threads },
    Case { name: "instructions", is_quick: true, run: counts::instructions },
    Case { name: "calls-message", is_quick: true, run: counts::calls_message },
    Case { name: "calls-handshake", is_quick: false, run: counts::calls_handshake },
    Case { name: "calls-request", is_quick: false, run: counts::calls_request },
    Case { name: "micro", is_quick: false, run: micro::run },
    Case { name: "scanning", is_quick: true, run: scanning::run },
    Case { name: "flood", is_quick: true, run: hostile::flood },
    Case { name: "refusals", is_quick: true, run: hostile::refusals },
    Case { name: "strictness", is_quick: false, run: hostile::strictness },
    Case { name: "slow-heads", is_quick: true, run: hostile::slow_heads },
    Case { name: "pings", is_quick: true, run: tunnels::pings },
    Case { name: "drain", is_quick: true, run: tunnels::drain },
    Case { name: "million", is_quick: true, run: tunnels::million },
];

/// What cases measure with.
pub(crate) struct Bench {
    pub(crate) theatre: Theatre,
    /// Small numbers: whether the parts work is the question, not how well.
    pub(crate) is_quick: bool,
}

impl Bench {
    /// How often each measurement is made.
    pub(crate) const fn rounds(&self) -> usize {
        if self.is_quick { 1 } else { 5 }
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
            Until::Time { warm_up: 500, measured: measured * 1000 }
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
        for round in 0..self.rounds() {
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
                progress(case, round + 1, self.rounds(), name, &said, took);
            }
        }
        Ok(found)
    }

    /// The same with all proxies.
    pub(crate) fn all_in_turn<T>(
        &self,
        case: &str,
        measure: impl FnMut(Proxy) -> Fallible<(T, String)>,
    ) -> Fallible<Vec<(String, Vec<T>)>> {
        self.alternate(case, &Proxy::ALL.map(|proxy| (proxy, proxy.as_str())), measure)
    }
}

fn progress(case: &str, round: usize, rounds: usize, name: &str, said: &str, took: Duration) {
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

/// That elbows' number in a column is at most `bound` times the better one of nginx' and HAProxy's.
fn against_the_best(table: &Table, column: usize, what: &str, bound: f64) -> Option<Goal> {
    let rivals = Proxy::RIVALS.iter().filter_map(|rival| table.get(rival.as_str(), column));
    let best = rivals.map(|spread| spread.median).reduce(f64::min)?;
    let own = table.get(Proxy::Elbows.as_str(), column)?.median;
    Some(Goal::at_most(
        format!("{what}, elbows ÷ the better of nginx and HAProxy"),
        bound,
        own / best,
        2,
    ))
}

/// The same against the copy loop.
fn against_the_limit(table: &Table, column: usize, what: &str, bound: f64) -> Option<Goal> {
    let limit = table.get(Proxy::Limit.as_str(), column)?.median;
    let own = table.get(Proxy::Elbows.as_str(), column)?.median;
    Some(Goal::at_most(format!("{what}, elbows ÷ copy loop"), bound, own / limit, 2))
}
