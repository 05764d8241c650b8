//! Checks of endpoints (`UPSTREAM_CHECK`): one task has all of them checked, each in its time, and tells what came of it.
//!
//! A name that resolves to thousands does not make thousands of sockets: so many are checked at once, and the others wait
//! for their turn.

mod probe;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinSet};
use tokio::time::sleep_until;

use self::probe::{Fault, Probe};
use super::server::Server;
use crate::routes::UpstreamGroup;
use crate::upstream::{Addresses, CheckTimes, Checked};

/// So many checks are under way at once.
const MOST_AT_ONCE: usize = 64;

/// How often it is looked at which endpoints there are.
const LOOK: Duration = Duration::from_secs(1);

/// Checks the endpoints of an upstream, where its settings say so, for as long as this process serves.
pub(super) async fn run(server: Arc<Server>, upstream: Arc<UpstreamGroup>) {
    let config = &upstream.config;
    let Some(check) = &config.upstream_check else { return };
    let probe = Arc::new(Probe::new(check));
    let limit = config.upstream_check_timeout;
    let addresses = &upstream.addresses;
    let mut times = CheckTimes::new(config.upstream_check_interval);
    let mut under_way = JoinSet::new();
    let mut whose: HashMap<Id, SocketAddr> = HashMap::new();
    let mut hosts: HashMap<SocketAddr, String> = HashMap::new();
    let mut look_at = Instant::now();
    let mut handed_on = server.handed_on.subscribe();
    loop {
        // Another process serves, and checks by itself. It may give back.
        if handed_on.wait_for(|handed_on| !handed_on).await.is_err() {
            return;
        }
        let now = Instant::now();
        if look_at <= now {
            look_at = now + LOOK;
            let all = addresses.to_check(now);
            times.are_there(all.iter().map(|one| (one.address, one.is_changing)), now);
            hosts = all.into_iter().map(|one| (one.address, one.host)).collect();
        }
        while under_way.len() < MOST_AT_ONCE
            && let Some(address) = times.take(now)
        {
            let host = hosts.get(&address).cloned().unwrap_or_default();
            let probe = Arc::clone(&probe);
            let task = async move { probe.run(address, &host, limit).await };
            whose.insert(under_way.spawn(task).id(), address);
        }
        let has_room = under_way.len() < MOST_AT_ONCE;
        let next = times.next().filter(|_| has_room).map_or(look_at, |next| next.min(look_at));
        tokio::select! {
            Some(ended) = under_way.join_next_with_id() => {
                let (id, outcome) = match ended {
                    Ok((id, outcome)) => (id, Some(outcome)),
                    // A mistake of ours, which the log has told.
                    Err(error) => (error.id(), None),
                };
                if let Some(address) = whose.remove(&id) {
                    let is_changing = tell(addresses, address, outcome);
                    let random = RandomState::new().hash_one(0);
                    times.ended(address, is_changing, Instant::now(), random);
                }
            }
            () = sleep_until(next.into()) => {}
            () = addresses.hurry() => look_at = Instant::now(),
        }
    }
}

/// Tells what came of a check. Whether the next one is to come soon.
fn tell(addresses: &Addresses, address: SocketAddr, outcome: Option<Result<(), Fault>>) -> bool {
    let (result, fault) = match outcome {
        Some(Ok(())) => (Checked::Passed, None),
        // What this machine has too little of says nothing of the endpoint.
        Some(Err(Fault::NoRoom(error))) => {
            tracing::debug!(%address, %error, "an endpoint cannot be checked");
            return false;
        }
        None => return false,
        Some(Err(fault)) => {
            let result = match fault {
                Fault::Timeout(_) => Checked::Timeout,
                Fault::Wrong(_) => Checked::Wrong,
                Fault::Refused(_) | Fault::NoRoom(_) => Checked::Refused,
            };
            tracing::debug!(%address, "a check failed: {fault}");
            (result, Some(fault.to_string()))
        }
    };
    addresses.checked(address, result, fault, Instant::now())
}
