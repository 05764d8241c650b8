//! Where the admin port is, and what whoever changes something there has to have. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::ListenOn;

/// Where the admin port listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListenOn {
    /// At an address and port; the port alone means this machine's own address.
    Tcp(SocketAddr),
    /// At the path of a UNIX socket.
    Unix(PathBuf),
}

impl AdminListenOn {
    /// The address of a port alone: nobody but this machine.
    pub(super) const fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Where it listens, where that is a port.
    #[must_use]
    pub const fn tcp(&self) -> Option<ListenOn> {
        match self {
            Self::Tcp(address) => {
                Some(ListenOn { address: Some(address.ip()), port: address.port() })
            }
            Self::Unix(_) => None,
        }
    }

    /// Where it listens, where that is a path.
    #[must_use]
    pub const fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

impl fmt::Display for AdminListenOn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) => path.display().fmt(out),
        }
    }
}

/// Names with dots that `Host` may have at the admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminHosts(Vec<String>);

impl AdminHosts {
    /// Reads names of hosts, comma separated (RFC 1123, section 2.1).
    ///
    /// # Errors
    /// The first item that is none.
    pub(crate) fn read<'t>(text: &'t str) -> Result<Self, &'t str> {
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let names = text.split(',').map(str::trim);
        let read = |name: &'t str| {
            let is_name = name.len() <= 253 && name.split('.').all(is_label);
            if is_name { Ok(name.to_ascii_lowercase()) } else { Err(name) }
        };
        names.map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a name, as it came, is one of them.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for AdminHosts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join(","))
    }
}

/// What whoever changes something at the admin port has to have. It is never written anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl AdminToken {
    /// The token that `text` is. The setting has rules for it, which this does not look at.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// To be compared in constant time.
    pub(crate) const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("AdminToken")
    }
}
