//! How endpoints are checked.

use std::fmt;

/// What has to succeed for a check to have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamCheck {
    /// A connection.
    Tcp,
    /// A GET of this target: 2xx or 3xx.
    Http(String),
    /// A handshake of a WebSocket with this target: 101, and a Close behind it.
    WebSocket(String),
}

const HTTP: &str = "http:";
const WEB_SOCKET: &str = "websocket:";

impl UpstreamCheck {
    /// Reads one; what a target may be, `is_target` says.
    pub(super) fn read(text: &str, is_target: impl Fn(&str) -> bool) -> Option<Self> {
        if text == "tcp" {
            return Some(Self::Tcp);
        }
        let of = |begin| text.strip_prefix(begin).filter(|target| is_target(target));
        let http = || of(HTTP).map(|target| Self::Http(target.to_owned()));
        let web_socket = || of(WEB_SOCKET).map(|target| Self::WebSocket(target.to_owned()));
        http().or_else(web_socket)
    }
}

impl fmt::Display for UpstreamCheck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => out.write_str("tcp"),
            Self::Http(target) => write!(out, "{HTTP}{target}"),
            Self::WebSocket(target) => write!(out, "{WEB_SOCKET}{target}"),
        }
    }
}
