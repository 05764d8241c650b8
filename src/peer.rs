//! The two sides of a tunnel, and pairs of what both of them have.

use std::ops::{Index, IndexMut};

use crate::end::Side;

/// A side of a tunnel. Who ended it may also be elbows: that is a [`Side`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The side that asked, behind the load balancer.
    Client,
    /// The application.
    Upstream,
}

/// One of each for both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<T> {
    /// The client's.
    pub client: T,
    /// The upstream's.
    pub upstream: T,
}

impl Peer {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Upstream];

    /// The side at the other end of the tunnel.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

impl From<Peer> for Side {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Client => Self::Client,
            Peer::Upstream => Self::Upstream,
        }
    }
}

impl<T> Pair<T> {
    /// Makes one of each.
    pub(crate) fn of(mut make: impl FnMut(Peer) -> T) -> Self {
        Self { client: make(Peer::Client), upstream: make(Peer::Upstream) }
    }

    /// The one of `peer`, then the one of the other side.
    #[inline]
    pub(crate) const fn split(&mut self, peer: Peer) -> (&mut T, &mut T) {
        let Self { client, upstream } = self;
        match peer {
            Peer::Client => (client, upstream),
            Peer::Upstream => (upstream, client),
        }
    }

    /// The same, taken apart.
    #[inline]
    pub(crate) fn into_split(self, peer: Peer) -> (T, T) {
        let Self { client, upstream } = self;
        match peer {
            Peer::Client => (client, upstream),
            Peer::Upstream => (upstream, client),
        }
    }

    /// Both, the client's first.
    #[inline]
    pub(crate) const fn both(&self) -> [&T; 2] {
        [&self.client, &self.upstream]
    }
}

impl<T> Index<Peer> for Pair<T> {
    type Output = T;

    #[inline]
    fn index(&self, peer: Peer) -> &T {
        match peer {
            Peer::Client => &self.client,
            Peer::Upstream => &self.upstream,
        }
    }
}

impl<T> IndexMut<Peer> for Pair<T> {
    #[inline]
    fn index_mut(&mut self, peer: Peer) -> &mut T {
        match peer {
            Peer::Client => &mut self.client,
            Peer::Upstream => &mut self.upstream,
        }
    }
}
