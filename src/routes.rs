//! Routes: which upstream a request goes to, and by which settings.
//!
//! ```text
//! request ──▶ Routes::pick ──▶ Route ─┬─ config: limits, times, origins, pings …
//!                                     └─ upstream: UpstreamGroup ──▶ Addresses ──▶ an endpoint
//! ```
//!
//! The variables are the default route. All of it is one value that does not change: an exchange keeps its route,
//! whatever comes after.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Config;
use crate::upstream::{Addresses, Loads};

/// The routes that there are.
#[derive(Debug)]
pub(crate) struct Routes {
    default: Arc<Route>,
}

/// What requests have in common that go the same way.
#[derive(Debug)]
pub(crate) struct Route {
    /// `None` of the default route.
    pub(crate) name: Option<Arc<str>>,
    /// Its settings. Those that are the process's are here, too, and are not read.
    pub(crate) config: Arc<Config>,
    pub(crate) upstream: Arc<UpstreamGroup>,
}

/// Endpoints that serve the same.
#[derive(Debug)]
pub(crate) struct UpstreamGroup {
    pub(crate) addresses: Addresses,
}

impl Routes {
    /// Those of the variables. Names are asked for on `runtime`, and `loads` has the tunnels of each endpoint.
    pub(crate) fn new(config: &Arc<Config>, loads: Loads, runtime: Handle) -> Self {
        let upstream =
            Arc::new(UpstreamGroup { addresses: Addresses::new(config, loads, runtime) });
        Self { default: Arc::new(Route { name: None, config: Arc::clone(config), upstream }) }
    }

    /// Those that have a name, each with its settings.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &Config)> {
        let all = [&self.default];
        all.into_iter().filter_map(|route| Some((route.name.as_deref()?, &*route.config)))
    }

    /// The default route.
    pub(crate) const fn default(&self) -> &Arc<Route> {
        &self.default
    }
}
