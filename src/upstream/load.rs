//! How many tunnels each endpoint has, counted over all workers by its address.
//!
//! The count of an address is there as long as an answer has it, or a tunnel: so it outlives answers, and a tunnel that
//! comes from another process counts at the address that it was opened to. Counting takes a lock where a tunnel comes and
//! where it goes; whoever chooses reads two numbers of an endpoint that it has already.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one endpoint has to do.
#[derive(Debug, Default)]
pub(crate) struct Load {
    tunnels: AtomicU32,
    /// Handshakes and requests on their way to it.
    claims: AtomicU32,
    /// Handshakes and requests that failed there, since one did not.
    failures: AtomicU32,
    /// It was ejected for them.
    is_ejected: AtomicBool,
}

impl Load {
    /// Tunnels that are open.
    pub(crate) fn tunnels(&self) -> u32 {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// What counts for a choice: whoever was sent there lately has no tunnel yet.
    pub(crate) fn all(&self) -> u64 {
        u64::from(self.tunnels()) + u64::from(self.claims.load(Ordering::Relaxed))
    }

    /// Counts a handshake or request that failed. Says how many did so in a row, where it is time to look: each time when
    /// there are `many` more, and with each of one that is ejected.
    pub(crate) fn failed(&self, many: u32) -> Option<u32> {
        let in_a_row = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let is_due = in_a_row.is_multiple_of(many) || self.is_ejected.load(Ordering::Relaxed);
        is_due.then_some(in_a_row)
    }

    /// One did not fail. Whether that is news: it was ejected. Nothing but a look where all is well.
    pub(crate) fn worked(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        self.is_ejected.load(Ordering::Relaxed)
    }

    /// Whether it is ejected from now on.
    pub(crate) fn set_ejected(&self, is_ejected: bool) {
        self.is_ejected.store(is_ejected, Ordering::Relaxed);
    }
}

/// A request or handshake that an endpoint was chosen for; it counts there until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim(Arc<Load>);

impl Claim {
    pub(crate) fn new(load: &Arc<Load>) -> Self {
        load.claims.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claims.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The loads of all endpoints. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Loads(Arc<Mutex<HashMap<SocketAddr, Arc<Load>>>>);

impl Loads {
    /// What is under this lock is whole after a panic too.
    fn by_address(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Load>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load of an endpoint.
    pub(crate) fn of(&self, address: SocketAddr) -> Arc<Load> {
        Arc::clone(self.by_address().entry(plain(address)).or_default())
    }

    /// A tunnel to this address came.
    pub(crate) fn came(&self, address: SocketAddr) {
        let mut all = self.by_address();
        all.entry(plain(address)).or_default().tunnels.fetch_add(1, Ordering::Relaxed);
    }

    /// It left. An address that no answer has any more is forgotten with its last tunnel.
    pub(crate) fn left(&self, address: SocketAddr) {
        let mut all = self.by_address();
        let address = plain(address);
        let Some(load) = all.get(&address) else { return };
        if load.tunnels.fetch_sub(1, Ordering::Relaxed) == 1 && Arc::strong_count(load) == 1 {
            all.remove(&address);
        }
    }

    /// Forgets addresses that have no tunnel and that nobody else holds.
    pub(crate) fn forget_unused(&self) {
        self.by_address().retain(|_, load| load.tunnels() > 0 || Arc::strong_count(load) > 1);
    }

    /// The tunnels of each address that has some.
    pub(crate) fn with_tunnels(&self) -> Vec<(SocketAddr, u32)> {
        let all = self.by_address();
        let tunnels = all.iter().map(|(address, load)| (*address, load.tunnels()));
        tunnels.filter(|(_, tunnels)| *tunnels > 0).collect()
    }
}

/// Without the flow label and scope, which a tunnel's identity does not keep.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_forgotten_with_its_last_tunnel_unless_an_answer_has_it() {
        let loads = Loads::default();
        let [gone, known] = [1, 2].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let held = loads.of(known);
        for address in [gone, known, known] {
            loads.came(address);
        }
        assert_eq!((held.tunnels(), held.all()), (2, 2));
        let claim = Claim::new(&held);
        assert_eq!(held.all(), 3, "who is on the way counts");
        drop(claim);
        let mut tunnels = loads.with_tunnels();
        tunnels.sort_unstable();
        assert_eq!(tunnels, [(gone, 1), (known, 2)]);
        for address in [gone, known, known] {
            loads.left(address);
        }
        assert!(loads.with_tunnels().is_empty());
        assert_eq!(loads.by_address().len(), 1, "the one that an answer has");
        drop(held);
        loads.forget_unused();
        assert!(loads.by_address().is_empty());
    }
}
