//! How often a request may still be passed on (RFC 9110, section 7.6.2): OPTIONS and TRACE find out by it
//! who is on the way.
//!
//! Whoever passes such a request on counts it down ([`write`](super::write)), and answers it himself where it is
//! 0. With other methods it means nothing and passes as it is.

use super::head::Request;
use super::write::line;

/// The text of the answer of whoever is the last on the way: of TRACE the request as it came, without what may
/// be secret (RFC 9110, section 9.3.8). Of OPTIONS there is none: what the application allows, only it could say.
pub(crate) fn reflection(head: &Request<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    if head.method != b"TRACE" {
        return text;
    }
    text.extend_from_slice(head.line);
    text.extend_from_slice(b"\r\n");
    for field in &head.fields {
        let is_secret =
            field.is(b"authorization") || field.is(b"proxy-authorization") || field.is(b"cookie");
        if !is_secret {
            line(&mut text, field.name, field.value);
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}
