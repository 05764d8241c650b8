//! Why a request takes a route, in words: `elbows check --route`.
//!
//! It looks at one route after the other, which is slow and plain; tests hold the table that is used (`table.rs`) against it.

use std::fmt::{self, Write as _};

use super::clear_path::Unclear;
use super::input::{RouteInput, without_port};
use super::table::{Table, has};
use crate::config::routing::{Conditions, HostPattern, PathPattern, RouteConfig, Routing};
use crate::http::head::{Field, is_host};

/// A request as somebody types it: `GET wss://app.example.com/chat`, and fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    method: String,
    is_upgrade: bool,
    host: String,
    path: String,
    fields: Vec<(String, String)>,
}

/// How well the host of a route fits; what fits better is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostRank {
    Any,
    /// The length of the domain.
    Below(usize),
    Exact,
}

/// The same of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathRank {
    Any,
    /// The length of the prefix.
    Prefix(usize),
    Exact,
}

/// How a route fits: of those that do, the greatest is taken, and of two alike the first of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) host: HostRank,
    pub(super) path: PathRank,
    pub(super) headers: usize,
    pub(super) upgrade: bool,
}

/// What a request has not that a route asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    Host,
    Path,
    Header(String),
    Upgrade(bool),
}

impl Typed {
    /// Reads `[METHOD] URL`, of which the scheme is http, https, ws or wss: the latter two ask for an upgrade. Fields are
    /// `NAME: VALUE`.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn read(text: &str, fields: &[String]) -> Result<Self, String> {
        let rule = |what: &str| {
            format!(
                "{text:?}: {what}; give a method and a URL, as 'GET wss://app.example.com/chat'"
            )
        };
        let (method, url) = text.split_once(' ').unwrap_or(("GET", text));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| rule("it has no scheme"))?;
        let is_upgrade = match scheme {
            "ws" | "wss" => true,
            "http" | "https" => false,
            _ => return Err(rule("the scheme is ws, wss, http or https")),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        if host.is_empty() || !is_host(host.as_bytes()) {
            return Err(rule("it has no host that can be asked for"));
        }
        let is_of_target = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if method.is_empty() || !target.bytes().all(is_of_target) {
            return Err(rule("it has a sign that no request can have"));
        }
        let path = String::from_utf8_lossy(super::input::path_of(target.as_bytes())).into_owned();
        let fields = fields.iter().map(|field| {
            let (name, value) = field.split_once(':').ok_or_else(|| {
                format!("{field:?}: give a name and a value, as 'X-Tenant: blue'")
            })?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        });
        Ok(Self {
            method: method.to_owned(),
            is_upgrade,
            host: host.to_owned(),
            path,
            fields: fields.collect::<Result<_, String>>()?,
        })
    }

    fn fields(&self) -> Vec<Field<'_>> {
        let all = self.fields.iter();
        all.map(|(name, value)| Field { name: name.as_bytes(), value: value.as_bytes() }).collect()
    }
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The route at this place of the file.
    Named(usize),
    /// The default route, that of the variables.
    Default,
    /// None: it is answered 404.
    None,
    /// It depends on how the path is read, and is answered 400.
    Unclear,
}

impl Taken {
    /// The place of the route, if it is one of the file's.
    #[must_use]
    pub const fn place(self) -> Option<usize> {
        match self {
            Self::Named(place) => Some(place),
            Self::Default | Self::None | Self::Unclear => None,
        }
    }

    /// Whether the request goes to an application.
    #[must_use]
    pub const fn is_a_route(self) -> bool {
        matches!(self, Self::Named(_) | Self::Default)
    }
}

/// Says which route a request takes, and why. `has_default` tells whether the variables name an application.
#[must_use]
pub fn explain(routing: &Routing, has_default: bool, typed: &Typed) -> (Taken, String) {
    let fields = typed.fields();
    let input = RouteInput {
        host: without_port(typed.host.as_bytes()),
        path: typed.path.as_bytes(),
        fields: &fields,
        is_upgrade: typed.is_upgrade,
    };
    let table = Table::new(routing.routes.iter().map(|route| &route.conditions));
    let taken = match table.find(&input) {
        Ok(Some(place)) => Taken::Named(place),
        Ok(None) if has_default => Taken::Default,
        Ok(None) => Taken::None,
        Err(Unclear) => Taken::Unclear,
    };
    let mut out = String::new();
    let told = write(&mut out, routing, &input, typed, taken);
    debug_assert!(told.is_ok(), "writing to a string cannot fail");
    (taken, out)
}

fn write(
    out: &mut String,
    routing: &Routing,
    input: &RouteInput<'_>,
    typed: &Typed,
    taken: Taken,
) -> fmt::Result {
    let Typed { method, host, path, is_upgrade, .. } = typed;
    let upgrade = if *is_upgrade { "asks for an upgrade" } else { "asks for no upgrade" };
    writeln!(out, "{method} {path} of {host}, which {upgrade}")?;
    match taken {
        Taken::Named(place) => {
            if let Some(route) = routing.routes.get(place) {
                writeln!(out, "route: {}", route.name)?;
                write_conditions(out, &route.conditions, input)?;
            }
        }
        Taken::Default => {
            writeln!(out, "route: default, that of the variables: no other one takes it")?;
        }
        Taken::None => writeln!(
            out,
            "route: none: no route takes it, and DESTINATION_HOSTNAME is not set; it is answered 404"
        )?,
        Taken::Unclear => writeln!(
            out,
            "route: none: whoever decodes the path, merges its slashes and resolves its dots would take another one; it is \
             answered 400"
        )?,
    }
    let judged = |route: &RouteConfig| judge(&route.conditions, input);
    for route in &routing.routes {
        let what = match judged(route) {
            Err(Lacks::Header(header)) => format!("the request has not {header:?} once"),
            Err(Lacks::Upgrade(true)) => String::from("the request asks for no upgrade"),
            Err(Lacks::Upgrade(false)) => String::from("the request asks for an upgrade"),
            Err(Lacks::Host | Lacks::Path) | Ok(_) => continue,
        };
        writeln!(out, "not {}: host and path fit, but {what}", route.name)?;
    }
    let mut others: Vec<_> = (0..)
        .zip(&routing.routes)
        .filter(|(place, _)| taken != Taken::Named(*place))
        .filter_map(|(_, route)| Some((judged(route).ok()?, route)))
        .collect();
    others.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    if let Some((_, next)) = others.first() {
        writeln!(out, "not {}: it fits, too, and less closely", next.name)?;
    }
    Ok(())
}

/// The conditions that are met, and what meets them.
fn write_conditions(
    out: &mut String,
    conditions: &Conditions,
    input: &RouteInput<'_>,
) -> fmt::Result {
    let Conditions { hosts, path, headers, upgrade } = conditions;
    let host = hosts
        .iter()
        .filter_map(|host| Some((host_rank(host, input.host)?, host)))
        .max_by_key(|(rank, _)| *rank);
    match host {
        Some((HostRank::Below(_), host)) => writeln!(out, "  host: it ends as {host} does")?,
        Some((_, host)) => writeln!(out, "  host: it is {host}")?,
        None => writeln!(out, "  host: any")?,
    }
    match path {
        PathPattern::Any => writeln!(out, "  path: any")?,
        PathPattern::Exact(path) => writeln!(out, "  path: it is {path}")?,
        PathPattern::Prefix(path) => writeln!(out, "  path: it is {path} or behind it")?,
    }
    for (name, value) in headers {
        writeln!(out, "  header: {name} is {value:?}")?;
    }
    if let Some(upgrade) = upgrade {
        let what = if *upgrade { "it asks for one" } else { "it asks for none" };
        writeln!(out, "  upgrade: {what}")?;
    }
    Ok(())
}

/// How a route fits a request, or the first that is missing.
pub(super) fn judge(conditions: &Conditions, input: &RouteInput<'_>) -> Result<Rank, Lacks> {
    let Conditions { hosts, path, headers, upgrade } = conditions;
    let host = if hosts.is_empty() {
        HostRank::Any
    } else {
        hosts.iter().filter_map(|host| host_rank(host, input.host)).max().ok_or(Lacks::Host)?
    };
    let path = path_rank(path, input.path).ok_or(Lacks::Path)?;
    for (name, value) in headers {
        if !has(input.fields, name.as_bytes(), value.as_bytes()) {
            return Err(Lacks::Header(format!("{name}: {value}")));
        }
    }
    if let Some(upgrade) = upgrade.filter(|upgrade| *upgrade != input.is_upgrade) {
        return Err(Lacks::Upgrade(upgrade));
    }
    Ok(Rank { host, path, headers: headers.len(), upgrade: upgrade.is_some() })
}

fn host_rank(pattern: &HostPattern, host: &[u8]) -> Option<HostRank> {
    let host = host.to_ascii_lowercase();
    match pattern {
        HostPattern::Exact(own) => (host == own.as_bytes()).then_some(HostRank::Exact),
        HostPattern::Below(domain) => {
            let before = host.strip_suffix(domain.as_bytes())?.strip_suffix(b".")?;
            (!before.is_empty()).then_some(HostRank::Below(domain.len()))
        }
    }
}

fn path_rank(pattern: &PathPattern, path: &[u8]) -> Option<PathRank> {
    match pattern {
        PathPattern::Any => Some(PathRank::Any),
        PathPattern::Exact(own) => (path == own.as_bytes()).then_some(PathRank::Exact),
        PathPattern::Prefix(prefix) => {
            let rest = path.strip_prefix(prefix.as_bytes())?;
            let is_behind = rest.is_empty() || rest.starts_with(b"/") || prefix == "/";
            is_behind.then_some(PathRank::Prefix(prefix.len()))
        }
    }
}
