//! Hop-by-hop fields: those that speak of one connection and must not pass (RFC 9110, section 7.6.1).

mod connection_options;

pub(crate) use self::connection_options::{ConnectionOptions, wants_trailers};
use super::forwarded::is_claim;
use super::head::Field;

/// The items of a list. As bytes: one that is no text does not hide the others.
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a field speaks of one connection, whether it is listed or not. `Proxy-Connection` is nobody's standard and everybody's
/// bug (RFC 9112, C.2.2). Of an upgrade, what it changes to is said anew.
pub(super) fn is_always_hop_by_hop(field: &Field<'_>) -> bool {
    match field.name.len() {
        2 => field.is(b"te"),
        7 => field.is(b"upgrade"),
        10 => field.is(b"connection") || field.is(b"keep-alive"),
        14 => field.is(b"http2-settings"),
        16 => field.is(b"proxy-connection"),
        17 => field.is(b"transfer-encoding"),
        18 => field.is(b"proxy-authenticate"),
        19 => field.is(b"proxy-authorization"),
        _ => false,
    }
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
