//! `CONFIG_FILE`: reads upstream groups and routes, and says all that is wrong with them, each where it stands.
//!
//! ```text
//! text ──toml──▶ tables ──▶ upstreams: settings over those of the variables
//!                     └───▶ routes: conditions, changes, and settings over those of their group
//! ```
//!
//! A key is the variable in lower case, read by the same kind, so that bounds and rules are the same.

mod conditions;
mod names;
mod overlay;
mod schema;
mod snippet;
mod values;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::names::{is_name, meant};
use self::overlay::Overlay;
pub use self::schema::schema;
pub use self::snippet::rendered;
use self::values::{Entry, entries, kind_of};
use super::routing::{Conditions, HeadChanges, RouteConfig, Routing, UpstreamConfig};
use super::settings::{self, Scope};
use super::{Config, Settings};

/// More are a mistake: nobody writes so many by hand, and each has rules on each worker.
const MOST_ROUTES: usize = 10_000;

/// The rule of names: they are in the log, in lists, and in records.
const NAME_RULE: &str = "a name has 1 to 64 letters, digits, '-', '_' and '.'";

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The value and the rule.
    pub title: String,
    /// The bytes of it.
    pub at: Range<usize>,
    /// What else it has to do with, and what that is.
    pub also: Option<(Range<usize>, String)>,
}

impl FileFault {
    fn new(at: Range<usize>, title: impl Into<String>) -> Self {
        Self { title: title.into(), at, also: None }
    }

    fn also(self, at: Range<usize>, what: impl Into<String>) -> Self {
        Self { also: Some((at, what.into())), ..self }
    }
}

/// Reads a file. `config` is what the variables say, if there is nothing wrong with them, and `settings` how they were
/// typed.
///
/// # Errors
/// All faults, in the order of the file.
pub fn read(
    text: &str,
    settings: &Settings,
    config: Option<&Config>,
) -> Result<Routing, Vec<FileFault>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<_> = errors
        .iter()
        .map(|error| FileFault::new(error.span().unwrap_or_default(), error.message()))
        .collect();
    let mut routing = Routing::default();
    // What follows a fault of the form may be something else than it seems.
    if faults.is_empty() {
        // Faults of theirs are told as theirs, and must not seem to be the file's.
        let stand_in = || Config::for_destination(([0, 0, 0, 0], 1).into(), "localhost", 2);
        let config = config.cloned().unwrap_or_else(stand_in);
        let variables = Overlay::of_variables(settings, config);
        let mut reader = FileReader { variables, faults: Vec::new(), upstreams: HashMap::new() };
        routing = reader.document(document.get_ref());
        faults = reader.faults;
    }
    if faults.is_empty() {
        return Ok(routing);
    }
    faults.sort_by_key(|fault| fault.at.start);
    Err(faults)
}

struct FileReader<'t> {
    variables: Overlay<'t>,
    faults: Vec<FileFault>,
    /// By name: the place of each group and its settings.
    upstreams: HashMap<&'t str, (usize, Overlay<'t>)>,
}

/// What a route says beside its settings.
#[derive(Default)]
struct RouteKeys<'t> {
    name: Option<(&'t str, Range<usize>)>,
    upstream: Option<(&'t str, Range<usize>)>,
    strip: Option<(bool, Range<usize>)>,
    conditions: Conditions,
    changes: HeadChanges,
    /// Where its path stands.
    path: Option<Range<usize>>,
    has_bad_path: bool,
}

impl<'t> FileReader<'t> {
    fn fault(&mut self, at: Range<usize>, title: impl Into<String>) {
        self.faults.push(FileFault::new(at, title));
    }

    fn document(&mut self, document: &'t DeTable<'t>) -> Routing {
        let mut routing = Routing::default();
        let all = entries(document);
        // Routes name groups that may stand behind them.
        for Entry { key, at, value } in all.iter().filter(|entry| entry.key == "upstreams") {
            match value.get_ref() {
                DeValue::Table(groups) => {
                    routing.upstreams = entries(groups)
                        .into_iter()
                        .filter_map(|group| self.upstream(&group))
                        .collect();
                }
                other => self.wrong_form(key, at, other, "tables, as [upstreams.chat]"),
            }
        }
        for entry in &all {
            let Entry { key, at, value } = entry;
            match (*key, value.get_ref()) {
                ("upstreams", _) => {}
                ("routes", DeValue::Array(routes))
                    if routes.iter().all(|route| route.get_ref().is_table()) =>
                {
                    routing.routes = self.routes(routes);
                }
                ("routes", other) => self.wrong_form(key, at, other, "tables, as [[routes]]"),
                _ => self.unknown_at_top(entry),
            }
        }
        routing
    }

    fn wrong_form(&mut self, key: &str, at: &Range<usize>, value: &DeValue<'_>, form: &str) {
        self.fault(at.clone(), format!("{key} is {}: give {form}", kind_of(value)));
    }

    fn unknown_at_top(&mut self, entry: &Entry<'t>) {
        let (key, at) = (entry.key, entry.at.clone());
        let variable = key.to_uppercase();
        let known = settings::all().into_iter().find(|setting| setting.variable == variable);
        self.fault(
            at,
            match known.map(|setting| setting.scope) {
                Some(Scope::Process) => process_setting(key),
                Some(Scope::Upstream | Scope::Route) => format!(
                    "{key} is of an upstream or a route: it belongs under [upstreams.NAME] or [[routes]]; for the \
                     default route set {variable}"
                ),
                None => format!("{key} is not known here{}; there are upstreams and routes", meant(key, ["upstreams", "routes"])),
            },
        );
    }

    fn upstream(&mut self, group: &Entry<'t>) -> Option<UpstreamConfig> {
        let Entry { key: name, at, value } = group;
        if !is_name(name) {
            self.fault(at.clone(), format!("{name:?}: {NAME_RULE}"));
        }
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_form(name, at, value.get_ref(), &format!("a table, as [upstreams.{name}]"));
            return None;
        };
        let mut overlay = self.variables.clone();
        for entry in entries(table) {
            match setting(entry.key) {
                Some(Scope::Upstream | Scope::Route) => overlay.set(&entry, &mut self.faults),
                Some(Scope::Process) => self.fault(entry.at.clone(), process_setting(entry.key)),
                None => self.unknown(&entry, &keys(&[Scope::Upstream, Scope::Route], &[])),
            }
        }
        if overlay.config.destination_hostname.is_empty() && !overlay.says("DESTINATION_HOSTNAME") {
            self.fault(
                at.clone(),
                format!("{name} has no destination_hostname: give the application's host name or IP address"),
            );
        }
        if overlay.lacks_port() && !overlay.says("DESTINATION_PORT") {
            self.fault(
                at.clone(),
                format!(
                    "{name} has no destination_port: give the port that the application listens on"
                ),
            );
        }
        overlay.contradictions(&self.variables, &mut self.faults);
        let config = Arc::new(overlay.config.clone());
        self.upstreams.insert(name, (self.upstreams.len(), overlay));
        Some(UpstreamConfig { name: (*name).into(), config })
    }

    fn routes(&mut self, routes: &'t [Spanned<DeValue<'t>>]) -> Vec<RouteConfig> {
        if let Some(first) = routes.get(MOST_ROUTES) {
            self.fault(
                first.span(),
                format!("there are {} routes: give {MOST_ROUTES} at most", routes.len()),
            );
            return Vec::new();
        }
        let mut names = HashMap::new();
        let mut taken = HashMap::new();
        routes
            .iter()
            .filter_map(|route| {
                let DeValue::Table(table) = route.get_ref() else { return None };
                let before = self.faults.len();
                let keys = self.route_keys(table, route.span());
                let is_clear = self.faults.len() == before;
                if let Some((name, at)) = &keys.0.name {
                    if let Some(first) = names.insert(*name, at.clone()) {
                        let fault = FileFault::new(
                            at.clone(),
                            format!("{name:?} is the name of two routes"),
                        );
                        self.faults.push(fault.also(first, "the first one"));
                    }
                    // Conditions with a fault may be others than they seem.
                    if is_clear {
                        self.see_if_taken(&keys.0, &mut taken);
                    }
                }
                self.route(keys, route.span())
            })
            .collect()
    }

    /// Conditions that another route has are never asked for.
    fn see_if_taken(
        &mut self,
        keys: &RouteKeys<'t>,
        taken: &mut HashMap<String, (&'t str, Range<usize>)>,
    ) {
        let Some((name, at)) = &keys.name else { return };
        let Conditions { hosts, path, headers, upgrade } = &keys.conditions;
        let mut headers = headers.clone();
        headers.sort();
        let hosts: Vec<_> =
            if hosts.is_empty() { vec![None] } else { hosts.iter().map(Some).collect() };
        for host in hosts {
            let what = format!("{host:?} {path:?} {headers:?} {upgrade:?}");
            if let Some((other, first)) = taken.get(&what) {
                let of_host = host.map_or_else(String::new, |host| format!(" with host {host}"));
                let title =
                    format!("{name:?} is never taken{of_host}: {other:?} has the same conditions");
                self.faults.push(
                    FileFault::new(at.clone(), title).also(first.clone(), "this one is taken"),
                );
                return;
            }
            taken.insert(what, (*name, at.clone()));
        }
    }

    /// What a route says, and its settings as they stand.
    fn route_keys(
        &mut self,
        table: &'t DeTable<'t>,
        at: Range<usize>,
    ) -> (RouteKeys<'t>, Vec<Entry<'t>>) {
        let mut keys = RouteKeys::default();
        let mut own = Vec::new();
        for entry in entries(table) {
            match (entry.key, setting(entry.key)) {
                (_, Some(Scope::Route)) => own.push(entry),
                (key, Some(Scope::Upstream)) => self.fault(
                    entry.at.clone(),
                    format!("{key} is of an upstream: it belongs under [upstreams.NAME], which the route names by upstream"),
                ),
                (key, Some(Scope::Process)) => self.fault(entry.at.clone(), process_setting(key)),
                ("name", _) => keys.name = self.text(&entry, NAME_RULE),
                ("upstream", _) => keys.upstream = self.text(&entry, "give the name of an upstream"),
                ("strip_prefix", _) => {
                    keys.strip = self.yes_or_no(&entry).map(|strip| (strip, entry.at.clone()));
                }
                _ if self.condition(&entry, &mut keys) => {}
                ("request_headers", _) => self.changes(&entry, &mut keys.changes),
                _ => self.unknown(&entry, &self::keys(&[Scope::Route], ROUTE_KEYS)),
            }
        }
        match &keys.name {
            None if !table.contains_key("name") => {
                self.fault(at, format!("this route has no name: {NAME_RULE}"));
            }
            Some((name, at)) if !is_name(name) => {
                self.fault(at.clone(), format!("name = {name:?}: {NAME_RULE}"));
            }
            Some((name @ "default", at)) => {
                self.fault(
                    at.clone(),
                    format!("name = {name:?}: the default route is that of the variables"),
                );
            }
            _ => {}
        }
        self.see_to_strip(&mut keys);
        (keys, own)
    }

    fn route(
        &mut self,
        (keys, own): (RouteKeys<'t>, Vec<Entry<'t>>),
        at: Range<usize>,
    ) -> Option<RouteConfig> {
        let at = keys.name.as_ref().map_or(at, |(_, at)| at.clone());
        let group = keys.upstream.as_ref().and_then(|(name, at)| {
            let known = self.upstreams.get(name).cloned();
            if known.is_none() {
                let names: Vec<_> = self.upstreams.keys().copied().collect();
                let title = format!(
                    "upstream = {name:?}: there is no [upstreams.{name}]{}",
                    meant(name, names)
                );
                self.fault(at.clone(), title);
            }
            known
        });
        if keys.upstream.is_none() && self.variables.config.destination_hostname.is_empty() {
            self.fault(
                at,
                "this route has no upstream, and DESTINATION_HOSTNAME is not set: give the name of an upstream",
            );
        }
        let (upstream, under) = match group {
            Some((place, overlay)) => (Some(place), overlay),
            None => (None, self.variables.clone()),
        };
        let mut overlay = under.clone();
        for entry in own {
            overlay.set(&entry, &mut self.faults);
        }
        overlay.contradictions(&under, &mut self.faults);
        let (name, _) = keys.name?;
        let RouteKeys { conditions, changes, .. } = keys;
        Some(RouteConfig {
            name: name.into(),
            conditions,
            upstream,
            config: Arc::new(overlay.config),
            changes,
        })
    }

    fn unknown(&mut self, entry: &Entry<'t>, known: &[String]) {
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        let key = entry.key;
        self.fault(entry.at.clone(), format!("{key} is not known here{}", meant(key, known)));
    }
}

/// The keys of a route that are no settings.
pub const ROUTE_KEYS: &[&str] = &[
    "name",
    "host",
    "path",
    "path_prefix",
    "headers",
    "upgrade",
    "upstream",
    "strip_prefix",
    "request_headers",
];

/// What a key is of, if it is a setting.
fn setting(key: &str) -> Option<Scope> {
    if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    Config::scope(&key.to_uppercase())
}

fn keys(scopes: &[Scope], more: &[&str]) -> Vec<String> {
    let settings = settings::all().into_iter().filter(|setting| scopes.contains(&setting.scope));
    let more = more.iter().map(|key| (*key).to_owned());
    settings.map(|setting| setting.variable.to_lowercase()).chain(more).collect()
}

fn process_setting(key: &str) -> String {
    format!("{key} is of the process: set the variable {}", key.to_uppercase())
}

#[cfg(test)]
mod tests;
