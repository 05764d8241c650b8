//! What `CONFIG_FILE` says: upstream groups and routes, each with all its settings. Pure.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::Config;

/// The upstream groups and routes of a file; without a file there are none.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// In the order of the file.
    pub upstreams: Vec<UpstreamConfig>,
    /// In the order of the file.
    pub routes: Vec<RouteConfig>,
}

/// Endpoints that serve the same.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// No other group has it.
    pub name: Arc<str>,
    /// Its settings; what it does not say is as the variables say.
    pub config: Arc<Config>,
}

/// What requests have in common, and what holds for them.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// No other route has it.
    pub name: Arc<str>,
    /// Which requests take it.
    pub conditions: Conditions,
    /// The place of its group; `None` is the application of the variables.
    pub upstream: Option<usize>,
    /// Its settings; what it does not say is as its group says.
    pub config: Arc<Config>,
    /// What becomes of the heads of its requests.
    pub changes: HeadChanges,
}

/// Which requests take a route: those of which all of it is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// It is asked for one of these; empty is any host.
    pub hosts: Vec<HostPattern>,
    /// The path of its target.
    pub path: PathPattern,
    /// It has each of these fields once, with this value. Names are lower case.
    pub headers: Vec<(String, String)>,
    /// It asks for an upgrade, or does not.
    pub upgrade: Option<bool>,
}

/// A host, or many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one, in lower case.
    Exact(String),
    /// All names that end with a dot and this: `*.example.com`.
    Below(String),
}

/// A path, or many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Every path, and `*` of OPTIONS.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// This path, and all behind it: `/chat` is `/chat` and `/chat/…`, and not `/chatter`.
    Prefix(String),
}

/// What is changed in the head of a request before the upstream gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadChanges {
    /// So many bytes of the path are left out: those of its prefix.
    pub strip: usize,
    /// Fields that the upstream gets, in the place of what the client sent under these names.
    pub set: Vec<(String, String)>,
    /// Fields of the client that the upstream does not get. Names are lower case.
    pub remove: Vec<String>,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => out.write_str(host),
            Self::Below(domain) => write!(out, "*.{domain}"),
        }
    }
}

/// As the file writes it, and nothing where it is any path.
impl fmt::Display for PathPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(path) => write!(out, " path={path}"),
            Self::Prefix(path) => write!(out, " path_prefix={path}"),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, path, headers, upgrade } = self;
        if !hosts.is_empty() {
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            write!(out, " host={}", hosts.join(","))?;
        }
        write!(out, "{path}")?;
        for (name, value) in headers {
            write!(out, " {name}={value:?}")?;
        }
        upgrade.map_or(Ok(()), |upgrade| write!(out, " upgrade={upgrade}"))
    }
}

impl fmt::Display for HeadChanges {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { strip, set, remove } = self;
        if *strip > 0 {
            write!(out, " strip_prefix=true")?;
        }
        for (name, value) in set {
            write!(out, " set {name}={value:?}")?;
        }
        remove.iter().try_for_each(|name| write!(out, " remove {name}"))
    }
}

impl Routing {
    /// The groups and routes in effect, a line each: what each says, and what of it is otherwise than the variables
    /// have it.
    #[must_use]
    pub fn effective(&self, variables: &Config) -> String {
        let mut out = String::new();
        for UpstreamConfig { name, config } in &self.upstreams {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "upstream {name}:{}", others(config, variables));
        }
        for route in &self.routes {
            let RouteConfig { name, conditions, changes, .. } = route;
            let upstream = self.upstream_of(route).map_or("default", |group| &*group.name);
            let under = self.upstream_of(route).map_or(variables, |group| &*group.config);
            let settings = others(&route.config, under);
            let _ =
                writeln!(out, "route {name}:{conditions} upstream={upstream}{changes}{settings}");
        }
        out
    }

    /// Where the route at a place leads, or the default one, and which of its settings are otherwise than the variables
    /// have them.
    #[must_use]
    pub fn explained(&self, place: Option<usize>, variables: &Config) -> String {
        let Some(route) = place.and_then(|place| self.routes.get(place)) else {
            return String::new();
        };
        let upstream = self.upstream_of(route).map_or("default", |group| &*group.name);
        let destination = route.config.destination();
        let mut out = format!("upstream: {upstream}, {destination}\n");
        let changes = route.changes.to_string();
        if !changes.is_empty() {
            let _ = writeln!(out, "changes:{changes}");
        }
        for setting in others(&route.config, variables).split(' ').filter(|text| !text.is_empty()) {
            let _ = writeln!(out, "  {setting}");
        }
        out
    }

    fn upstream_of(&self, route: &RouteConfig) -> Option<&UpstreamConfig> {
        self.upstreams.get(route.upstream?)
    }
}

/// The settings that are otherwise than these.
fn others(config: &Config, than: &Config) -> String {
    let all = config.effective().into_iter().zip(than.effective());
    let others = all.filter(|(own, other)| own != other);
    let mut out = String::new();
    for ((variable, value), _) in others {
        // Writing to a string cannot fail.
        let _ = write!(out, " {}={value}", variable.to_lowercase());
    }
    out
}
