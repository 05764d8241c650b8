//! Kinds of values of the admin port.

use super::{Kind, SocketPath, Wrong, parse_number, wrong};
use crate::config::{AdminHosts, AdminListenOn, AdminToken};

/// A port, an address and a port, or the path of a UNIX socket.
pub(in crate::config) struct AdminPlace;

impl Kind for AdminPlace {
    type Value = AdminListenOn;

    fn read(&self, text: &str, or: &str) -> Result<AdminListenOn, Vec<Wrong>> {
        if text.starts_with('/') {
            return SocketPath::like("/run/elbows/admin.sock", text, or).map(AdminListenOn::Unix);
        }
        let read = match text.parse() {
            Ok(address) => Some(AdminListenOn::Tcp(address)),
            Err(_) => parse_number(text).map(AdminListenOn::loopback),
        };
        let has_port = |place: &AdminListenOn| place.tcp().is_some_and(|tcp| tcp.port != 0);
        match read.filter(has_port) {
            Some(place) => Ok(place),
            None => wrong(
                text,
                format!(
                    "give {or}a port, as 9145, which only this machine can connect to, an IP address and a \
                     port, as 10.0.0.5:9145, or the absolute path of a UNIX socket; a port is a number from 1 \
                     to 65535"
                ),
            ),
        }
    }

    fn write(&self, value: &AdminListenOn) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        String::from(
            "a port, as `9145`, at 127.0.0.1; `10.0.0.5:9145`, `[::]:9145`; or a path, as `/run/elbows/admin.sock`",
        )
    }
}

/// The shortest token: who guesses one needs more tries than a port takes in a lifetime.
const SHORTEST: usize = 16;
const LONGEST: usize = 256;

/// What is to be shown of a token, in place of it.
const HIDDEN: &str = "(not shown)";

/// Names of hosts.
pub(in crate::config) struct HostNames;

impl Kind for HostNames {
    type Value = AdminHosts;

    fn read(&self, text: &str, or: &str) -> Result<AdminHosts, Vec<Wrong>> {
        AdminHosts::read(text).or_else(|item| {
            wrong(
                item,
                format!(
                    "give {or}names of hosts, comma separated, as elbows.example.internal; no ports"
                ),
            )
        })
    }

    fn write(&self, value: &AdminHosts) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        "names, as `elbows.example.internal,metrics.example.com`".to_owned()
    }
}

/// A token as `Authorization` can have it (RFC 6750, section 2.1).
pub(in crate::config) struct Token;

impl Kind for Token {
    type Value = AdminToken;

    fn read(&self, text: &str, or: &str) -> Result<AdminToken, Vec<Wrong>> {
        let is_token = text
            .trim_end_matches('=')
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        if is_token && (SHORTEST..=LONGEST).contains(&text.len()) {
            return Ok(AdminToken::new(text));
        }
        wrong(
            HIDDEN,
            format!(
                "give {or}{SHORTEST} to {LONGEST} letters, digits and -._~+/, with = at the end alone (RFC \
                 6750, section 2.1)"
            ),
        )
    }

    fn write(&self, _: &AdminToken) -> String {
        HIDDEN.to_owned()
    }

    fn bounds(&self) -> String {
        format!(
            "{SHORTEST} to {LONGEST} letters, digits and -._~+/, as `0123456789abcdef`, but one that nobody guesses"
        )
    }
}
