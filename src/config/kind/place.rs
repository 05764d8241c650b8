//! Kinds of values that say where: sockets, hosts, networks, paths.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::Value;

use super::{Kind, ListenOn, Wrong, each, list, number, parse_number, texts, wrong};
use crate::config::{Sticky, UpstreamCheck, UpstreamName};
use crate::handoff::socket::MAX_PATH;

const PORT_RULE: &str = "a port is a number from 1 to 65535";

/// A port to listen on, and perhaps an address.
pub(in crate::config) struct SocketToListenOn {
    /// What the documents say.
    pub(in crate::config) bounds: &'static str,
}

impl Kind for SocketToListenOn {
    type Value = ListenOn;

    fn read(&self, text: &str, _: &str) -> Result<ListenOn, Vec<Wrong>> {
        let parsed = match text.parse::<SocketAddr>() {
            Ok(address) => Some((Some(address.ip()), address.port())),
            Err(_) => parse_number(text).map(|port| (None, port)),
        };
        match parsed {
            Some((address, port)) if port != 0 => Ok(ListenOn { address, port }),
            _ => wrong(
                text,
                format!(
                    "give a port, or an IP address and a port, as 45400, 127.0.0.1:45400 \
                     or [::1]:45400; {PORT_RULE}"
                ),
            ),
        }
    }

    fn write(&self, value: &ListenOn) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        self.bounds.to_owned()
    }
}

pub(in crate::config) struct Port;

impl Kind for Port {
    type Value = u16;

    fn read(&self, text: &str, _: &str) -> Result<u16, Vec<Wrong>> {
        match parse_number(text) {
            Some(port) if port != 0 => Ok(port),
            _ => wrong(text, PORT_RULE),
        }
    }

    fn absent(&self) -> Option<u16> {
        Some(0)
    }

    fn schema(&self) -> Value {
        number()
    }

    fn write(&self, value: &u16) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        String::from("from `1` to `65535`")
    }
}

/// Names and addresses of the application.
pub(in crate::config) struct UpstreamNames;

impl UpstreamNames {
    /// More are a mistake: each is asked for by itself.
    const MOST: usize = 64;
}

impl Kind for UpstreamNames {
    type Value = Vec<UpstreamName>;

    fn read(&self, text: &str, _: &str) -> Result<Self::Value, Vec<Wrong>> {
        let one = |item: &str| {
            UpstreamName::read(item).ok_or_else(|| {
                String::from(
                    "give a host name (letters, digits, '-', '_' and '.') or an IP address, without \
                     scheme, port or path, or srv+ and the name of SRV records, as \
                     srv+_ws._tcp.app.internal; or several, separated by commas",
                )
            })
        };
        let names = if text.contains(',') {
            each(text, one)?
        } else {
            vec![one(text).map_err(|rule| vec![(text.to_owned(), rule)])?]
        };
        if names.len() > Self::MOST {
            return wrong(text, format!("give {} names and addresses at most", Self::MOST));
        }
        let mut before = names.iter();
        while let Some(last) = before.next_back() {
            if before.clone().any(|other| other == last) {
                return wrong(&last.to_string(), "give each name and address once");
            }
        }
        Ok(names)
    }

    fn absent(&self) -> Option<Self::Value> {
        Some(Vec::new())
    }

    fn schema(&self) -> Value {
        texts()
    }

    fn write(&self, value: &Self::Value) -> String {
        list(value, "")
    }

    fn bounds(&self) -> String {
        String::from(
            "host names, addresses and services, as `app`, `app.internal`, `10.0.0.5`, `[fd00::5]`, \
             `10.0.0.5,10.0.0.6`, `srv+_ws._tcp.app.internal`",
        )
    }
}

/// What says which endpoint a request belongs to.
pub(in crate::config) struct StickyBy;

impl Kind for StickyBy {
    type Value = Sticky;

    fn read(&self, text: &str, _: &str) -> Result<Sticky, Vec<Wrong>> {
        Sticky::read(text).or_else(|rule| wrong(text, rule))
    }

    fn write(&self, value: &Sticky) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        String::from(
            "`off`, `cookie`, a cookie as `cookie:seat`, `client`, a field as `header:X-Room`, a part of the query as \
             `query:room`, or `path`",
        )
    }
}

/// Networks whose headers are believed; none means everyone's.
pub(in crate::config) struct Networks;

impl Networks {
    const EVERYONE: &str = "everyone";

    fn one(item: &str) -> Result<IpNet, String> {
        let network = item.parse::<IpNet>().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) if network.addr().to_canonical() != network.addr() => {
                Err(String::from("is an IPv4 network in the spelling of IPv6; write it as IPv4"))
            }
            Ok(network) if network == network.trunc() => Ok(network),
            Ok(network) => {
                Err(format!("has bits beyond its prefix; did you mean {}", network.trunc()))
            }
            Err(_) => Err(String::from(
                "give networks or addresses, comma separated, as 10.0.0.0/8,fd00::/8, or everyone",
            )),
        }
    }
}

impl Kind for Networks {
    type Value = Vec<IpNet>;

    fn read(&self, text: &str, _: &str) -> Result<Vec<IpNet>, Vec<Wrong>> {
        if text == Self::EVERYONE { Ok(Vec::new()) } else { each(text, Self::one) }
    }

    fn write(&self, value: &Vec<IpNet>) -> String {
        list(value, Self::EVERYONE)
    }

    fn bounds(&self) -> String {
        String::from("`everyone`, or networks and addresses, as `10.0.0.0/8,fd00::/8,192.0.2.1`")
    }
}

/// No load balancer takes a longer one for its checks (AWS, `HealthCheckPath`).
const LONGEST_PATH: usize = 1024;

/// The path of a URI (RFC 3986, section 3.3): a check with another one could be asked for by nobody.
pub(in crate::config) struct Path;

impl Kind for Path {
    type Value = String;

    fn read(&self, text: &str, _: &str) -> Result<String, Vec<Wrong>> {
        if text.starts_with('/') && text.len() <= LONGEST_PATH && is_path(text.as_bytes()) {
            return Ok(text.to_owned());
        }
        wrong(
            text,
            format!(
                "a path begins with '/' and has visible ASCII characters that a URI may hold (RFC 3986, \
                 section 3.3), so without '?' and '#', and with two hexadecimal digits behind each '%'; \
                 {LONGEST_PATH} characters at most"
            ),
        )
    }

    fn write(&self, value: &String) -> String {
        value.clone()
    }

    fn bounds(&self) -> String {
        String::from("a path, as `/ping`, `/health/live`")
    }
}

/// How endpoints are checked.
pub(in crate::config) struct UpstreamChecks;

impl UpstreamChecks {
    /// A path, and perhaps a query (RFC 3986, sections 3.3 and 3.4).
    fn is_target(text: &str) -> bool {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let is_query = query.split('?').all(|part| is_path(part.as_bytes()));
        // Two slashes would be the beginning of a host.
        let is_absolute = path.starts_with('/') && !path.starts_with("//");
        text.len() <= LONGEST_PATH && is_absolute && is_path(path.as_bytes()) && is_query
    }
}

impl Kind for UpstreamChecks {
    type Value = UpstreamCheck;

    fn read(&self, text: &str, or: &str) -> Result<UpstreamCheck, Vec<Wrong>> {
        match UpstreamCheck::read(text, Self::is_target) {
            Some(check) => Ok(check),
            None => wrong(
                text,
                format!(
                    "give {or}tcp, or http: or websocket: and a path with visible ASCII characters that a \
                     URI may hold, as http:/health or websocket:/ws?check=1, of {LONGEST_PATH} characters \
                     at most"
                ),
            ),
        }
    }

    fn write(&self, value: &UpstreamCheck) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        String::from("some as `tcp`, `http:/health`, `websocket:/ws`")
    }
}

/// The path of a UNIX socket. What is to be said of its directory is said where files are looked at.
pub(in crate::config) struct SocketPath;

impl SocketPath {
    /// Reads one; what is said of one that is none has `example`.
    pub(super) fn like(example: &str, text: &str, or: &str) -> Result<PathBuf, Vec<Wrong>> {
        let names_a_file =
            text.rsplit('/').next().is_some_and(|name| !matches!(name, "" | "." | ".."));
        if text.starts_with('/') && names_a_file && text.len() <= MAX_PATH && !text.contains('\0') {
            return Ok(PathBuf::from(text));
        }
        wrong(
            text,
            format!(
                "give {or}the absolute path of a UNIX socket, as {example}, of {MAX_PATH} bytes at most"
            ),
        )
    }
}

impl Kind for SocketPath {
    type Value = PathBuf;

    fn read(&self, text: &str, or: &str) -> Result<PathBuf, Vec<Wrong>> {
        Self::like("/run/elbows/handoff.sock", text, or)
    }

    fn write(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn bounds(&self) -> String {
        String::from("an absolute path, as `/run/elbows/handoff.sock`")
    }
}

/// The path of a file to be read.
pub(in crate::config) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn read(&self, text: &str, or: &str) -> Result<PathBuf, Vec<Wrong>> {
        if !text.is_empty() && !text.ends_with('/') && !text.contains('\0') {
            return Ok(PathBuf::from(text));
        }
        wrong(text, format!("give {or}the path of a file, as /etc/elbows/elbows.toml"))
    }

    fn write(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn bounds(&self) -> String {
        String::from("the path of a file, as `/etc/elbows/elbows.toml`")
    }
}

/// Whether these are segments and the slashes between them.
fn is_path(mut text: &[u8]) -> bool {
    loop {
        text = match text {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..]
                if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(byte) =>
            {
                rest
            }
            _ => return false,
        };
    }
}
