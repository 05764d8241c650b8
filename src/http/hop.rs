//! Hop-by-hop fields: those that speak of one connection and must not pass (RFC 9110, section 7.6.1).

mod connection_options;

pub(crate) use self::connection_options::{ConnectionOptions, wants_trailers};
use super::forwarded::is_claim;

/// The items of a list. As bytes: one that is no text does not hide the others.
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// What speaks of one connection, whether it is listed or not. `Proxy-Connection` is nobody's standard and everybody's
/// bug (RFC 9112, C.2.2). Of an upgrade, what it changes to is said anew.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "http2-settings",
    "proxy-authorization",
    "proxy-authenticate",
];

/// Whether a field of this name speaks of one connection, whether it is listed or not.
pub(super) fn is_always_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
}

/// Fields without which the message means something else. A client that lists one in `Connection`
/// would have us remove it behind the back of the upstream, so the listing is ignored.
fn is_end_to_end(name: &[u8]) -> bool {
    const WEBSOCKET: &[u8] = b"sec-websocket-";
    END_TO_END.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
        || is_claim(name)
        || name.get(..WEBSOCKET.len()).is_some_and(|start| start.eq_ignore_ascii_case(WEBSOCKET))
}

const END_TO_END: [&str; 9] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "authorization",
    "cookie",
    "origin",
    "cache-control",
    "max-forwards",
];
