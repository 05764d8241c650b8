//! Where the admin port is, as `ADMIN_LISTEN_ON` says it. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::text::Text;

/// Where an elbows is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or an address, and a port.
    Tcp(String),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

/// Why a text is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is none to ask.
    #[error("the admin port of that elbows is off: ADMIN_LISTEN_ON turns it on")]
    Off,
    /// It is none of these.
    #[error(
        "give a port, as 9145, an address or a name and a port, as 127.0.0.1:9145, or the path of a UNIX \
         socket, as /run/elbows/admin.sock"
    )]
    None,
}

impl FromStr for Place {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text == "off" {
            return Err(Fault::Off);
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        if let Some(port) = port(text) {
            return Ok(Self::Tcp(format!("127.0.0.1:{port}")));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let is_port = address.port() != 0;
            return if is_port {
                Ok(Self::Tcp(reachable(address).to_string()))
            } else {
                Err(Fault::None)
            };
        }
        let (name, number) = text.rsplit_once(':').ok_or(Fault::None)?;
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name && port(number).is_some() {
            Ok(Self::Tcp(text.to_owned()))
        } else {
            Err(Fault::None)
        }
    }
}

fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

/// Who listens at all addresses of this machine is there at the loopback address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

impl Place {
    /// It as it is shown.
    pub(crate) fn text(&self) -> Text {
        Text::clean(&self.to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => out.write_str(address),
            Self::Unix(path) => path.display().fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn place_is_what_admin_listen_on_may_be_or_a_name() {
        for (text, place) in [
            ("9145", "127.0.0.1:9145"),
            ("10.0.0.5:9145", "10.0.0.5:9145"),
            ("0.0.0.0:9145", "127.0.0.1:9145"),
            ("[::]:9145", "[::1]:9145"),
            ("[2001:db8::7]:9145", "[2001:db8::7]:9145"),
            ("localhost:9145", "localhost:9145"),
            ("elbows_1:80", "elbows_1:80"),
        ] {
            assert_eq!(text.parse(), Ok(Place::Tcp(place.to_owned())), "{text}");
        }
        let path = "/run/elbows/admin.sock";
        assert_eq!(path.parse(), Ok(Place::Unix(PathBuf::from(path))));
        assert_eq!("off".parse::<Place>(), Err(Fault::Off));
        for text in [
            "",
            "0",
            "65536",
            "+80",
            "elbows",
            ":9145",
            "a b:80",
            "::1:9145",
            "http://h:80/",
            "127.0.0.1:0",
            "elbows:",
            "elbows:x",
            "admin.sock",
        ] {
            assert_eq!(text.parse::<Place>(), Err(Fault::None), "{text}");
        }
    }
}
