//! Where the application is: names and addresses, and a port.

use std::fmt;
use std::net::IpAddr;

/// The upstream as the settings name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// At least one; each is here once.
    pub names: Vec<UpstreamName>,
    /// The port, which a service brings with it and needs not.
    pub port: u16,
}

/// One item of `DESTINATION_HOSTNAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamName {
    /// An IP address.
    Address(IpAddr),
    /// A host name: each of its addresses is an endpoint.
    Host(String),
    /// The name of SRV records (RFC 2782), as `_ws._tcp.app.internal`: each names a host and its port.
    Service(String),
}

/// RFC 1035, section 2.3.4, as text without the root's dot.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// What the name of a service begins with.
const SERVICE: &str = "srv+";

impl UpstreamName {
    /// Reads one: an address may have brackets, and a service begins with `srv+`.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if let Some(service) = text.strip_prefix(SERVICE) {
            return is_host_name(service).then(|| Self::Service(service.to_owned()));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(address) => Some(Self::Address(address)),
            Err(_) => is_host_name(text).then(|| Self::Host(text.to_owned())),
        }
    }
}

fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= LONGEST_NAME
        && name.split('.').all(|label| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
        // All digits and dots is an address that did not parse, never a name (RFC 1123, 2.1).
        && !name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "{address}"),
            Self::Host(name) => out.write_str(name),
            Self::Service(name) => write!(out, "{SERVICE}{name}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.names.iter().enumerate() {
            if place > 0 {
                out.write_str(", ")?;
            }
            match name {
                UpstreamName::Address(IpAddr::V6(address)) => {
                    write!(out, "[{address}]:{}", self.port)?;
                }
                UpstreamName::Service(_) => write!(out, "{name}")?,
                _ => write!(out, "{name}:{}", self.port)?,
            }
        }
        Ok(())
    }
}
