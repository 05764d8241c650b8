//! What workers and checks tell of endpoints: connections that came to nothing, answers, checks.
//!
//! Where nothing is wrong a worker looks at one number and takes no lock. What a sign means is decided in `health.rs`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::members::Change;
use super::{AddressState, Addresses, EndpointState, Listed};
use crate::config::{Config, UpstreamName};
use crate::metrics::Counter;
use crate::upstream::candidates::Endpoint;
use crate::upstream::health::{HealthRules, InARow};
use crate::words::words;

/// So many changes are told in the log in a while, and how long that is.
const MOST_TOLD: u32 = 20;
const WHILE: Duration = Duration::from_secs(10);

words! {
    /// What a check came to.
    pub(crate) enum Checked {
        /// The answer was as it has to be.
        Passed = "passed",
        /// There was no connection.
        Refused = "refused",
        /// It took longer than `UPSTREAM_CHECK_TIMEOUT`.
        Timeout = "timeout",
        /// There was another answer, or half of one.
        Wrong = "wrong",
    }
}

/// Numbers of endpoints, for a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EndpointCounts {
    /// How many are in each state now.
    pub(crate) now: [u64; EndpointState::COUNT],
    /// How often one came to each state because of a sign.
    pub(crate) changes: [u64; EndpointState::COUNT],
    /// What checks came to.
    pub(crate) checks: [u64; Checked::COUNT],
}

impl EndpointCounts {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            now: sums(self.now, other.now),
            changes: sums(self.changes, other.changes),
            checks: sums(self.checks, other.checks),
        }
    }
}

fn sums<const N: usize>(mut some: [u64; N], others: [u64; N]) -> [u64; N] {
    for (one, other) in some.iter_mut().zip(others) {
        *one += other;
    }
    some
}

/// An endpoint that is to be checked.
#[derive(Clone, Debug)]
pub(crate) struct Checkable {
    pub(crate) address: SocketAddr,
    /// What `Host` is to say.
    pub(crate) host: String,
    /// It is to be checked soon.
    pub(crate) is_changing: bool,
}

#[derive(Debug, Default)]
pub(super) struct Signs {
    /// `UPSTREAM_EJECT`.
    eject: Option<u32>,
    has_checks: bool,
    changes: [Counter; EndpointState::COUNT],
    checks: [Counter; Checked::COUNT],
    /// An endpoint is to be checked sooner than it was.
    hurry: Notify,
}

/// How much was told lately.
#[derive(Debug, Default)]
pub(super) struct LogBudget {
    since: Option<Instant>,
    number: u32,
    untold: u32,
}

impl Signs {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            eject: config.upstream_eject,
            has_checks: config.upstream_check.is_some(),
            ..Self::default()
        }
    }
}

impl Addresses {
    /// `address` did not take a connection. It is tried last for some time, or until checks pass.
    pub(crate) fn failed(&self, address: SocketAddr, now: Instant) {
        if self.0.literal.is_some() {
            return;
        }
        let has_changed = self.sign(now, |state| state.members.failed(address, now));
        if has_changed && self.0.signs.has_checks {
            self.0.signs.hurry.notify_one();
        }
    }

    /// `address` took a connection: where it had failed it is as good as the others again.
    pub(crate) fn reached(&self, address: SocketAddr, now: Instant) {
        if self.0.has_failures.load(Ordering::Relaxed) {
            self.sign(now, |state| state.members.reached(address, now));
        }
    }

    /// A handshake or request that was sent there got no answer, or one that says that it failed.
    pub(crate) fn answered_badly(&self, endpoint: &Endpoint, now: Instant) {
        let Some(many) = self.0.signs.eject else { return };
        if self.0.literal.is_some() {
            return;
        }
        if let Some(in_a_row) = endpoint.load.failed(many) {
            let address = endpoint.member.found.address;
            self.sign(now, |state| state.members.fell(address, in_a_row, now));
        }
    }

    /// One was answered well. Nothing but a look where all is well.
    pub(crate) fn answered_well(&self, endpoint: &Endpoint, now: Instant) {
        if self.0.signs.eject.is_some() && endpoint.load.worked() {
            let address = endpoint.member.found.address;
            self.sign(now, |state| state.members.worked(address, now));
            // Also where nobody knows of it any more.
            endpoint.load.set_ejected(false);
        }
    }

    /// A check of `address` came to this; `fault` says what was wrong. Whether the next one is to come soon.
    pub(crate) fn checked(
        &self,
        address: SocketAddr,
        result: Checked,
        fault: Option<String>,
        now: Instant,
    ) -> bool {
        if let Some(counter) = self.0.signs.checks.get(result.index()) {
            counter.add(1);
        }
        let outcome = match result {
            Checked::Passed => Ok(()),
            _ => Err(format!("its checks fail: {}", fault.unwrap_or_default())),
        };
        self.sign(now, |state| state.members.checked(address, outcome, now));
        self.0.state().members.is_changing(address)
    }

    /// Takes note of a sign that `tell` tells, and says in the log what has changed. Whether that is more than nothing.
    fn sign(&self, now: Instant, tell: impl FnOnce(&mut AddressState) -> bool) -> bool {
        let mut state = self.0.state();
        let has_changed = tell(&mut state);
        if has_changed {
            self.0.renew(&mut state, now);
        }
        let changes = state.members.take_changes();
        for Change { address, to, .. } in &changes {
            self.0.loads.of(*address).set_ejected(*to == EndpointState::Ejected);
            if let Some(counter) = self.0.signs.changes.get(to.index()) {
                counter.add(1);
            }
        }
        let lines: Vec<_> = changes.iter().filter_map(|one| state.told.line(one, now)).collect();
        drop(state);
        for line in lines {
            tracing::info!("{line}");
        }
        has_changed
    }

    /// The endpoints that are to be checked. Asks for names where answers are too old.
    pub(crate) fn to_check(&self, now: Instant) -> Vec<Checkable> {
        let mut state = self.0.state();
        // Whether anybody could be sent anywhere now is another question.
        drop(self.0.known(&mut state, now));
        let names = state.members.names();
        let of = |(address, name): (SocketAddr, usize)| Checkable {
            address,
            host: host(self.0.names.get(name), address),
            is_changing: state.members.is_changing(address),
        };
        names.into_iter().map(of).collect()
    }

    /// Waits until an endpoint is to be checked sooner than it was.
    pub(crate) async fn hurry(&self) {
        self.0.signs.hurry.notified().await;
    }

    /// How often endpoints changed because of a sign, and what checks came to.
    pub(crate) fn counts(&self) -> EndpointCounts {
        EndpointCounts {
            changes: self.0.signs.changes.each_ref().map(Counter::here),
            checks: self.0.signs.checks.each_ref().map(Counter::here),
            ..EndpointCounts::default()
        }
    }

    /// The endpoints that get new tunnels, as far as that is known. Nobody is asked.
    pub(crate) fn present(&self, now: Instant) -> Vec<Listed> {
        let mut state = self.0.state();
        self.0.pass_time(&mut state, now);
        let endpoints = Arc::clone(&state.endpoints);
        drop(state);
        endpoints.all().iter().map(Listed::of).collect()
    }

    /// Those that are not among these, and have tunnels.
    pub(crate) fn gone(&self, known: &HashSet<SocketAddr>) -> Vec<Listed> {
        let mut gone = self.0.loads.with_tunnels();
        gone.retain(|(address, _)| !known.contains(address));
        gone.sort_unstable_by_key(|(address, _)| *address);
        let listed = gone.into_iter().map(|(address, load)| Listed {
            address,
            state: EndpointState::Gone,
            tunnels: load.tunnels(),
            leaving: load.leaving(),
            share: None,
        });
        listed.collect()
    }
}

impl LogBudget {
    /// The line about a change, unless there were too many lately.
    fn line(&mut self, change: &Change, now: Instant) -> Option<String> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WHILE) {
            (self.since, self.number) = (Some(now), 0);
        }
        if self.number >= MOST_TOLD {
            self.untold += 1;
            return None;
        }
        self.number += 1;
        let Change { address, to, why } = change;
        let untold = match std::mem::take(&mut self.untold) {
            0 => String::new(),
            number => format!(" ({number} other changes were not told)"),
        };
        Some(format!("endpoint {address} is {}: {why}{untold}", to.as_str()))
    }
}

/// When an endpoint is believed to be well.
pub(super) fn rules(config: &Config) -> HealthRules {
    let in_a_row = InARow { rise: config.upstream_check_rise, fall: config.upstream_check_fall };
    HealthRules {
        checks: config.upstream_check.as_ref().map(|_| in_a_row),
        slow_start: config.slow_start,
    }
}

/// What `Host` says to an endpoint of this name: of a service its domain, since no host has a name that begins with `_`.
fn host(name: Option<&UpstreamName>, address: SocketAddr) -> String {
    let name = match name {
        None | Some(UpstreamName::Address(_)) => return address.to_string(),
        Some(UpstreamName::Host(host)) => host.as_str(),
        Some(UpstreamName::Service(service)) => {
            let mut rest = service.as_str();
            while let Some((_, behind)) = rest.split_once('.').filter(|_| rest.starts_with('_')) {
                rest = behind;
            }
            rest
        }
    };
    format!("{}:{}", name.trim_end_matches('.'), address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn host_is_the_name_or_the_domain_of_a_service() {
        let address = SocketAddr::from(([10, 0, 0, 5], 80));
        let host = |text: &str| host(UpstreamName::read(text).as_ref(), address);
        assert_eq!(host("app.internal."), "app.internal:80");
        assert_eq!(host("srv+_ws._tcp.app.internal"), "app.internal:80");
        assert_eq!(host("10.0.0.5"), "10.0.0.5:80");
        assert_eq!(super::host(None, "[fd00::5]:80".parse().unwrap()), "[fd00::5]:80");
    }

    #[test]
    fn changes_that_come_too_often_are_counted_and_not_told() {
        let now = Instant::now();
        let mut told = LogBudget::default();
        let address = SocketAddr::from(([10, 0, 0, 5], 80));
        let change = Change { address, to: EndpointState::Down, why: String::from("no") };
        let lines = (0..100).filter_map(|_| told.line(&change, now)).count();
        assert_eq!(lines, MOST_TOLD as usize);
        let line = told.line(&change, now + WHILE);
        assert_eq!(
            line.as_deref(),
            Some("endpoint 10.0.0.5:80 is down: no (80 other changes were not told)")
        );
    }
}
