//! The order in which addresses are tried. Pure.
//!
//! It is the resolver's own as long as each address takes connections: name servers rotate their answers to spread
//! clients. Once one has failed, the address that took a connection last is the first, and those that failed are the
//! last. A dead one would else cost each connection its share of `CONNECT_TIMEOUT`. To learn that it is back, one
//! connection in [`AVOIDED`] begins with it.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an address that failed is tried last by everybody.
pub(super) const AVOIDED: Duration = Duration::from_secs(30);

/// So many failures are remembered: more than a resolver answers with.
const MOST: usize = 64;

/// Which addresses failed lately, and which one did not.
#[derive(Debug, Default)]
pub(super) struct Order {
    failed: Vec<Failed>,
    /// The address that took a connection last, unless it has failed since.
    good: Option<SocketAddr>,
}

#[derive(Debug)]
struct Failed {
    address: SocketAddr,
    /// When one connection shall begin with it.
    retry_at: Instant,
}

impl Order {
    /// `address` did not take a connection.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) {
        if self.good == Some(address) {
            self.good = None;
        }
        self.failed.retain(|failed| failed.address != address);
        if self.failed.len() >= MOST {
            // The oldest is the first.
            self.failed.remove(0);
        }
        self.failed.push(Failed { address, retry_at: now + AVOIDED });
    }

    /// `address` took a connection.
    pub(super) fn reached(&mut self, address: SocketAddr) {
        self.good = Some(address);
        self.failed.retain(|failed| failed.address != address);
    }

    /// `addresses`, as the resolver gave them, in the order in which to try them now.
    pub(super) fn of(&mut self, addresses: &Arc<[SocketAddr]>, now: Instant) -> Arc<[SocketAddr]> {
        self.failed.retain(|failed| now < failed.retry_at || addresses.contains(&failed.address));
        if !self.failed.iter().any(|failed| addresses.contains(&failed.address)) {
            return Arc::clone(addresses);
        }
        let due = self.failed.iter_mut().find(|failed| failed.retry_at <= now);
        let again = due.map(|failed| {
            failed.retry_at = now + AVOIDED;
            failed.address
        });
        let mut sorted = addresses.to_vec();
        let has_failed = |address| self.failed.iter().any(|failed| failed.address == address);
        // Otherwise as they are: the sort is stable.
        sorted.sort_by_key(|address| {
            let address = Some(*address);
            (
                Reverse(address == again),
                Reverse(address == self.good),
                address.is_some_and(has_failed),
            )
        });
        sorted.into()
    }
}
