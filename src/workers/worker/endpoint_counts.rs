//! What a worker tells of its tunnels to whoever counts those of each endpoint.

use std::collections::BTreeSet;

use crate::tunnel::State;
use crate::upstream::Loads;

/// The tunnels of each endpoint, of which these come and go here.
#[derive(Debug)]
pub(super) struct EndpointCounts {
    /// On all workers.
    loads: Loads,
    /// The places of those here that are closed because of their endpoint: how they end may still change.
    leaving: BTreeSet<usize>,
}

impl EndpointCounts {
    pub(super) const fn new(loads: Loads) -> Self {
        Self { loads, leaving: BTreeSet::new() }
    }

    /// A tunnel came to this place. One of another process may be about to leave its endpoint.
    pub(super) fn came(&mut self, key: usize, state: &State) {
        let is_leaving = state.is_leaving_endpoint();
        if is_leaving {
            self.leaving.insert(key);
        }
        self.loads.came(state.identity.upstream(), is_leaving);
    }

    /// It is being closed because of its endpoint.
    pub(super) fn leaves(&mut self, key: usize, state: &State) {
        if self.leaving.insert(key) {
            self.loads.leaves(state.identity.upstream());
        }
    }

    /// It left its place.
    pub(super) fn left(&mut self, key: usize, state: &State) {
        let was_leaving = self.leaving.remove(&key);
        self.loads.left(state.identity.upstream(), was_leaving);
    }
}
