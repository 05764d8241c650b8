//! The routes in a form in which one of a thousand is found at once. Pure.
//!
//! ```text
//! host ──▶ this one, else *.of the longest domain … else any ─┐
//!          ┌──────────────────────────────────────────────────┘
//!          └▶ path ──▶ this one, else the longest prefix … else any ─┐
//!                      ┌─────────────────────────────────────────────┘
//!                      └▶ header conditions, most first ──▶ upgrade ──▶ the file's order ──▶ route
//! ```
//!
//! The first route in this order that takes the request has it: where nothing of a more specific host or path does, the
//! less specific ones are asked.

use std::collections::BTreeMap;

use super::clear_path::{self, Unclear};
use super::input::RouteInput;
use super::texts::Texts;
use crate::config::routing::{Conditions, HostPattern, PathPattern};
use crate::http::head::Field;

/// The longest name that a host can have (RFC 1035, section 2.3.4). A longer one is none that a route names.
const LONGEST_HOST: usize = 255;

/// The routes, by what they ask of a request.
#[derive(Debug, Default)]
pub(crate) struct Table {
    hosts: Texts<OfHost>,
    /// Those of wildcards: `example.com` of `*.example.com`.
    domains: Texts<OfHost>,
    any_host: OfHost,
    has_paths: bool,
}

/// The routes of a host, or of all below a domain.
#[derive(Debug, Default)]
struct OfHost {
    paths: Texts<OfPath>,
    any_path: Vec<Candidate>,
}

/// The routes of a path, and those of all behind it.
#[derive(Debug, Default)]
struct OfPath {
    exact: Vec<Candidate>,
    prefix: Vec<Candidate>,
}

/// A route, and what else it asks of a request.
#[derive(Clone, Debug)]
struct Candidate {
    headers: Box<[Header]>,
    upgrade: Option<bool>,
    /// Its place in the file.
    route: usize,
}

/// A field that is asked for: its name and its value.
type Header = (Box<[u8]>, Box<[u8]>);

/// By path; of each the candidates of the path itself, and of what is behind it.
#[derive(Default)]
struct Gathered {
    paths: BTreeMap<Vec<u8>, OfPath>,
    any_path: Vec<Candidate>,
}

impl Table {
    /// Of routes with these conditions, in the order of the file.
    pub(crate) fn new<'a>(routes: impl IntoIterator<Item = &'a Conditions>) -> Self {
        let mut hosts = BTreeMap::<Vec<u8>, Gathered>::new();
        let mut domains = BTreeMap::<Vec<u8>, Gathered>::new();
        let mut any_host = Gathered::default();
        let mut has_paths = false;
        for (route, conditions) in routes.into_iter().enumerate() {
            has_paths |= conditions.path != PathPattern::Any;
            if conditions.hosts.is_empty() {
                any_host.add(route, conditions);
            }
            for host in &conditions.hosts {
                let (of, name) = match host {
                    HostPattern::Exact(host) => (&mut hosts, host),
                    HostPattern::Below(domain) => (&mut domains, domain),
                };
                of.entry(name.clone().into()).or_default().add(route, conditions);
            }
        }
        let sorted = |all: BTreeMap<Vec<u8>, Gathered>| {
            Texts::new(all.into_iter().map(|(host, gathered)| (host, gathered.sorted())))
        };
        let (hosts, domains) = (sorted(hosts), sorted(domains));
        Self { hosts, domains, any_host: any_host.sorted(), has_paths }
    }

    /// The place of the route that a request takes, if one does.
    ///
    /// # Errors
    /// Another route would be taken by whoever reads the path in another way, or nobody can read it.
    pub(crate) fn find(&self, input: &RouteInput<'_>) -> Result<Option<usize>, Unclear> {
        let found = self.first(input);
        if self.has_paths && clear_path::is_doubtful(input.path) {
            let path = clear_path::read(input.path)?;
            if self.first(&RouteInput { path: &path, ..*input }) != found {
                return Err(Unclear);
            }
        }
        Ok(found)
    }

    fn first(&self, input: &RouteInput<'_>) -> Option<usize> {
        let mut room = [0; LONGEST_HOST];
        let host = room.get_mut(..input.host.len()).unwrap_or_default();
        // Of a longer one nothing is copied.
        host.copy_from_slice(input.host.get(..host.len()).unwrap_or_default());
        host.make_ascii_lowercase();
        let host = &*host;
        if let Some(route) = self.hosts.get(host).and_then(|of_host| of_host.first(input)) {
            return Some(route);
        }
        for length in self.domains.lengths() {
            // Something stands before the dot.
            let Some(dot) = host.len().checked_sub(length + 1).filter(|dot| *dot > 0) else {
                continue;
            };
            if let Some([b'.', domain @ ..]) = host.get(dot..)
                && let Some(of_host) = self.domains.get(domain)
                && let Some(route) = of_host.first(input)
            {
                return Some(route);
            }
        }
        self.any_host.first(input)
    }
}

impl OfHost {
    fn first(&self, input: &RouteInput<'_>) -> Option<usize> {
        for length in self.paths.lengths() {
            let Some((path, rest)) = input.path.split_at_checked(length) else { continue };
            // A prefix ends where a segment does; `/` has the slash itself.
            if !matches!(rest, [] | [b'/', ..]) && length > 1 {
                continue;
            }
            let Some(of_path) = self.paths.get(path) else { continue };
            let exact = if rest.is_empty() { first(&of_path.exact, input) } else { None };
            let found = exact.or_else(|| first(&of_path.prefix, input));
            if found.is_some() {
                return found;
            }
        }
        first(&self.any_path, input)
    }
}

fn first(candidates: &[Candidate], input: &RouteInput<'_>) -> Option<usize> {
    candidates.iter().find(|candidate| candidate.takes(input)).map(|candidate| candidate.route)
}

impl Candidate {
    fn takes(&self, input: &RouteInput<'_>) -> bool {
        self.upgrade.is_none_or(|upgrade| upgrade == input.is_upgrade)
            && self.headers.iter().all(|(name, value)| has(input.fields, name, value))
    }
}

/// Whether there is one such field, with this value. With two of them nobody knows which the application would take.
pub(super) fn has(fields: &[Field<'_>], name: &[u8], value: &[u8]) -> bool {
    let mut all = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    matches!((all.next(), all.next()), (Some(field), None) if field.value == value)
}

impl Gathered {
    fn add(&mut self, route: usize, conditions: &Conditions) {
        let bytes = |text: &String| Box::from(text.as_bytes());
        let headers = conditions.headers.iter().map(|(name, value)| (bytes(name), bytes(value)));
        let candidate =
            Candidate { headers: headers.collect(), upgrade: conditions.upgrade, route };
        let candidates = match &conditions.path {
            PathPattern::Any => &mut self.any_path,
            PathPattern::Exact(path) => {
                &mut self.paths.entry(path.clone().into()).or_default().exact
            }
            PathPattern::Prefix(path) => {
                &mut self.paths.entry(path.clone().into()).or_default().prefix
            }
        };
        candidates.push(candidate);
    }

    fn sorted(self) -> OfHost {
        let sorted = |mut candidates: Vec<Candidate>| {
            candidates.sort_by_key(Candidate::rank);
            candidates
        };
        let paths = self.paths.into_iter().map(|(path, OfPath { exact, prefix })| {
            (path, OfPath { exact: sorted(exact), prefix: sorted(prefix) })
        });
        OfHost { paths: Texts::new(paths), any_path: sorted(self.any_path) }
    }
}

impl Candidate {
    /// What asks for more comes first. Those of the same rank stay in the order of the file.
    fn rank(&self) -> (std::cmp::Reverse<usize>, bool) {
        (std::cmp::Reverse(self.headers.len()), self.upgrade.is_none())
    }
}

#[cfg(test)]
mod tests;
