//! What a request asks to change its connection to, and what the upstream changes it to (RFC 9110, section 7.8;
//! RFC 6455, section 4).
//!
//! An upgrade that comes with a body is passed on as a request without the offer, which RFC 9110, section
//! 7.8, allows.

use smallvec::SmallVec;

use super::head::{Request, Response, Version};
use super::hop::ConnectionOptions;
use crate::tunnel::Protocol;

/// A list of protocols. One is `websocket`, mostly.
pub(crate) type OfferedProtocols = SmallVec<[u8; 16]>;

/// The protocols that a request offers to change to, as a list, where they may be passed on.
///
/// An offer of HTTP/1.0 is ignored, as the RFC demands, one that comes with a body, and one that may not be
/// passed on. `h2c` is never passed on: what would be spoken after it, nobody here could read.
pub(crate) fn offer(head: &Request<'_>, options: &ConnectionOptions) -> Option<OfferedProtocols> {
    let is_asked_for = options.upgrade() && head.version == Version::Http11;
    if !is_asked_for || !head.framing.is_empty() || head.max_forwards == Some(0) {
        return None;
    }
    let mut list = OfferedProtocols::new();
    for field in head.fields.iter().filter(|field| field.is(b"upgrade")) {
        for item in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is_h2c = item.get(..3).is_some_and(|name| name.eq_ignore_ascii_case(b"h2c"));
            if item.is_empty() || is_h2c {
                continue;
            }
            if !list.is_empty() {
                list.extend_from_slice(b", ");
            }
            list.extend_from_slice(item);
        }
    }
    (!list.is_empty()).then_some(list)
}

/// The protocol that a 101 changes to, if it is one of those that were offered.
pub(crate) fn chosen<'a>(response: &Response<'a>, offer: &[u8]) -> Option<&'a [u8]> {
    let mut upgrades = response.fields.iter().filter(|field| field.is(b"upgrade"));
    let (Some(chosen), None) = (upgrades.next(), upgrades.next()) else { return None };
    offer
        .split(|byte| *byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(chosen.value))
        .then_some(chosen.value)
}

/// The subprotocol that a 101 names (RFC 6455, section 4.2.2), or nothing.
pub(crate) fn subprotocol<'a>(response: &Response<'a>) -> &'a [u8] {
    let found = response.fields.iter().find(|field| field.is(b"sec-websocket-protocol"));
    found.map(|field| field.value).unwrap_or_default()
}

/// What is spoken after a 101 that chose this (RFC 6455, section 4.2.2: the word in any case).
pub(crate) fn protocol(chosen: &[u8]) -> Protocol {
    if chosen.eq_ignore_ascii_case(b"websocket") { Protocol::WebSocket } else { Protocol::Other }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::http::head::{HeadLimits, Reader};

    fn offered(head: &str) -> Option<String> {
        let mut reader = Reader::default();
        let (head, _) = reader.request(head.as_bytes(), &HeadLimits::DEFAULT).unwrap().unwrap();
        offer(&head, &ConnectionOptions::of(&head.fields))
            .map(|list| String::from_utf8(list.into_vec()).unwrap())
    }

    #[test]
    fn head_with_both_fields_offers_an_upgrade() {
        let head = "GET /ws HTTP/1.1\r\nHost: a\r\nconnection: keep-alive, Upgrade\r\n\
                    UPGRADE: websocket, h2c ,x\r\n\r\n";
        assert_eq!(offered(head).as_deref(), Some("websocket, x"));
        for other in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Content-Length: 1\r\n\r\n",
        ] {
            assert_eq!(offered(other), None, "{other:?}");
        }
    }
}
