//! Routes: which upstream a request goes to, and by which settings.
//!
//! ```text
//! request ──▶ Routes::pick ──▶ Route ─┬─ config: limits, times, origins, pings …
//!                                     ├─ changes: prefix, fields
//!                                     └─ upstream: UpstreamGroup ──▶ Addresses ──▶ an endpoint
//! ```
//!
//! The variables are the default route, which requests take that no other one takes. All of it is one value that does
//! not change: an exchange keeps its route, whatever comes after.

mod clear_path;
pub mod explain;
mod input;
mod table;
mod texts;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

pub(crate) use self::clear_path::Unclear;
use self::input::RouteInput;
use self::table::Table;
use crate::config::routing::{Conditions, HeadChanges, Routing};
use crate::config::{Config, TlvHeader};
use crate::http::head::Request;
use crate::upstream::{Addresses, EndpointCounts, EndpointState, Fault, Listed, Loads};

/// Looks for the route of a request so many times, and says how often one was found. For the benchmark.
#[must_use]
pub fn count_found<'a>(
    routes: impl IntoIterator<Item = &'a Conditions>,
    head: &Request<'_>,
    times: usize,
) -> usize {
    let table = Table::new(routes);
    let find = || {
        let input = std::hint::black_box(RouteInput::of(std::hint::black_box(head), true));
        matches!(std::hint::black_box(table.find(&input)), Ok(Some(_)))
    };
    std::iter::repeat_with(find).take(times).filter(|found| *found).count()
}

/// The routes that there are.
#[derive(Debug)]
pub(crate) struct Routes {
    /// None where the variables name no application.
    default: Option<Arc<Route>>,
    /// In the order of the file.
    named: Vec<Arc<Route>>,
    table: Table,
    /// The default one first, if it is there.
    upstreams: Vec<Arc<UpstreamGroup>>,
    /// What is to be known of PROXY headers, by which route so ever.
    pub(crate) tlv_headers: Vec<TlvHeader>,
    /// Not all have the same `STALL_TIMEOUT`.
    pub(crate) stall_timeouts_differ: bool,
}

/// What requests have in common that go the same way.
#[derive(Debug)]
pub(crate) struct Route {
    /// `None` of the default route.
    pub(crate) name: Option<Arc<str>>,
    /// Its settings. Those that are the process's are here, too, and are not read.
    pub(crate) config: Arc<Config>,
    pub(crate) changes: HeadChanges,
    pub(crate) upstream: Arc<UpstreamGroup>,
}

/// An endpoint, and the name of its group, unless that is the application of the variables.
pub(crate) type OfGroup = (Option<Arc<str>>, Listed);

/// Endpoints that serve the same.
#[derive(Debug)]
pub(crate) struct UpstreamGroup {
    /// `None` of the application that the variables name.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) config: Arc<Config>,
    pub(crate) addresses: Addresses,
}

impl Routes {
    /// Those of the variables and of a file. Names are asked for on `runtime`, and `loads` has the tunnels of each
    /// endpoint.
    pub(crate) fn new(
        config: &Arc<Config>,
        routing: &Routing,
        loads: &Loads,
        runtime: &Handle,
    ) -> Self {
        let group = |name: Option<&Arc<str>>, config: &Arc<Config>| {
            let addresses = Addresses::new(config, loads.clone(), runtime.clone());
            Arc::new(UpstreamGroup { name: name.cloned(), config: Arc::clone(config), addresses })
        };
        let own = (!config.destination_hostname.is_empty()).then(|| group(None, config));
        let named_groups: Vec<_> =
            routing.upstreams.iter().map(|one| group(Some(&one.name), &one.config)).collect();
        let default = own.as_ref().map(|upstream| {
            let (config, upstream) = (Arc::clone(config), Arc::clone(upstream));
            Arc::new(Route { name: None, config, changes: HeadChanges::default(), upstream })
        });
        let mut named = Vec::with_capacity(routing.routes.len());
        let mut conditions = Vec::with_capacity(routing.routes.len());
        for route in &routing.routes {
            let upstream = match route.upstream {
                Some(place) => named_groups.get(place),
                None => own.as_ref(),
            };
            // The check has seen to it that there is one.
            let Some(upstream) = upstream else { continue };
            conditions.push(&route.conditions);
            named.push(Arc::new(Route {
                name: Some(Arc::clone(&route.name)),
                config: Arc::clone(&route.config),
                changes: route.changes.clone(),
                upstream: Arc::clone(upstream),
            }));
        }
        let stall_timeouts_differ = named
            .iter()
            .any(|route: &Arc<Route>| route.config.stall_timeout != config.stall_timeout);
        let mut tlv_headers = config.proxy_tlv_headers.clone();
        for tlv in named.iter().flat_map(|route| &route.config.proxy_tlv_headers) {
            if !tlv_headers.contains(tlv) {
                tlv_headers.push(*tlv);
            }
        }
        let upstreams = own.into_iter().chain(named_groups).collect();
        let table = Table::new(conditions);
        Self { default, named, table, upstreams, tlv_headers, stall_timeouts_differ }
    }

    /// The route that a request takes; none where there is none for it.
    ///
    /// # Errors
    /// It depends on how its path is read.
    pub(crate) fn pick(
        &self,
        head: &Request<'_>,
        is_upgrade: bool,
    ) -> Result<Option<&Arc<Route>>, Unclear> {
        if self.named.is_empty() {
            return Ok(self.default.as_ref());
        }
        let found = self.table.find(&RouteInput::of(head, is_upgrade))?;
        Ok(found.and_then(|place| self.named.get(place)).or(self.default.as_ref()))
    }

    /// Those that have a name, each with its settings.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &Config)> {
        self.named.iter().filter_map(|route| Some((route.name.as_deref()?, &*route.config)))
    }

    /// The groups: the default one first, if it is there.
    pub(crate) fn upstreams(&self) -> &[Arc<UpstreamGroup>] {
        &self.upstreams
    }

    /// All endpoints, each with the name of its group, and why a group has none. What only has tunnels belongs to no
    /// group any more, and stands at the end.
    pub(crate) fn endpoints(&self, now: Instant) -> (Vec<OfGroup>, Option<Fault>) {
        let mut all = Vec::new();
        let mut gone = Vec::new();
        let mut first_fault = None;
        for group in &self.upstreams {
            let (listed, fault) = group.addresses.list(now);
            first_fault = first_fault.or(fault);
            for one in listed {
                let list = if one.state == EndpointState::Gone { &mut gone } else { &mut all };
                list.push((group.name.clone(), one));
            }
        }
        let mut known: HashSet<_> = all.iter().map(|(_, one): &(_, Listed)| one.address).collect();
        all.extend(
            gone.into_iter()
                .filter(|(_, one)| known.insert(one.address))
                .map(|(_, one)| (None, one)),
        );
        (all, first_fault)
    }

    /// Numbers of endpoints, of all groups together. Nobody is asked for their names.
    pub(crate) fn endpoint_counts(&self, now: Instant) -> EndpointCounts {
        let groups = || self.upstreams.iter().map(|group| &group.addresses);
        let counts = groups().map(Addresses::counts).reduce(EndpointCounts::plus);
        let mut counts = counts.unwrap_or_default();
        let mut all: Vec<_> = groups().flat_map(|addresses| addresses.present(now)).collect();
        let known = all.iter().map(|one| one.address).collect();
        all.extend(groups().take(1).flat_map(|addresses| addresses.gone(&known)));
        for one in all {
            if let Some(number) = counts.now.get_mut(one.state.index()) {
                *number += 1;
            }
        }
        counts
    }
}
