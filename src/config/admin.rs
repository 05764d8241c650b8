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
