//! The upstream: its name, its addresses, and why there is no connection to it.
//!
//! Control asks the resolver, and workers are told where to go (`Addresses`); connections are the workers' own.

mod addresses;
mod balance;
mod candidates;
mod check_times;
pub(crate) mod departures;
mod health;
mod load;
pub(crate) mod rebalance;
mod resolver;
pub(crate) mod sticky;
mod vacancies;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::addresses::{
    Addresses, Checked, EndpointCounts, EndpointState, Listed, Resolution,
};
pub(crate) use self::candidates::{Candidates, Endpoint};
pub(crate) use self::check_times::CheckTimes;
pub(crate) use self::load::Claim;
pub use self::load::Loads;
pub(crate) use self::sticky::Affinity;
use crate::config::Destination;
use crate::end::Reason;
use crate::metrics::labels::ConnectFailure;

/// Why there is no connection to the upstream.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The name has no address now.
    #[error("{host} does not resolve: {source}")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's words.
        source: Arc<io::Error>,
    },
    /// No address took the connection; the last one's error.
    #[error("no connection to {address}: {source}")]
    Unreachable {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// No address answered in time.
    #[error("no connection to {address} within {limit:?}")]
    Timeout {
        /// The address that was tried last.
        address: SocketAddr,
        /// `CONNECT_TIMEOUT`.
        limit: Duration,
    },
    /// The checks of all endpoints fail, and `UPSTREAM_ALL_DOWN=refuse`.
    #[error("all endpoints are down")]
    AllDown {
        /// One may be back after that.
        retry_after: Duration,
    },
    /// This machine has no descriptor or port left.
    #[error("no room for a connection to {address}: {source}")]
    NoRoom {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The same, before the name had an address.
    #[error("no room to resolve {host}: {source}")]
    NoRoomToAsk {
        /// The name.
        host: String,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
}

impl Fault {
    /// The address that was tried last, if one was.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unresolved { .. } | Self::NoRoomToAsk { .. } | Self::AllDown { .. } => None,
            Self::Unreachable { address, .. }
            | Self::Timeout { address, .. }
            | Self::NoRoom { address, .. } => Some(*address),
        }
    }

    /// The word of its metric.
    pub(crate) const fn failure(&self) -> ConnectFailure {
        match self {
            Self::Unresolved { .. } => ConnectFailure::Unresolved,
            Self::Unreachable { .. } => ConnectFailure::Unreachable,
            Self::AllDown { .. } => ConnectFailure::Down,
            Self::Timeout { .. } => ConnectFailure::Timeout,
            Self::NoRoom { .. } | Self::NoRoomToAsk { .. } => ConnectFailure::NoRoom,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Unresolved { .. } => Reason::Unresolved,
            Self::Unreachable { .. } | Self::AllDown { .. } => Reason::Unreachable,
            Self::Timeout { .. } => Reason::Timeout,
            Self::NoRoom { .. } | Self::NoRoomToAsk { .. } => Reason::NoRoom,
        }
    }
}

/// The addresses of `destination` now, as the resolver tells them, and why names have none. A question that takes longer
/// than `limit` has failed.
pub async fn resolve(destination: &Destination, limit: Duration) -> (Vec<SocketAddr>, Vec<Fault>) {
    resolver::once(destination, limit).await
}

/// What a name that does not resolve means, where there are other endpoints or none.
#[must_use]
pub const fn meanwhile(has_others: bool) -> &'static str {
    if has_others {
        "other endpoints are used until it does"
    } else {
        "requests get 502 until it does"
    }
}
