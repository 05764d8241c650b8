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
    /// Of those, the ones that elbows is closing because of their endpoint.
    leaving: AtomicU32,
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

    /// Tunnels that elbows is closing because of their endpoint.
    pub(crate) fn leaving(&self) -> u32 {
        self.leaving.load(Ordering::Relaxed)
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

    /// A tunnel to this address came, which may be leaving already because of its endpoint.
    pub(crate) fn came(&self, address: SocketAddr, is_leaving: bool) {
        let mut all = self.by_address();
        let load = all.entry(plain(address)).or_default();
        load.tunnels.fetch_add(1, Ordering::Relaxed);
        load.leaving.fetch_add(is_leaving.into(), Ordering::Relaxed);
    }

    /// A tunnel to this address begins to leave because of its endpoint.
    pub(crate) fn leaves(&self, address: SocketAddr) {
        if let Some(load) = self.by_address().get(&plain(address)) {
            load.leaving.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It left; it was leaving because of its endpoint, or was not. An address that no answer has any more is forgotten
    /// with its last tunnel.
    pub(crate) fn left(&self, address: SocketAddr, was_leaving: bool) {
        let mut all = self.by_address();
        let address = plain(address);
        let Some(load) = all.get(&address) else { return };
        load.leaving.fetch_sub(was_leaving.into(), Ordering::Relaxed);
        if load.tunnels.fetch_sub(1, Ordering::Relaxed) == 1 && Arc::strong_count(load) == 1 {
            all.remove(&address);
        }
    }

    /// Forgets addresses that have no tunnel and that nobody else holds.
    pub(crate) fn forget_unused(&self) {
        self.by_address().retain(|_, load| load.tunnels() > 0 || Arc::strong_count(load) > 1);
    }

    /// Each address that has tunnels.
    pub(crate) fn with_tunnels(&self) -> Vec<(SocketAddr, Arc<Load>)> {
        let all = self.by_address();
        let busy = all.iter().filter(|(_, load)| load.tunnels() > 0);
        busy.map(|(address, load)| (*address, Arc::clone(load))).collect()
    }
}

/// Without the flow label and scope, which a tunnel's identity does not keep.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tunnels of each address, and those that leave.
    fn counts(loads: &Loads) -> Vec<(SocketAddr, u32, u32)> {
        let all = loads.with_tunnels().into_iter();
        let mut all: Vec<_> =
            all.map(|(address, load)| (address, load.tunnels(), load.leaving())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn address_is_forgotten_with_its_last_tunnel_unless_an_answer_has_it() {
        let loads = Loads::default();
        let [gone, known] = [1, 2].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let held = loads.of(known);
        for address in [gone, known, known] {
            loads.came(address, false);
        }
        assert_eq!((held.tunnels(), held.all()), (2, 2));
        let claim = Claim::new(&held);
        assert_eq!(held.all(), 3, "who is on the way counts");
        drop(claim);
        assert_eq!(counts(&loads), [(gone, 1, 0), (known, 2, 0)]);
        for address in [gone, known, known] {
            loads.left(address, false);
        }
        assert!(loads.with_tunnels().is_empty());
        assert_eq!(loads.by_address().len(), 1, "the one that an answer has");
        drop(held);
        loads.forget_unused();
        assert!(loads.by_address().is_empty());
    }

    #[test]
    fn tunnel_that_leaves_is_there_until_it_has_left() {
        let loads = Loads::default();
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        loads.leaves(address);
        assert!(counts(&loads).is_empty(), "there is none");
        loads.came(address, false);
        loads.came(address, true);
        loads.leaves(address);
        assert_eq!(counts(&loads), [(address, 2, 2)]);
        loads.left(address, true);
        loads.came(address, false);
        assert_eq!(counts(&loads), [(address, 2, 1)]);
    }
}
