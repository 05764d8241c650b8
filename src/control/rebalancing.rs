//! Closes tunnels because of their endpoints, paced: where some have more than their share (`REBALANCE`), and where one is
//! gone (`ENDPOINT_GONE=drain`).
//!
//! When and how many is decided in [`rebalance`](crate::upstream::rebalance) and in
//! [`departures`](crate::upstream::departures), which the workers then choose
//! ([`quietest`](crate::workers::quietest)). Nothing is closed while the process drains, hands over or takes over.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::handoff::Before;
use super::server::Server;
use crate::config::{Config, EndpointGone};
use crate::end::Reason;
use crate::routes::UpstreamGroup;
use crate::upstream::departures::Departures;
use crate::upstream::rebalance::{Change, Holding, Rebalance};
use crate::upstream::{EndpointState, Listed};
use crate::workers::quietest::{Search, Wanted, first};

/// How often it is looked whether anything is to be done, and how often something is while there is.
const LOOK: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(250);

/// Parts of a worker's tunnels that are looked at in a step.
const PARTS: usize = 8;

/// Runs to the end of the process, where the settings of an upstream want it.
pub(super) async fn run(server: Arc<Server>) {
    let groups = server.proxy.routes.upstreams().iter();
    let mut all: Vec<_> = groups.filter_map(|group| Closing::of(group, &server)).collect();
    while !all.is_empty() {
        let is_under_way = all.iter().any(Closing::is_under_way);
        sleep(if is_under_way { STEP } else { LOOK }).await;
        for closing in &mut all {
            closing.step(Instant::now()).await;
        }
        let is_rebalancing = all.iter().any(Closing::is_rebalancing);
        server.is_rebalancing.store(is_rebalancing, Ordering::Relaxed);
    }
}

/// What is closed of one upstream.
struct Closing {
    upstream: Arc<UpstreamGroup>,
    /// Addresses that its names had.
    known: HashSet<SocketAddr>,
    rebalance: Option<Rebalance>,
    departures: Option<Departures>,
    /// Where the next search on each worker begins.
    cursors: Vec<usize>,
    server: Arc<Server>,
}

impl Closing {
    /// None where its settings close nothing.
    fn of(upstream: &Arc<UpstreamGroup>, server: &Arc<Server>) -> Option<Self> {
        let Config { rebalance, endpoint_gone, endpoint_gone_period, .. } = *upstream.config;
        let drains = endpoint_gone == EndpointGone::Drain;
        (rebalance.is_some() || drains).then(|| Self {
            upstream: Arc::clone(upstream),
            known: HashSet::new(),
            rebalance: rebalance.map(Rebalance::new),
            departures: drains.then(|| Departures::new(endpoint_gone_period)),
            cursors: vec![0; server.workers.count()],
            server: Arc::clone(server),
        })
    }

    /// Those of the endpoints that belong to this upstream. Tunnels are counted by address alone: one that no name here has
    /// now may be in use by another upstream, or may have been.
    fn own(&mut self, mut listed: Vec<Listed>, now: Instant) -> Vec<Listed> {
        let is_there = |one: &Listed| one.state != EndpointState::Gone;
        // What is not listed any more has no tunnels, and need not be known.
        let known = listed.iter().filter(|one| is_there(one) || self.known.contains(&one.address));
        self.known = known.map(|one| one.address).collect();
        let groups = self.server.proxy.routes.upstreams();
        if let [_only] = groups {
            return listed;
        }
        let others = groups.iter().filter(|group| !Arc::ptr_eq(group, &self.upstream));
        let elsewhere: HashSet<_> =
            others.flat_map(|group| group.addresses.present(now)).map(|one| one.address).collect();
        listed.retain(|one| {
            is_there(one) || self.known.contains(&one.address) && !elsewhere.contains(&one.address)
        });
        listed
    }

    fn is_rebalancing(&self) -> bool {
        self.rebalance.as_ref().is_some_and(Rebalance::is_moving)
    }

    fn is_under_way(&self) -> bool {
        self.is_rebalancing() || self.departures.as_ref().is_some_and(Departures::is_draining)
    }

    async fn step(&mut self, now: Instant) {
        let upstream = Arc::clone(&self.upstream);
        let addresses = &upstream.addresses;
        // Whoever asks for the list has names asked for, too, where their answers are too old.
        let (listed, _) = addresses.list(now);
        let listed = self.own(listed, now);
        let answered = addresses.answered_since(now);
        let is_alone = is_alone(&self.server, now);
        let mut wanted = BTreeMap::new();

        let mut is_draining = false;
        if let Some(departures) = &mut self.departures {
            let is_gone = |one: &&Listed| one.state == EndpointState::Gone && staying(one) > 0;
            let gone: Vec<_> =
                listed.iter().filter(is_gone).map(|one| (one.address, staying(one))).collect();
            let has_place = listed.iter().any(takes_tunnels);
            let step = departures.step(now, &gone, answered, is_alone && has_place);
            for (address, tunnels) in step.begun {
                let period = self.upstream.config.endpoint_gone_period;
                tracing::info!(
                    "{address} is gone: its tunnels, {tunnels}, are closed over {period:?} (ENDPOINT_GONE)"
                );
            }
            let why = Reason::EndpointGone;
            wanted.extend(step.close.into_iter().map(|(at, number)| (at, Wanted { number, why })));
            is_draining = departures.is_draining();
        }
        if let Some(rebalance) = &mut self.rebalance {
            let is_settled = !listed.iter().any(is_unsettled);
            let is_well = is_alone && !is_draining && is_settled && answered.is_some();
            let all = listed.iter().map(staying).sum();
            let step = rebalance.step(now, &holdings(&listed), all, is_well);
            if let Some(change) = step.change {
                tell(change);
            }
            addresses.set_vacancies(step.vacancies);
            let why = Reason::Rebalanced;
            wanted.extend(step.close.into_iter().map(|(at, number)| (at, Wanted { number, why })));
        }
        let closed = if wanted.is_empty() { 0 } else { self.close(wanted).await };
        if let Some(rebalance) = &mut self.rebalance {
            rebalance.closed(closed);
        }
    }

    /// Closes the quietest of so many tunnels of each endpoint. How many were closed to even them out.
    async fn close(&mut self, wanted: BTreeMap<SocketAddr, Wanted>) -> u64 {
        let wanted = Arc::new(wanted);
        let workers = &self.server.workers;
        let mut quiet = Vec::new();
        for (worker, cursor) in self.cursors.iter_mut().enumerate() {
            for _ in 0..PARTS {
                let search = Search { from: *cursor, wanted: Arc::clone(&wanted) };
                // One that does not answer is told of at `/ready`.
                let Ok(found) = workers.quietest(worker, search).await else { break };
                *cursor = found.next;
                quiet.extend(found.quiet);
                if found.is_end {
                    break;
                }
            }
        }
        first(&mut quiet, &wanted);
        let mut rebalanced = 0;
        for worker in 0..self.cursors.len() {
            for why in [Reason::EndpointGone, Reason::Rebalanced] {
                let is_its =
                    |upstream| wanted.get(upstream).is_some_and(|wanted| wanted.why == why);
                let tunnels: Vec<_> = quiet
                    .iter()
                    .filter(|one| one.id.worker == worker && is_its(&one.upstream))
                    .map(|one| (one.id, why))
                    .collect();
                let closed = workers.leave(worker, &tunnels).await.unwrap_or(0);
                if why == Reason::Rebalanced {
                    rebalanced += closed as u64;
                }
            }
        }
        rebalanced
    }
}

/// Whether the process does nothing else that ends tunnels, or moves them.
fn is_alone(server: &Server, now: Instant) -> bool {
    let (is_handed_on, before) = (*server.handed_on.borrow(), *server.before.borrow());
    !is_handed_on
        && before == Before::Gone
        && !server.door.is_busy()
        && server.drains_in(now) == Ok(None)
}

/// Tunnels that are there to stay.
fn staying(one: &Listed) -> u64 {
    one.tunnels.saturating_sub(one.leaving).into()
}

fn takes_tunnels(one: &Listed) -> bool {
    one.state != EndpointState::Gone && !one.state.is_out()
}

/// Its share is about to change: it is not well, or its share still grows (`SLOW_START`).
fn is_unsettled(one: &Listed) -> bool {
    one.state == EndpointState::Warming || one.state != EndpointState::Gone && one.state.is_out()
}

/// The endpoints that new tunnels are spread over: those of the lowest priority number, which come first.
fn holdings(listed: &[Listed]) -> Vec<Holding> {
    let priority = |one: &Listed| one.share.map(|(_, priority)| priority);
    let best = listed.first().and_then(priority);
    let all = listed.iter().take_while(|one| takes_tunnels(one) && priority(one) == best);
    let holding = |one: &Listed| Holding {
        address: one.address,
        tunnels: staying(one),
        weight: one.share.map_or(1, |(weight, _)| u64::from(weight).max(1)),
    };
    all.map(holding).collect()
}

fn tell(change: Change) {
    match change {
        Change::Begins { fullest, tunnels, share } => tracing::info!(
            "tunnels are evened out (REBALANCE): {fullest} has {tunnels}, and its share is {share}"
        ),
        Change::Ends { closed } => {
            tracing::info!("tunnels are even: {closed} were closed for it (REBALANCE)");
        }
        Change::Stops { closed } => tracing::info!(
            "tunnels are not evened out any more, after {closed} were closed (REBALANCE): an endpoint has failed, come \
             or gone, a name does not resolve, or this process drains or hands over"
        ),
        Change::GivesUp { closed, came } => tracing::warn!(
            "evening out is given up for ten minutes (REBALANCE): {closed} tunnels were closed, and {came} came to the \
             endpoints that have too few"
        ),
    }
}
